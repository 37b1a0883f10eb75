"""From the command line: the toy as a mail trap, and a mail system for a few friends."""

from __future__ import annotations

import poplib
import re
import smtplib
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.auth.accounts.admin import add_user
from tests.mailserver import LOOPBACK
from tests.realserver import RealServer, maildir_options, wait_until
from tests.smtp.test_smtp_real import without_trace

from ..folders import new_folder
from ..tls_world import Authority, Wire, trusting

TEXT = b"Subject: caught\r\n\r\nin the trap\r\n"


def fetch_last(server: RealServer, user: str, password: str) -> tuple[int, bytes]:
    """How many messages a user has, and the last of them without our headers."""
    reader = poplib.POP3(LOOPBACK, server.port, timeout=30)
    reader.user(user)
    reader.pass_(password)
    count = reader.stat()[0]
    lines = reader.retr(count)[1]
    reader.quit()
    return count, without_trace(b"".join(line + b"\r\n" for line in lines))


class ToyTests(SynchronousTestCase):
    """``twistd -n pop3toy --smtp-port 2525``."""

    def test_mail_trap(self) -> None:
        """Mail for anybody lands in the built-in mailbox, and both conversations are on the terminal."""
        with RealServer("--smtp-port", "0") as server:
            with smtplib.SMTP(LOOPBACK, server.port_for("SMTP"), timeout=30) as client:
                client.sendmail("me@here.example", ["you@there.example", "they@else.example"], TEXT)
            self.assertEqual(fetch_last(server, "user", "pass"), (2, TEXT))
            for line in (
                "C: mail FROM:<me@here.example>", "S: 250 2.1.5 recipient ok", "C: Subject: caught",
                "C: in the trap", "C: RETR 2", "S: X-Original-To: they@else.example",
            ):  # fmt: skip
                # Python 3.13 writes MAIL in capitals.
                wait_until(lambda line=line: line.lower() in server.words.lower(), line)  # type: ignore[misc]

    def test_several_users(self) -> None:
        """Who has an account gets the mail for it, whatever the domain, and the first user all the rest."""
        with RealServer("--smtp-port", "0", "--user=ann:a", "--user=bob:b") as server:
            with smtplib.SMTP(LOOPBACK, server.port_for("SMTP"), timeout=30) as client:
                for recipient in ("Bob@there.example", "bob", "nobody@else.example"):
                    client.sendmail("me@here.example", [recipient], TEXT)
            self.assertEqual(fetch_last(server, "bob", "b"), (3, TEXT))
            self.assertEqual(fetch_last(server, "ann", "a"), (2, TEXT))


class FirstWordsTests(SynchronousTestCase):
    """What somebody sees who has just started the server."""

    def test_toy(self) -> None:
        """The toy says where it listens and what to type next, and Twisted says nothing before that."""
        with RealServer() as server:
            wait_until(lambda: "next, " in server.log, "the line with the next step")
            first, second = server.log.splitlines()
            self.assertTrue(
                first.endswith(f"(user `user`, password `pass`) on 127.0.0.1:{server.port}"), first
            )
            self.assertTrue(
                second.endswith(
                    f" next, in another terminal, type telnet 127.0.0.1 {server.port}"
                    " and then USER user, PASS pass, LIST, RETR 1, QUIT; Ctrl-C here ends the server"
                ),
                second,
            )
            self.assertTrue(server.terminate(), "Twisted's last words are there")

    def test_toy_with_accounts(self) -> None:
        """A password that somebody has chosen is not written."""
        with RealServer("--user=ann:hunter2", "--interface=0.0.0.0") as server:
            wait_until(lambda: "next, " in server.log, "the line with the next step")
            self.assertIn(
                f"type telnet 127.0.0.1 {server.port} and then USER ann, PASS ..., LIST", server.log
            )
            self.assertNotIn("hunter2", server.log)

    def test_unix_socket(self) -> None:
        """On a Unix socket it is netcat."""
        with (
            tempfile.TemporaryDirectory() as folder,
            RealServer(f"--listen=unix:{folder}/s", "--listen=tcp:0:interface=127.0.0.1") as server,
        ):
            wait_until(lambda: "next, " in server.log, "the line with the next step")
            self.assertIn(f"type nc -CU {folder}/s and then USER user, PASS pass", server.log)
            self.assertEqual(server.log.count("next, "), 1)

    def test_no_telnet(self) -> None:
        """Where telnet does not get through, nobody is told to try it."""
        with RealServer("--listen=haproxy:tcp:0:interface=127.0.0.1") as server:
            self.assertNotIn("next, ", server.log)

    def test_real_mail(self) -> None:
        """A server of real mail has Twisted's lines in its log, and no advice."""
        with tempfile.TemporaryDirectory() as folder, RealServer(*maildir_options(Path(folder))) as server:
            self.assertIn("starting up.", server.log)
            self.assertIn("reactor class: ", server.log)
            self.assertNotIn("next, ", server.log)


