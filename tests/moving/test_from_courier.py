"""Mail that a real Courier has served, and its clients, after the move."""

from __future__ import annotations

import os

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from pop3toy.stores.maildir.beside.uidl_file import FILE_NAME

from ..cli_world import run
from ..clients.mailclients import Fetchmail, Getmail, Mpop
from ..clients.thunderbird import Thunderbird
from ..clients.thunderbird_process import missing
from ..corpus import make_maildir
from ..folders import new_folder
from ..realserver import RealServer, maildir_options
from .courier_world import Courier
from .test_from_dovecot import MESSAGES, uidl


class CourierTests(SynchronousTestCase):
    """A Courier, whose mail is then served here."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.maildir = make_maildir(self.root / "ann")
        for at, message in enumerate(MESSAGES):
            (self.maildir / "new" / f"{1_700_000_000 + at}.M{at}P1.mail").write_bytes(message)
        self.there = Courier(self.maildir)

    def adopt(self, *options: str, status: int = 0) -> None:
        """Run the command."""
        words = ["mailbox", "adopt", "ann", "--from", "courier", "-m", f"{self.root}/{{user}}", *options]
        self.assertEqual(run(words), status)

    def here(self) -> int:
        """The port on which the same mail is served here from now on: the same."""
        self.there.stop()
        server = RealServer(*maildir_options(self.root), f"--port={self.there.port}")
        self.addCleanup(server.terminate)
        return server.port

    def test_nothing_is_fetched_twice(self) -> None:
        """Clients that leave mail on the server fetch nothing after the move, and then what comes new."""
        clients = [
            kind(self.there.port, new_folder(self))
            for kind in (Getmail, Mpop, Fetchmail)
            if not kind.missing()
        ]
        if not clients:
            raise SkipTest("getmail6, mpop and fetchmail are not installed")
        for client in clients:
            self.assertEqual(len(client.fetch(12, only_new=True)), 12, client.program)
        self.adopt("--yes")
        self.here()
        for client in clients:
            self.assertEqual(client.fetch(12, only_new=True), [], client.program)
        (self.maildir / "new" / "1800000000.M1P1.mail").write_bytes(b"Subject: new\n\nnew\n")
        for client in clients:
            new = client.fetch(1, only_new=True)
            self.assertEqual([b"Subject: new" in one for one in new], [True], client.program)

    def test_thunderbird(self) -> None:
        """So does Thunderbird, which goes on over the move."""
        if why := missing():
            raise SkipTest(why)
        subjects = [str(at) for at in range(len(MESSAGES))]
        with Thunderbird(self.there.port, new_folder(self), user="ann", password="secret") as thunderbird:
            thunderbird.get_messages()
            self.assertEqual([kept.subject for kept in thunderbird.kept()], subjects)
            self.adopt("--yes")
            self.here()
            thunderbird.get_messages()
            self.assertEqual([kept.subject for kept in thunderbird.kept()], subjects)
            (self.maildir / "new" / "1800000000.M1P1.mail").write_bytes(b"Subject: new\n\nnew\n")
            for _ in range(2):
                thunderbird.get_messages()
                self.assertEqual([kept.subject for kept in thunderbird.kept()], [*subjects, "new"])

    def test_listing(self) -> None:
        """Unique-ids and order are the same; without --yes nothing is written."""
        before = uidl(self.there.port)
        self.assertEqual(len(before), 12)
        self.assertIn(b"UID", before[0])
        self.adopt()
        self.assertFalse((self.maildir / FILE_NAME).exists())
        self.adopt("--yes")
        self.assertEqual(uidl(self.here()), before)

    def test_mail_from_several_times(self) -> None:
        """Messages of a mailbox that had another UIDVALIDITY, or none, keep what they have."""
        uidl(self.there.port)
        file = self.maildir / "courierpop3dsizelist"
        lines = file.read_text().splitlines()
        for at, ending in ((1, "7:1234567890:0"), (2, "9:0:0"), (3, "0:0:0")):
            lines[at] = lines[at].rpartition(" ")[0] + f" {ending}"
        file.write_text("\n".join(lines) + "\n")
        before = uidl(self.there.port)
        self.assertEqual(
            [line.split()[1] for line in before[:3]], [b"UID7-1234567890", b"UID9", b"1700000002.M2P1.mail"]
        )
        self.adopt("--yes")
        self.assertEqual(uidl(self.here()), before)

    def test_never_served(self) -> None:
        """A Maildir that Courier never had is told so."""
        self.adopt("--yes", status=os.EX_NOUSER)
