"""The files of ``docs/examples/config``: options explained in their own words; a server runs with each."""

from __future__ import annotations

import poplib
import re
import shlex
import smtplib
import ssl
import subprocess
import textwrap
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.auth.accounts.admin import add_user
from pop3toy.config import toml
from pop3toy.config.settings import Settings
from pop3toy.config.table import OPTIONS, settings_of
from tests.mailserver import LOOPBACK
from tests.realserver import DEADLINE, POP3TOY, RealServer, run_command, wait_until
from tests.smtp.test_smtp_real import without_trace

from ..folders import new_folder
from ..pages import operating
from ..tls_world import Authority, trusting

FOLDER = Path(__file__).parent.parent.parent / "docs" / "examples" / "config"
EXAMPLES = sorted(FOLDER.glob("*.toml"))

TEXT = b"Subject: hello\r\n\r\nfrom a friend\r\n"

#: An option in an example, in force or not, with the comment right above it.
_OPTION = re.compile(r"((?:^# .*\n)*)^#?([a-z0-9-]+) = .*$", re.MULTILINE)


class TextTests(SynchronousTestCase):
    """What the files say."""

    def test_kinds(self) -> None:
        """There is one for each kind of server."""
        self.assertEqual([path.stem for path in EXAMPLES], ["alone", "container", "friends", "host", "toy"])

    def test_comments(self) -> None:
        """Each option is explained by its own help."""
        for path in EXAMPLES:
            found = _OPTION.findall(path.read_text())
            self.assertGreater(len(found), 3)
            for comment, name in found:
                lines = textwrap.wrap(OPTIONS[name].help, 96, break_on_hyphens=False, break_long_words=False)
                self.assertEqual(comment, "".join(f"# {line}\n" for line in lines), f"{path.name}: {name}")

    def test_understood(self) -> None:
        """As they stand, and with all that is commented out, they are settings for a server."""
        for path in EXAMPLES:
            everything = Path(self.mktemp())
            everything.write_text(re.sub(r"^#([a-z0-9-]+ = )", r"\1", path.read_text(), flags=re.MULTILINE))
            for file in (path, everything):
                settings = settings_of(toml.read(str(file)))
                settings.check_whole()
                self.assertEqual(settings.is_toy, path.stem == "toy")

    def test_without_systemd(self) -> None:
        """The command of docs/operating has the host's server open the same ports itself."""
        settings = self.changed("Without systemd")
        self.assertEqual((settings.listen, settings.tls_listen), ((), ()))
        self.assertEqual((settings.submission, settings.submission_tls), ((), ()))
        self.assertEqual((settings.port, settings.tls_port, settings.interface), (110, 995, "::"))
        self.assertEqual((settings.submission_port, settings.submission_tls_port), (587, 465))

    def test_without_postfix(self) -> None:
        """The command there has it take mail by SMTP in the place of LMTP."""
        settings = self.changed("Without Postfix")
        self.assertEqual((len(settings.smtp), settings.lmtp), (1, ()))

    def test_submission_elsewhere(self) -> None:
        """The one about submission leaves that to another server."""
        settings = self.changed("Submission")
        self.assertEqual((settings.submission, settings.submission_tls), ((), ()))
        self.assertEqual((len(settings.listen), len(settings.tls_listen), len(settings.lmtp)), (1, 1, 1))

    def changed(self, section: str) -> Settings:
        """What the host's file says when the commands in a section of docs/operating have changed it."""
        manual = re.sub(r"\\\n *", "", operating())
        [text] = re.findall(rf"^{section}\n-+\n(.*?)^\S[^\n]*\n[-=]+\n", manual, re.MULTILINE | re.DOTALL)
        file = Path(self.mktemp())
        file.write_text((FOLDER / "host.toml").read_text())
        [command] = re.findall(r"^    (sed .*) /etc/pop3toy/pop3toy.toml$", text, re.MULTILINE)
        subprocess.run([*shlex.split(command), str(file)], check=True, timeout=DEADLINE)
        return settings_of(toml.read(str(file)))


