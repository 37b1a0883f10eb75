"""Thunderbird itself fetches, leaves, deletes and proves passwords."""

from __future__ import annotations

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ..corpus import awkward_messages, fill_maildir
from ..folders import new_folder
from ..realserver import RealServer, maildir_options, wait_until
from .thunderbird import ENCRYPTED_PASSWORD, Thunderbird
from .thunderbird_process import missing


class ThunderbirdCase(SynchronousTestCase):
    """A server, and Thunderbird with an account on it."""

    def setUp(self) -> None:
        if why := missing():
            raise SkipTest(why)
        self.root = new_folder(self)

    def start(self, *options: str) -> RealServer:
        """Start a server."""
        server = RealServer(*options)
        self.addCleanup(server.terminate)
        return server

    def said(self, server: RealServer) -> list[str]:
        """The client's lines of the first session, once all sessions have ended."""
        wait_until(
            lambda: server.words.count("-- closed") == server.words.count("-- connected"), "the session ends"
        )
        return [line[7:] for line in server.words.splitlines() if line.startswith("[1] C: ")]

    def fetched(self, server: RealServer) -> int:
        """How many messages all sessions have fetched."""
        self.said(server)
        return server.words.count(" C: RETR ")


class HelloTests(ThunderbirdCase):
    """The toy, with the settings that README.rst tells."""

    def test_hello_world(self) -> None:
        """The message with the subject "Hello World!" arrives in the inbox as it was sent."""
        server = self.start()
        with Thunderbird(server.port, self.root) as thunderbird:
            thunderbird.get_messages()
            [kept] = thunderbird.kept()
        self.assertEqual(kept.subject, "Hello World!")
        lines = [line.partition(" S: ")[2] for line in server.words.splitlines()]
        start = next(at for at, line in enumerate(lines) if line.startswith("Date: "))
        self.assertEqual(kept.octets.decode().splitlines(), lines[start : lines.index(".", start)])
        said = self.said(server)
        self.assertEqual((said[0], said[-1]), ("CAPA", "QUIT"))
        self.assertEqual([line for line in said if line.startswith(("RETR", "DELE"))], ["RETR 1"])

    def test_encrypted_password(self) -> None:
        """With "Encrypted password" the password does not cross the wire, and the message arrives."""
        server = self.start("--transcript=-")
        with Thunderbird(server.port, self.root, authentication=ENCRYPTED_PASSWORD) as thunderbird:
            thunderbird.get_messages()
            self.assertEqual([kept.subject for kept in thunderbird.kept()], ["Hello World!"])
        said = self.said(server)
        self.assertFalse([line for line in said if line.startswith(("PASS", "AUTH PLAIN", "AUTH LOGIN"))])

    def test_leave_on_server(self) -> None:
        """What was left on the server is not fetched again, and deleting it there deletes it here."""
        server = self.start()
        with Thunderbird(server.port, self.root) as thunderbird:
            thunderbird.get_messages()
            thunderbird.get_messages()
            self.assertEqual(self.fetched(server), 1)
            thunderbird.delete("Hello World!")
            thunderbird.get_messages()
        self.said(server)
        self.assertIn(" C: DELE 1\n", server.words)
        self.assertIn("1 message removed", server.words)


class MaildirTests(ThunderbirdCase):
    """Real mail."""

    def test_every_octet(self) -> None:
        """Each awkward message arrives as it is, once; Thunderbird keeps LF line ends."""
        messages = awkward_messages()
        fill_maildir(self.root / "mail" / "ann", messages)
        server = self.start(*maildir_options(self.root / "mail"), "--transcript=-")
        with Thunderbird(server.port, self.root, user="ann", password="secret") as thunderbird:
            thunderbird.get_messages()
            thunderbird.get_messages()
            kept = thunderbird.kept()
        self.assertEqual(self.fetched(server), len(messages))
        self.assertEqual(len(kept), len(messages))
        for one, message in zip(kept, messages, strict=True):
            self.assertTrue(one.octets == message.wire.replace(b"\r\n", b"\n"), message.name)

    def test_fetch_only_new(self) -> None:
        """After a restart, and with new flags on the files, Thunderbird fetches just what is new."""
        *messages, newest = awkward_messages(large=False)[:21]
        maildir = self.root / "mail" / "ann"
        stored = fill_maildir(maildir, messages)
        options = maildir_options(self.root / "mail")
        server = self.start(*options)
        port = server.port
        with Thunderbird(port, self.root, user="ann", password="secret") as thunderbird:
            thunderbird.get_messages()
            server.terminate()
            for one in stored:
                one.path.rename(maildir / "cur" / f"{one.path.name.partition(':2,')[0]}:2,S")
            (maildir / "new" / "1800000000.M1P1.mail").write_bytes(newest.stored)
            again = self.start(*options, f"--port={port}", "--transcript=-")
            thunderbird.get_messages()
            self.assertEqual(thunderbird.kept()[-1].subject, newest.name)
        self.assertEqual(self.fetched(again), 1)

    def test_fetch_and_delete(self) -> None:
        """Without "Leave messages on server" the Maildir is empty afterwards."""
        messages = awkward_messages(large=False)[:20]
        stored = fill_maildir(self.root / "mail" / "ann", messages)
        server = self.start(*maildir_options(self.root / "mail"))
        with Thunderbird(
            server.port, self.root, user="ann", password="secret", leave_on_server=False
        ) as thunderbird:
            thunderbird.get_messages()
            self.assertEqual(len(thunderbird.kept()), len(messages))
        wait_until(lambda: "end: session=1 " in server.log, "the session ends")
        self.assertIn(" ended=quit ", server.log)
        self.assertEqual([one.path.name for one in stored if one.path.exists()], [])
