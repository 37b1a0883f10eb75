"""A real Postfix as the smarthost: with STARTTLS and a certificate that is verified, and without TLS."""

from __future__ import annotations

import json
import smtplib
from pathlib import Path

from tests.dovecot_world import PASSWORD, USER, DovecotCase
from tests.mailserver import LOOPBACK
from tests.observe.test_metrics import value
from tests.postfix_world import MAIN, MASTER, PostfixMixin
from tests.realserver import RealServer, wait_until
from tests.run.test_monitoring import get, scraped

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


class PostfixSmarthostTests(PostfixMixin):
    """Postfix between this server and a recipient's."""

    scheme = "smtp+starttls"
    #: More of Postfix' configuration, and of the server's options.
    login = ""
    options: tuple[str, ...] = ()

    def setUp(self) -> None:
        self.needs_postfix()
        self.root = new_folder(self)
        self.authority = Authority(self.root)
        self.authority.issue("localhost", LOOPBACK).write(self.root / "smart.pem")
        self.there = FakeSmarthost(extensions=("8BITMIME", "SIZE 1000000", "SMTPUTF8"))
        self.addCleanup(self.there.close)
        (self.root / "mail").mkdir()
        main = (MAIN + MORE + self.login).replace("smtputf8_enable = no\n", "")
        main = main.replace("virtual_mailbox_maps = static:any\n", "")
        master = MASTER + "smtp unix - - n - - smtp\n"
        self.prepare_postfix(self.root, main, master, next=self.there.port)
        self.start_postfix()
        self.server = self.start()

    def start(self) -> RealServer:
        """The server, which ends with the test."""
        url = f"{self.scheme}://localhost:{self.port}"
        server = RealServer(
            f"--maildir={self.root}/mail/{{user}}", "--create", "--user=ann:ann", "--submission-port=0",
            "--domain=example.org", "--hostname=mail.example.org", f"--smarthost={url}",
            f"--smarthost-ca={self.authority.file}", f"--queue={self.root}/waiting",
            *self.options,
        )  # fmt: skip
        self.addCleanup(server.terminate)
        return server

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
            with_ = "ESMTPSA" if self.login else "ESMTPS"
            self.assertRegex(taken.text.decode("utf-8"), rf"\(Postfix\) with {with_} id")


class PlainTests(PostfixSmarthostTests):
    """On this machine, without TLS."""

    scheme = "smtp"


class LoginTests(PostfixSmarthostTests, DovecotCase):
    """With a name and a password, which Postfix asks a Dovecot about."""

    configuration = """
service auth {{
  unix_listener {root}/auth {{
    mode = 0666
  }}
}}
"""

    def setUp(self) -> None:
        DovecotCase.setUp(self)
        self.login = f"""
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {self.root}/auth
smtpd_tls_auth_only = yes
smtpd_client_restrictions = permit_sasl_authenticated, reject
"""
        self.credentials = self.root / "credentials"
        self.credentials.write_text(f"{USER}:{self.password}\n")
        self.credentials.chmod(0o600)
        self.options = f"--smarthost-credentials={self.credentials}", "--metrics=0"
        PostfixSmarthostTests.setUp(self)

    password = PASSWORD


class WrongLoginTests(LoginTests):
    """With a wrong one."""

    password = "swordfish"

    def test_through_postfix(self) -> None:
        """It is tried once, mail waits, and log, /healthz and metrics say what to do; put right, it goes."""
        with smtplib.SMTP(LOOPBACK, self.server.port_for("submission"), timeout=30) as client:
            client.login("ann", "ann")
            client.sendmail("ann@example.org", ["eve@elsewhere.example"], LETTER)
        wait_until(lambda: "the login of --smarthost-credentials" in self.server.log, "it is told")
        self.assertIn("tried again in 5 minutes", self.server.log)
        self.assertNotIn("swordfish", self.server.log)
        wait_until(lambda: "disconnect from" in self.log(), "Postfix says what there was")
        self.assertIn("auth=0/1", self.log())
        port = self.server.port_for("metrics")
        status, body = get(port, "/healthz")
        self.assertEqual(status, 200)
        self.assertIn("the smarthost refuses the login", json.loads(body)["warnings"][0])
        self.assertEqual(value(scraped(port), "pop3toy_smarthost_login_refused"), 1)
        self.credentials.write_text(f"{USER}:{PASSWORD}\n")
        wait_until(lambda: bool(self.there.taken), "it comes through")
        wait_until(lambda: value(scraped(port), "pop3toy_smarthost_login_refused") == 0, "it is well")


class WrongLoginOfWorkersTests(WrongLoginTests):
    """With several processes, of which one runs the queue and another serves the metrics."""

    def start(self) -> RealServer:
        """With workers."""
        self.options = *self.options, "--workers=2"
        return super().start()