class StartTests(SynchronousTestCase):
    """A server started with each of them, its paths in a folder of ours and its ports free ones."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        for name in ("srv", "etc", "server"):
            (self.root / name).mkdir()
        for user in ("ann", "bob"):
            add_user(self.root / "etc" / "accounts", user, f"{user}'s secret", scheme="PLAIN")
        (self.root / "etc" / "aliases").write_text("bobby: bob\n")

    def adapted(self, name: str) -> Path:
        """An example with other paths and ports; ``pop3toy config check`` finds nothing wrong with it."""
        text = (FOLDER / name).read_text()
        for path, ours in (("/etc/pop3toy", "etc"), ("/srv/mail", "srv")):
            text = text.replace(path, f"{self.root}/{ours}")
        text = re.sub(r"^((?:[a-z]+-)*port|metrics) = \d+$", r"\1 = 0", text, flags=re.MULTILINE)
        text = re.sub(r'"(?:systemd|tcp):.*"', f'"tcp:0:interface={LOOPBACK}"', text)
        file = self.root / "etc" / "pop3toy.toml"
        file.write_text(text.replace('interface = "::"', f'interface = "{LOOPBACK}"'))
        done = run_command(*POP3TOY, "config", "check", file, folder=self.root)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return file

    def certificate(self) -> ssl.SSLContext:
        """Make a certificate for localhost where the files say; for clients that trust it."""
        authority = Authority(self.root)
        pair = authority.issue("localhost")
        for name in ("certificate.pem", "key.pem"):
            pair.write(self.root / "etc" / name)
        return trusting(authority)

    def started(self, name: str) -> RealServer:
        """The server that runs with it."""
        return RealServer(f"--config={self.adapted(name)}", folder=self.root / "server")

    def fetched(self, client: poplib.POP3, user: str, password: str) -> bytes:
        """The last message of a user, without the headers that came on its way."""
        client.user(user)
        client.pass_(password)
        lines = client.retr(client.stat()[0])[1]
        client.quit()
        return without_trace(b"".join(line + b"\r\n" for line in lines))

    def test_toy(self) -> None:
        """Mail for anybody is caught, and both conversations are on the terminal."""
        with self.started("toy.toml") as server:
            with smtplib.SMTP(LOOPBACK, server.port_for("SMTP"), timeout=DEADLINE) as sender:
                sender.sendmail("me@here.example", ["you@there.example"], TEXT)
            client = poplib.POP3(LOOPBACK, server.port, timeout=DEADLINE)
            self.assertEqual(self.fetched(client, "user", "pass"), TEXT)
            for line in ("S: 250 2.1.5 recipient ok", "C: RETR 2"):
                wait_until(lambda line=line: line in server.words, line)  # type: ignore[misc]

    def test_host(self) -> None:
        """What the host's mail server hands over by LMTP, and users by submission, is fetched over TLS."""
        context = self.certificate()
        with self.started("host.toml") as server:
            with smtplib.LMTP(LOOPBACK, server.port_for("LMTP")) as sender:
                for address in ("ann@example.org", "bob@example.org"):
                    sender.sendmail("me@here.example", [address], TEXT)
            submission = server.port_for("submission over TLS")
            with smtplib.SMTP_SSL("localhost", submission, timeout=DEADLINE, context=context) as friend:
                friend.login("ann", "ann's secret")
                friend.sendmail("ann@example.org", ["bob@example.org"], TEXT.replace(b"friend", b"user"))
            for user in ("ann", "bob"):
                encrypted = poplib.POP3_SSL("localhost", server.port_for("POP3 over TLS"), context=context)
                last = TEXT if user == "ann" else TEXT.replace(b"friend", b"user")
                self.assertEqual(self.fetched(encrypted, user, f"{user}'s secret"), last)
            self.assertIn("STLS", poplib.POP3(LOOPBACK, server.port, timeout=DEADLINE).capa())

    def test_friends(self) -> None:
        """One friend writes to another by submission, who fetches it over TLS; others bring mail by SMTP."""
        self.among_friends("friends.toml")

    def test_alone(self) -> None:
        """The same where systemd opens the ports."""
        self.among_friends("alone.toml")

    def test_container(self) -> None:
        """The same at the ports of a container."""
        self.among_friends("container.toml")

    def among_friends(self, name: str) -> None:
        """Mail from a user to another, from elsewhere, and, without a smarthost, none to elsewhere."""
        context = self.certificate()
        with self.started(name) as server:
            with smtplib.SMTP("localhost", server.port_for("submission"), timeout=DEADLINE) as sender:
                sender.starttls(context=context)
                sender.login("ann", "ann's secret")
                sender.sendmail("ann@example.org", ["bobby@example.org"], TEXT)
            with smtplib.SMTP(LOOPBACK, server.port_for("SMTP"), timeout=DEADLINE) as sender:
                sender.sendmail("me@here.example", ["ann@example.org"], TEXT)
                with self.assertRaises(smtplib.SMTPRecipientsRefused):
                    sender.sendmail("me@here.example", ["you@there.example"], TEXT)
            encrypted = poplib.POP3_SSL("localhost", server.port_for("POP3 over TLS"), context=context)
            self.assertEqual(self.fetched(encrypted, "bob", "bob's secret"), TEXT)
            client = poplib.POP3("localhost", server.port, timeout=DEADLINE)
            client.stls(context)
            self.assertEqual(self.fetched(client, "ann@example.org", "ann's secret"), TEXT)