class UnixSocketTests(SynchronousTestCase):
    """``--listen unix:PATH``."""

    def test_conversation(self) -> None:
        """A client on a Unix socket logs in and reads, with its password in clear text."""
        with (
            tempfile.TemporaryDirectory() as folder,
            RealServer(f"--listen=unix:{folder}/s", "--listen=tcp:0:interface=127.0.0.1"),
            Wire(f"{folder}/s") as client,
        ):
            client.send(b"USER user\r\nPASS pass\r\nSTAT\r\nQUIT\r\n")
            said = client.rest()
            self.assertEqual([line[:3] for line in said.splitlines()], [b"+OK"] * 5, said)


class StrangersTests(SynchronousTestCase):
    """What strangers can send to, on servers that were started in one way and another."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.mail = self.root / "mail"
        self.mail.mkdir()

    def replies(self, server: RealServer, *recipients: str) -> list[bytes]:
        """What RCPT is answered for each of them."""
        with smtplib.SMTP(LOOPBACK, server.port_for("SMTP"), timeout=30) as client:
            client.ehlo()
            client.mail("eve@elsewhere.example")
            replies = [b"%d %b" % client.rcpt(recipient) for recipient in recipients]
            client.rset()
        return [reply[:9] for reply in replies]

    def test_no_maildirs_for_strangers(self) -> None:
        """Where a checker cannot say who there is, Maildirs do, and no letter to anybody makes one."""
        (self.root / "passwords").write_text("ann:secret\nbob:secret\n")
        (self.mail / "lost+found").mkdir()
        options = [f"--auth=file:{self.root}/passwords", f"--maildir={self.mail}/{{user}}", "--create"]
        with RealServer(*options, "--smtp-port=0") as server:
            reader = poplib.POP3(LOOPBACK, server.port, timeout=30)
            reader.user("ann")
            reader.pass_("secret")
            reader.quit()
            replies = self.replies(server, "ann@localhost", "ANN@localhost", "eve@localhost", "lost+found")
            self.assertEqual(replies, [b"250 2.1.5", b"250 2.1.5", b"550 5.1.1", b"550 5.1.1"])
            # What cannot be the name of a folder is nobody's.
            never = ["a" * 246, "a" * 256, "a" * 256 + "@localhost", "a" * 800, ".ann", '"a/b"']
            self.assertEqual(self.replies(server, *never), [b"550 5.1.1"] * len(never))
            wait_until(lambda: "mail for postmaster is refused" in server.log, "a word about postmaster")
        self.assertEqual(sorted(path.name for path in self.mail.iterdir()), ["ann", "lost+found"])

    def test_mail_disk_is_gone(self) -> None:
        """While a user's Maildir or the whole tree is missing the mail waits, and the log says why."""
        (self.root / "accounts").write_text("ann:{PLAIN}secret\nZed:{PLAIN}secret\n")
        options = [f"--accounts={self.root}/accounts", f"--maildir={self.mail}/{{user}}"]
        with RealServer(*options, "--smtp-port=0") as server:
            replies = self.replies(server, "ann@localhost", "zed@localhost", "eve@localhost")
            self.assertEqual(replies, [b"451 4.3.0", b"451 4.3.0", b"550 5.1.1"])
            wait_until(lambda: f"no Maildir at '{self.mail}/Zed'" in server.log, "a word about the Maildir")
            self.mail.rename(self.root / "elsewhere")
            self.assertEqual(self.replies(server, "ann@localhost"), [b"451 4.3.0"])
            wait_until(lambda: "is its disk mounted?" in server.log, "a word about the disk")

    def test_disk_is_gone_and_maildirs_are_asked(self) -> None:
        """The same where Maildirs say who there is: nobody is unknown for that reason."""
        (self.root / "passwords").write_text("ann:secret\n")
        options = [f"--auth=file:{self.root}/passwords", f"--maildir={self.mail}/{{user}}", "--create"]
        with RealServer(*options, "--smtp-port=0") as server:
            self.mail.rename(self.root / "elsewhere")
            self.assertEqual(self.replies(server, "ann@localhost"), [b"451 4.3.0"])
        self.assertFalse(self.mail.exists())

    def test_catch_all_comes_and_goes(self) -> None:
        """While the user who gets the rest is no user the rest waits, and comes when there is one again."""
        accounts = self.root / "accounts"
        accounts.write_text("Zed:{PLAIN}secret\n")
        options = [f"--accounts={accounts}", f"--maildir={self.mail}/{{user}}", "--create"]
        with RealServer(*options, "--smtp-port=0", "--catch-all=zed") as server:
            self.assertEqual(self.replies(server, "x@localhost"), [b"250 2.1.5"])
            # Put in its place whole; one that is written there would be waited for.
            other = self.root / "other"
            other.write_text("ann:{PLAIN}secret\n")
            written = other.stat().st_mtime_ns
            while other.stat().st_ctime_ns <= written:
                # The file system's clock has not gone on since.
                other.chmod(0o600)
            other.rename(accounts)
            self.assertEqual(
                self.replies(server, "x@localhost", "ann@localhost"), [b"451 4.3.0", b"250 2.1.5"]
            )
            wait_until(lambda: "'zed', is no user" in server.log, "a word about the user")
        self.assertTrue((self.mail / "Zed").is_dir())

    def test_aliases_that_lead_nowhere(self) -> None:
        """A misspelt target and a circle are told at start and when the file changes; the mail waits."""
        (self.root / "accounts").write_text("ann:{PLAIN}secret\n")
        aliases = self.root / "aliases"
        aliases.write_text("info: annn\npostmaster: ann\na: b\nb: a\n")
        options = [f"--accounts={self.root}/accounts", f"--maildir={self.mail}/{{user}}", "--create"]
        options += ["--smtp-port=0", f"--aliases={aliases}"]
        for more in ((), ("--workers=2",)):
            with RealServer(*options, *more) as server:
                for alias, target in (("info", "annn"), ("a", "b"), ("b", "a")):
                    line = f"alias {alias!r} names {target!r}, which leads to no user; as long"
                    wait_until(lambda: line in server.log, "a word about the alias")  # noqa: B023
                    self.assertEqual(server.log.count(line), 1)
                self.assertNotIn("mail for postmaster", server.log)
                replies = self.replies(server, "info@localhost", "a@localhost", "postmaster", "x@localhost")
                self.assertEqual(replies, [b"451 4.3.0", b"451 4.3.0", b"250 2.1.5", b"550 5.1.1"])
                wait_until(lambda: "the alias 'info' leads to no user" in server.log, "a word about the mail")


