"""Mail that a real Cyrus has served, and its clients, after the move."""

from __future__ import annotations

import os
import poplib
import struct
import zlib
from pathlib import Path

from twisted.trial.unittest import SkipTest

from pop3toy.cli.moving.cyrus_spool import Cyrus

from ..cli_world import run
from ..clients.mailclients import Fetchmail, Getmail, Mpop
from ..corpus import make_maildir
from ..folders import new_folder
from ..realserver import DEADLINE, RealServer, maildir_options
from .cyrus_world import CyrusCase
from .test_from_dovecot import uidl

MESSAGES = [
    b"From: bob@example.org\r\nSubject: %d\r\nMessage-ID: <%d@x>\r\n\r\nhello %d\r\n" % (at, at, at)
    for at in range(12)
]


class MovedCase(CyrusCase):
    """A Cyrus, whose mail is then served here."""

    def setUp(self) -> None:
        super().setUp()
        self.deliver("ann", MESSAGES)
        # Its file stays in the spool.
        client = poplib.POP3("127.0.0.1", self.port, timeout=DEADLINE)
        client.user("ann")
        client.pass_("secret")
        client.dele(3)
        client.quit()

    def inbox(self) -> Path:
        """The folder in the spool."""
        [index] = self.spool.rglob("cyrus.index")
        return index.parent

    def brought(self) -> Path:
        """The folder of Maildirs into which somebody has brought the mail: names and times say nothing."""
        root = new_folder(self)
        maildir = make_maildir(root / "ann")
        client = poplib.POP3("127.0.0.1", self.port, timeout=DEADLINE)
        client.user("ann")
        client.pass_("secret")
        for at in range(1, 12):
            message = b"\n".join(client.retr(at)[1]) + b"\n"
            (maildir / "new" / f"{1_700_000_000 - at}.M1P1.mail").write_bytes(message)
        client.quit()
        return root

    def adopt(self, root: Path, *options: str, status: int = 0) -> None:
        """Run the command."""
        words = ["mailbox", "adopt", "ann", "-m", f"{root}/{{user}}", "--yes", *options]
        self.assertEqual(run(words), status)

    def here(self, root: Path, port: int = 0) -> int:
        """The port on which mail is served here."""
        server = RealServer(*maildir_options(root), f"--port={port}")
        self.addCleanup(server.terminate)
        return server.port

    def check_moved(self, pattern: str, form: str = "cyrus") -> None:
        """Unique-ids and their order are the same here, from its files and by POP3."""
        before = uidl(self.port, "ann")
        fd = os.open(self.inbox(), os.O_RDONLY)
        self.addCleanup(os.close, fd)
        listed = Cyrus(fd, form, None, "").listed()
        self.assertEqual([one.uid for one in listed], [line.split()[1] for line in before])
        self.assertRegex(before[0].split()[1].decode(), f"^{pattern}$")
        by_files, by_pop3 = self.brought(), self.brought()
        self.adopt(by_files, "--from", "cyrus", "--source", str(self.spool), "--uidl-format", form)
        self.assertEqual(uidl(self.here(by_files), "ann"), before)
        password = self.root / "password"
        password.write_text("secret\n")
        self.adopt(by_pop3, "--from", f"pop3://127.0.0.1:{self.port}", "--password-file", str(password))
        self.assertEqual(uidl(self.here(by_pop3), "ann"), before)


class ClientTests(MovedCase):
    """Mail programs that leave mail on the server."""

    def test_nothing_is_fetched_twice(self) -> None:
        """They fetch all there, nothing after the move, and then what comes new."""
        kinds = [kind for kind in (Getmail, Mpop, Fetchmail) if not kind.missing()]
        clients = [kind(self.port, new_folder(self)) for kind in kinds]
        if not clients:
            raise SkipTest("getmail6, mpop and fetchmail are not installed")
        for client in clients:
            self.assertEqual(len(client.fetch(11, only_new=True)), 11, client.program)
        root = self.brought()
        self.stop()
        self.adopt(root, "--from", "cyrus", "--source", str(self.spool))
        self.here(root, self.port)
        for client in clients:
            self.assertEqual(client.fetch(11, only_new=True), [], client.program)
        (root / "ann" / "new" / "1800000000.M1P1.mail").write_bytes(b"Subject: new\n\nnew\n")
        for client in clients:
            new = client.fetch(1, only_new=True)
            self.assertEqual([b"Subject: new" in one for one in new], [True], client.program)


class FormatTests(MovedCase):
    """Formats of unique-ids, one Cyrus for each."""

    def test_default(self) -> None:
        """Without any setting."""
        self.check_moved(r"\d{10}\.1")

    def test_old_mailbox(self) -> None:
        """A mailbox without the option POP3_NEW_UIDL, which Cyrus 2.1 made: the format is not looked at."""
        uidvalidity = uidl(self.port, "ann")[0].split()[1].split(b".")[0]
        self.stop()
        index = self.inbox() / "cyrus.index"
        data = bytearray(index.read_bytes())
        (length,) = struct.unpack_from(">I", data, 12)
        (options,) = struct.unpack_from(">I", data, 60)
        self.assertEqual(options & 1, 1)
        struct.pack_into(">I", data, 60, options & ~1)
        struct.pack_into(">I", data, length - 4, zlib.crc32(data[: length - 4]))
        index.write_bytes(data)
        self.start()
        self.check_moved("1")
        self.assertNotIn(uidvalidity, uidl(self.port, "ann")[0])

    def test_folder(self) -> None:
        """The folder of the inbox is said in place of the spool; one that is not there is told."""
        before = uidl(self.port, "ann")
        root = self.brought()
        self.adopt(root, "--from", "cyrus", "--source", f"{self.root}/{{user}}", status=os.EX_NOUSER)
        self.adopt(root, "--from", "cyrus", "--source", str(self.root), status=os.EX_NOUSER)
        self.adopt(root, "--from", "cyrus", "--source", str(self.inbox()))
        self.assertEqual(uidl(self.here(root), "ann"), before)


class UidTests(MovedCase):
    """``uidonly``."""

    configuration = "uidl_format: uidonly\n"

    def test_moved(self) -> None:
        """The UID alone."""
        self.check_moved("1", "uidonly")


class LikeDovecotTests(MovedCase):
    """``dovecot``."""

    configuration = "uidl_format: dovecot\n"

    def test_moved(self) -> None:
        """Both in hexadecimal."""
        self.check_moved("00000001[0-9a-f]{8}", "dovecot")


class LikeCourierTests(MovedCase):
    """``courier``, in a spool whose folders are named after users."""

    configuration = "uidl_format: courier\nhashimapspool: yes\nmailbox_legacy_dirs: yes\n"

    def test_moved(self) -> None:
        """UIDVALIDITY first."""
        self.assertEqual(self.inbox(), self.spool / "a" / "user" / "ann")
        self.check_moved(r"\d{10}-1", "courier")
