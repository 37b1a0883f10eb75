"""A real Postfix as the smarthost: with STARTTLS and a certificate that is verified, and without TLS."""

from __future__ import annotations

import os
import shutil
import smtplib
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.mailserver import LOOPBACK
from tests.realserver import RealServer, free_port, wait_until
from tests.smtp.test_lmtp_postfix import MAIN, MASTER

from ..folders import new_folder
from ..tls_world import Authority
from .smarthosts import FakeSmarthost
from .test_outgoing_real import LETTER

#: It hands all mail to the test, refuses one user, and offers TLS.
MORE = """
relayhost = [{loopback}]:{next}
smtpd_tls_security_level = may
smtpd_tls_cert_file = {root}/smart.pem
smtpd_tls_key_file = {root}/smart.pem
smtpd_recipient_restrictions = check_recipient_access inline:{{nobody@elsewhere.example=reject}}, permit
smtputf8_enable = yes
"""


class PostfixSmarthostTests(SynchronousTestCase):
    """Postfix between this server and a recipient's."""

    scheme = "smtp+starttls"

    def setUp(self) -> None:
        if shutil.which("postfix") is None:
            self.skipTest("postfix is not installed (Debian package postfix)")
        if os.geteuid() != 0:
            self.skipTest("Postfix starts as root only")
        self.root = new_folder(self)
        self.root.chmod(0o755)
        self.authority = Authority(self.root)
        self.authority.issue("localhost", LOOPBACK).write(self.root / "smart.pem")
        self.there = FakeSmarthost(extensions=("8BITMIME", "SIZE 1000000", "SMTPUTF8"))
        self.addCleanup(self.there.close)
        self.port = free_port()
        for folder in ("etc", "queue", "data", "mail"):
            (self.root / folder).mkdir()
        shutil.chown(self.root / "data", "postfix")
        values = {"root": self.root, "loopback": LOOPBACK, "port": self.port, "next": self.there.port}
        main = (MAIN + MORE).replace("smtputf8_enable = no\n", "")
        main = main.replace("virtual_mailbox_maps = static:any\n", "").format(**values)
        (self.root / "etc" / "main.cf").write_text(main)
        (self.root / "etc" / "master.cf").write_text(MASTER.format(**values) + "smtp unix - - n - - smtp\n")
        self.postfix("start")
        self.addCleanup(self.postfix, "stop")
        url = f"{self.scheme}://localhost:{self.port}"
        self.server = RealServer(
            f"--maildir={self.root}/mail/{{user}}", "--create", "--user=ann:ann", "--submission-port=0",
            "--domain=example.org", "--hostname=mail.example.org", f"--smarthost={url}",
            f"--smarthost-ca={self.authority.file}", f"--queue={self.root}/waiting",
        )  # fmt: skip
        self.addCleanup(self.server.terminate)

    def postfix(self, command: str) -> None:
        """Run ``postfix`` on our configuration."""
        done = subprocess.run(
            ["postfix", "-c", str(self.root / "etc"), command], capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr + self.log())

    def log(self) -> str:
        """What Postfix has to say."""
        path = self.root / "maillog"
        return path.read_text() if path.exists() else ""

    def files(self) -> list[Path]:
        """The notices of ann's."""
        return [*(self.root / "mail" / "ann" / "new").glob("*")]

    def test_through_postfix(self) -> None:
        """Mail with octets beyond ASCII goes through it; whom it refuses, the sender is told of."""
        with smtplib.SMTP(LOOPBACK, self.server.port_for("submission"), timeout=30) as client:
            client.login("ann", "ann")
            client.sendmail(
                "ann@example.org",
                ["eve@elsewhere.example", "nobody@elsewhere.example"],
                LETTER + b"gr\xc3\xbc\xc3\x9fe\r\n",
                mail_options=["BODY=8BITMIME"],
            )
        try:
            wait_until(lambda: bool(self.there.taken), "it comes through")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}\n{self.server.log}") from None
        [taken] = self.there.taken
        self.assertEqual(taken.rcpt[0].split(">")[0], "RCPT TO:<eve@elsewhere.example")
        self.assertTrue(taken.text.endswith(LETTER + b"gr\xc3\xbc\xc3\x9fe\r\n"), taken.text)
        wait_until(lambda: bool(self.files()), "the notice")
        [notice] = [path.read_bytes() for path in self.files()]
        self.assertIn(b"Final-Recipient: rfc822; nobody@elsewhere.example", notice)
        self.assertIn(b"Status: 5.7.1", notice)
        wait_until(lambda: not [*(self.root / "waiting").glob("*.mail")], "the queue is empty")
        if self.scheme != "smtp":
            self.assertIn("with ESMTPS", taken.text.decode("utf-8").replace("ESMTPSA", ""))


class PlainTests(PostfixSmarthostTests):
    """On this machine, without TLS."""

    scheme = "smtp"
