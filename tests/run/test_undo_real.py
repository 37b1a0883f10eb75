"""Deleted mail that comes back, with real servers and mail programs: nothing is lost, nothing comes twice."""

from __future__ import annotations

import os
import poplib
import shutil
import subprocess
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.stores.maildir.removed.folder import FOLDER

from ..cli_world import run
from ..clients.mailclients import Getmail, Mpop
from ..corpus import Awkward, fill_maildir
from ..dovecot_world import PASSWORD, USER, DovecotCase
from ..folders import new_folder
from ..realserver import DEADLINE, RealServer, maildir_options, wait_until
from ..strictclient import StrictClient, logged_in

#: Messages in the Maildir of which a session removes most.
MANY = 9_000


class UndoRealCase(SynchronousTestCase):
    """A server that keeps what is removed."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.maildir = self.root / "ann"

    def start(self) -> RealServer:
        """Start one."""
        server = RealServer(*maildir_options(self.root), "--undo-days=7", "--lock-wait=0")
        self.addCleanup(server.terminate)
        return server

    def fill(self, count: int) -> dict[str, bytes]:
        """Fill the Maildir; file name to octets."""
        messages = (Awkward(f"m{at}", b"Subject: %d\n\nbody %d\n" % (at, at)) for at in range(count))
        return {
            one.path.name.partition(":")[0]: one.message.stored
            for one in fill_maildir(self.maildir, messages)
        }

    def undo(self) -> None:
        """Put all back, by the command."""
        self.assertEqual(run(["mailbox", "undo", "-m", f"{self.root}/{{user}}", "ann", "--all", "-y"]), 0)

    def told(self, server: RealServer) -> tuple[object, object]:
        """STAT and UIDL."""
        with logged_in(server.port) as client:
            return client.stat(), client.uids()


class KilledTests(UndoRealCase):
    """kill -9 in UPDATE."""

    def files(self, *folders: str) -> dict[str, bytes]:
        """File name to octets."""
        return {
            path.name.partition(":")[0]: path.read_bytes()
            for folder in folders
            for path in self.maildir.glob(f"{folder}/*")
        }

    def test_in_the_middle_of_quit(self) -> None:
        """Each message is in the mailbox or kept, whole; clients see all again once it is put back."""
        for _ in range(5):
            shutil.rmtree(self.maildir, ignore_errors=True)
            if self.killed_in_quit():
                return
        raise SkipTest("the server is always done before it can be killed")

    def killed_in_quit(self) -> bool:
        """Whether the kill came between the first removal and the last."""
        before = self.fill(MANY)
        server = self.start()
        told = self.told(server)
        with StrictClient(server.port) as client:
            client.login()
            client.send(b"".join(b"DELE %d\r\n" % number for number in range(1, MANY)))
            for _ in range(1, MANY):
                client.status()
            client.send(b"QUIT\r\n")
            wait_until(lambda: (self.maildir / FOLDER).exists(), "it removes", pause=0)
            server.kill()
        there, kept = self.files("new", "cur"), self.files(f"{FOLDER}/*")
        self.assertEqual(there.keys() & kept.keys(), set())
        self.assertTrue({**there, **kept} == before)
        self.undo()
        self.assertEqual(self.told(self.start()), told)
        return 1 < len(there) < MANY


class ClientTests(UndoRealCase):
    """Mail programs that leave mail on the server."""

    def test_known_or_forgotten(self) -> None:
        """Who was not there in between fetches nothing; who saw that it was gone fetches it once again."""
        kinds = [kind for kind in (Getmail, Mpop) if not kind.missing()]
        if not kinds:
            raise SkipTest("getmail6 and mpop are not installed")
        self.fill(12)
        server = self.start()
        told = self.told(server)
        away, there = ([kind(server.port, new_folder(self)) for kind in kinds] for _ in range(2))
        for client in away + there:
            self.assertEqual(len(client.fetch(12, only_new=True)), 12, client.program)
        deleting = poplib.POP3("127.0.0.1", server.port, timeout=DEADLINE)
        deleting.user("ann")
        deleting.pass_("secret")
        for number in (2, 5, 12):
            deleting.dele(number)
        deleting.quit()
        for client in there:
            self.assertEqual(client.fetch(9, only_new=True), [], client.program)
        self.undo()
        self.assertEqual(self.told(server), told)
        for client in away:
            self.assertEqual(client.fetch(12, only_new=True), [], client.program)
        for client in there:
            again = [message.partition(b"body ")[2].strip() for message in client.fetch(12, only_new=True)]
            self.assertIn(again, ([], [b"1", b"4", b"11"]), client.program)
            self.assertEqual(client.fetch(12, only_new=True), [], client.program)
        self.assertEqual(self.told(server), told)


class DovecotTests(DovecotCase):
    """A Dovecot on the same Maildir."""

    def test_not_seen(self) -> None:
        """What is kept is no message and no folder for it."""
        kept = self.root / "mail" / USER / FOLDER / "20260101T000000.000000Z"
        kept.mkdir(parents=True)
        (kept / "1700000009.M1P1.mail:2,S").write_bytes(b"Subject: kept\n\n")
        for path in (kept.parent, *kept.parent.rglob("*")):
            shutil.chown(path, "nobody")
        client = poplib.POP3("127.0.0.1", self.port, timeout=DEADLINE)
        client.user(USER)
        client.pass_(PASSWORD)
        self.assertEqual(client.stat()[0], len(self.messages))
        client.quit()
        doveadm = shutil.which("doveadm", path=os.environ.get("PATH", "") + ":/usr/bin:/usr/sbin")
        if doveadm is None:
            raise SkipTest("doveadm is not installed")
        config = str(Path(self.root / "dovecot.conf"))
        listed = subprocess.run(
            [doveadm, "-c", config, "mailbox", "list", "-u", USER],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        self.assertEqual(listed.stdout.split(), ["INBOX"], listed.stderr)
        self.assertTrue((kept / "1700000009.M1P1.mail:2,S").exists())