class NamesTests(SynchronousTestCase):
    """What people type for their user's name, and the log's word for them."""

    def test_names(self) -> None:
        """One mailbox and one name in the log, however it is typed; by POP3 alone, and with submission."""
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "mail").mkdir()
            add_user(root / "accounts", "ann", "with\ttab", scheme="PLAIN")
            options = [f"--accounts={root}/accounts", f"--maildir={root}/mail/{{user}}", "--create"]
            with RealServer(*options, "--domain=friends.example") as server:
                for count, typed in enumerate(("Ann", "ANN@Friends.Example"), 1):
                    client = poplib.POP3(LOOPBACK, server.port, timeout=30)
                    client.user(typed)
                    client.pass_("with\ttab")
                    client.quit()
                    ended = "end: session=[0-9]+ rip=127.0.0.1 user='ann' mechanism=USER tls=none ended=quit"
                    wait_until(lambda: len(re.findall(ended, server.log)) == count, ended)  # noqa: B023
            options += ["--submission-port=0", "--domain=friends.example"]
            with RealServer(*options) as server:
                with smtplib.SMTP(LOOPBACK, server.port_for("submission"), timeout=30) as sender:
                    sender.login("Ann@friends.example", "with\ttab")
                    sender.sendmail("ann@FRIENDS.example", ["Ann@friends.example"], TEXT)
                self.assertEqual(fetch_last(server, "ANN", "with\ttab"), (1, TEXT))
            self.assertEqual(["ann"], [path.name for path in (root / "mail").iterdir()])


class FriendsTests(SynchronousTestCase):
    """``twistd -n pop3toy --accounts --maildir --submission-port --smtp-port``."""

    def test_friends(self) -> None:
        """One friend logs in and writes to an alias of another, who fetches it; strangers cannot relay."""
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "mail").mkdir()
            for user in ("ann", "bob"):
                add_user(root / "accounts", user, f"{user}'s secret", scheme="PLAIN")
            (root / "aliases").write_text("bobby: bob\n")
            authority = Authority(root)
            authority.issue("localhost").write(root / "pem")
            with RealServer(
                f"--accounts={root}/accounts", f"--maildir={root}/mail/{{user}}", "--create",
                "--smtp-port=0", "--submission-port=0", "--domain=friends.example",
                f"--aliases={root}/aliases", "--submission-tls-port=0", f"--certificate={root}/pem",
            ) as server:  # fmt: skip
                with smtplib.SMTP(LOOPBACK, server.port_for("submission"), timeout=30) as client:
                    client.login("ann", "ann's secret")
                    client.sendmail("ann@friends.example", ["Bobby@friends.example"], TEXT)
                encrypted = server.port_for("submission over TLS")
                with smtplib.SMTP_SSL(
                    "localhost", encrypted, timeout=30, context=trusting(authority)
                ) as client:
                    client.login("bob", "bob's secret")
                    client.sendmail("bob@friends.example", ["ann@friends.example"], TEXT)
                self.assertEqual(fetch_last(server, "ann", "ann's secret"), (1, TEXT))
                self.assertIn("mail for postmaster is refused", server.log)
                with smtplib.SMTP(LOOPBACK, server.port_for("SMTP"), timeout=30) as client:
                    self.assertRaises(
                        smtplib.SMTPRecipientsRefused, client.sendmail, "", ["x@elsewhere.example"], TEXT
                    )
                self.assertEqual(fetch_last(server, "bob", "bob's secret"), (1, TEXT))
