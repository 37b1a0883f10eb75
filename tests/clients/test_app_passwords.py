"""Real mail programs log in with an app password, over TLS, by each mechanism that can have one."""

from __future__ import annotations

import poplib
import shutil
import ssl
import subprocess
from collections.abc import Sequence

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from pop3toy.auth.accounts import admin
from pop3toy.auth.app_passwords import admin as app_passwords

from ..corpus import make_maildir
from ..folders import new_folder
from ..realserver import DEADLINE, RealServer, environment
from ..tls_world import Authority
from .thunderbird import Thunderbird
from .thunderbird_process import missing

MPOP = """
account ann
host localhost
port {port}
tls on
tls_starttls off
tls_trust_file {ca}
user {user}
password {password}
auth {mechanism}
keep on
only_new off
uidls_file {home}/uidls
delivery mda {home}/agent
"""
FETCHMAIL = """
set idfile "{home}/ids"
set pidfile "{home}/fetchmail.pid"
poll localhost protocol pop3 port {port} auth {mechanism}
    username "{user}" password "{password}" ssl sslcertck sslcertfile "{ca}"
    keep fetchall mda "{home}/agent"
"""
GETMAIL = """
[retriever]
type = SimplePOP3SSLRetriever
server = localhost
port = {port}
username = {user}
password = {password}
ca_certs = {ca}
use_apop = {mechanism}
[destination]
type = MDA_external
path = {home}/agent
allow_root_commands = true
"""


class AppPasswordCase(SynchronousTestCase):
    """Users whose main passwords are kept in several ways, each with an app password and one message."""

    schemes: Sequence[tuple[str, str]] = (("ann", "ARGON2ID"), ("bob", "SCRAM-SHA-256"), ("cat", "PLAIN"))

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.accounts = self.root / "accounts"
        self.secrets = {}
        for user, scheme in self.schemes:
            admin.add_user(self.accounts, user, "main password", scheme=scheme)
            self.secrets[user] = app_passwords.add(self.accounts, user, "phone")
            maildir = make_maildir(self.root / "mail" / user)
            (maildir / "new" / "1700000000.M1P1.mail").write_bytes(b"Subject: hello\n\nhello\n")
        self.prepare()
        self.authority = Authority(self.root)
        pem = self.authority.issue("localhost", "127.0.0.1").write(self.root / "server.pem")
        self.server = RealServer(
            "--tls-port=0", f"--certificate={pem}", f"--maildir={self.root}/mail/{{user}}",
            f"--accounts={self.accounts}",
        )  # fmt: skip
        self.addCleanup(self.server.terminate)
        self.port = self.server.port_for("POP3 over TLS")

    def prepare(self) -> None:
        """What else is done before the server starts."""

    def run_program(self, program: str, text: str, user: str, mechanism: object, *command: str) -> int:
        """Run a mail program with a file of its settings, which stands behind the command's words."""
        if shutil.which(program) is None:
            raise SkipTest(f"{program} is not installed")
        home = self.root / "home"
        home.mkdir(exist_ok=True)
        agent = home / "agent"
        agent.write_text("#!/bin/sh\nexec cat >> box\n")
        agent.chmod(0o755)
        settings = home / f"{program}rc"
        words = {"port": self.port, "ca": self.authority.file, "home": home}
        settings.write_text(
            text.format(user=user, password=self.secrets[user], mechanism=mechanism, **words).lstrip()
        )
        settings.chmod(0o600)
        done = subprocess.run(
            [program, *command, str(settings)], env=environment(home), cwd=home, capture_output=True,
            timeout=2 * DEADLINE, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        return done.returncode

    def used(self, mechanism: str, user: str) -> None:
        """Look that the last login was by this mechanism."""
        logins = [line for line in self.server.log.splitlines() if " login: " in line]
        self.assertIn(f"user={user!r} mechanism={mechanism} ", logins[-1])


class ProgramsTests(AppPasswordCase):
    """However the main password is kept."""

    def test_mpop(self) -> None:
        """Mpop, by what it takes itself, by USER, and by SCRAM-SHA-256 for all users."""
        for user in self.secrets:
            for mechanism, used in (
                ("on", "PLAIN"), ("user", "USER"), ("login", "LOGIN"), ("scram-sha-256", "SCRAM-SHA-256"),
            ):  # fmt: skip
                status = self.run_program("mpop", MPOP, user, mechanism, "-a", "-C")
                self.assertEqual(status, 0, (user, mechanism))
                self.used(used, user)

    def test_fetchmail(self) -> None:
        """Fetchmail, with the password; left alone it tries CRAM-MD5 first, and then this."""
        for user in self.secrets:
            status = self.run_program("fetchmail", FETCHMAIL, user, "password", "--nodetach", "-f")
            self.assertEqual(status, 0, user)
            self.used("USER", user)
        self.assertEqual(self.run_program("fetchmail", FETCHMAIL, "cat", "any", "--nodetach", "-f"), 0)
        self.used("USER", "cat")
        self.assertIn("cat has app passwords, which APOP and CRAM-MD5 cannot use", self.server.log)

    def test_getmail(self) -> None:
        """Getmail, with the password; told to use APOP it fails, and the log says why, once."""
        for user in self.secrets:
            self.assertEqual(self.run_program("getmail", GETMAIL, user, False, "--getmaildir=.", "-r"), 0)
            self.used("USER", user)
        for _ in range(2):
            self.assertNotEqual(self.run_program("getmail", GETMAIL, "cat", True, "--getmaildir=.", "-r"), 0)
        self.assertEqual(self.server.log.count("cat has app passwords, which APOP and CRAM-MD5 cannot"), 1)
        self.assertIn("APOP (not for 3 of 3)", self.server.log)
        self.assertNotIn(self.secrets["cat"], self.server.log)

    def test_thunderbird(self) -> None:
        """Thunderbird, with "Normal password"."""
        if why := missing():
            raise SkipTest(why)
        with Thunderbird(
            self.server.port, self.root, user="ann", password=self.secrets["ann"]
        ) as thunderbird:
            thunderbird.get_messages()
            [kept] = thunderbird.kept()
        self.assertEqual(kept.subject, "hello")


class OnlyTests(AppPasswordCase):
    """A user whose main password is kept in clear text, and barred from mail."""

    schemes = (("cat", "PLAIN"),)

    def prepare(self) -> None:
        """Bar it."""
        app_passwords.set_only(self.accounts, "cat", True)

    def test_announced(self) -> None:
        """No mechanism is announced that needs the main password, so programs that take the best get in."""
        trust = ssl.create_default_context(cafile=str(self.authority.file))
        client = poplib.POP3_SSL("localhost", self.port, context=trust, timeout=DEADLINE)
        self.addCleanup(client.close)
        self.assertNotIn(b"<", client.getwelcome())
        self.assertEqual(client.capa()["SASL"], ["PLAIN", "LOGIN"])
        self.assertEqual(self.run_program("fetchmail", FETCHMAIL, "cat", "any", "--nodetach", "-f"), 0)
        self.used("USER", "cat")
        self.assertNotIn("login failed", self.server.log)
