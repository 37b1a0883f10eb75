"""Two commands ``pop3toy store copy`` into one store at the same time: each message is there once."""

from __future__ import annotations

import os
import signal
import smtplib
import subprocess
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.stores.copying.mailbox import BATCH
from pop3toy.stores.objects.records import messages_prefix
from pop3toy.stores.objects.users import Users

from ..folders import new_folder
from ..ledger import text
from ..realserver import POP3TOY, RealServer, environment, maildir_options, wait_until
from ..stores.objects.places import CephPlace
from ..strictclient import logged_in
from .test_store_copy import put

USERS = ("ann", "bob")
#: More than a batch: whoever is in the middle of one finds out at the next.
COUNT = BATCH + 50


class AtOnceContract:
    """What is true of every kind of store that is copied to."""

    #: What is said to the one who stops.
    said: str

    def prepared(self: Any) -> None:
        """A source, and nothing in the target."""
        self.folder = new_folder(self)
        self.mail = self.folder / "mail"
        for user in USERS:
            put(self.mail, user, *range(COUNT))

    def start(self: Any, *words: str) -> subprocess.Popen[str]:
        """Start to copy."""
        process = subprocess.Popen(
            [*POP3TOY, "store", "copy", f"{self.mail}/{{user}}", *self.to(), *words],
            env=environment(self.folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

        def end() -> None:
            process.kill()
            process.communicate()

        self.addCleanup(end)
        return process

    def under_way(self: Any, *words: str, least: int = 10) -> subprocess.Popen[str]:
        """Start to copy, and go on when some messages are there."""
        process = self.start(*words)
        wait_until(lambda: self.there("ann") >= least, "some messages are there", pause=0.001)
        self.assertIs(process.poll(), None)
        return process

    def ended(self: Any, process: subprocess.Popen[str]) -> tuple[int, str]:
        """How it ended, and what it said of troubles."""
        _, errors = process.communicate(timeout=120)
        return process.returncode, errors

    def uids(self: Any, user: str) -> list[bytes]:
        """What POP3 lists."""
        with RealServer(*self.serving()) as server, logged_in(server.port, user.encode()) as client:
            return [*client.uids().values()]

    def all_once(self: Any, *more: bytes) -> None:
        """All messages are there, once and in order."""
        source = [b"%d.M%dP1.mail" % (1_700_000_000 + number, number) for number in range(COUNT)]
        for user in USERS:
            self.assertEqual([uid for uid in self.uids(user) if uid not in more], source)

    def test_frozen(self: Any) -> None:
        """One is frozen in the middle, and another one begins: one goes on, the other says why not."""
        first = self.under_way()
        first.send_signal(signal.SIGSTOP)
        second = self.ended(self.start("ann"))
        first.send_signal(signal.SIGCONT)
        self.assertEqual(sorted([second, self.ended(first)]), [(0, ""), (os.EX_TEMPFAIL, self.said)])
        self.assertEqual(self.ended(self.start("--verify")), (0, ""))
        self.all_once()

    def test_together(self: Any) -> None:
        """All users are brought by whoever goes on for them."""
        both = [self.start(), self.start()]
        for process in both:
            status, said = self.ended(process)
            self.assertIn(status, (0, os.EX_TEMPFAIL))
            for line in said.splitlines():
                self.assertEqual(line.partition(": ")[2] + "\n", self.said.partition(": ")[2])
            self.assertEqual(bool(said), status != 0)
        third = self.start("--verify")
        self.assertIn(f"2 users: 0 copied (0 octets), {2 * COUNT} there already\n", third.communicate()[0])
        self.all_once()

    def test_killed(self: Any) -> None:
        """One is killed in the middle, and so is the next; the one after that goes on at once."""
        for least in (10, 100):
            first = self.under_way(least=least)
            first.send_signal(signal.SIGKILL)
            first.wait(60)
        self.assertEqual(self.ended(self.start("--verify")), (0, ""))
        self.all_once()

    def test_served(self: Any) -> None:
        """A server serves TO and takes mail for it meanwhile; what is removed there stays away."""
        # Of the batch that is cut short nobody knows what was there.
        first = self.under_way(least=BATCH + 1)
        first.send_signal(signal.SIGSTOP)
        ports = ("--smtp-port=0", "--domain=localhost")
        with RealServer(*self.serving(), *ports) as server:
            with logged_in(server.port) as client:
                removed = client.uids()[1]
                client.dele(1)
            second = self.start()
            first.send_signal(signal.SIGCONT)
            with smtplib.SMTP("127.0.0.1", server.port_for("SMTP")) as sender:
                for number in range(20):
                    sender.sendmail("", [f"{USERS[number % 2]}@localhost"], text(1000 + number))
            for process in (first, second):
                self.assertIn(self.ended(process)[0], (0, os.EX_TEMPFAIL))
            self.assertEqual(self.ended(self.start())[0], 0)
        for user in USERS:
            uids = self.uids(user)
            self.assertEqual(len(uids), len(set(uids)))
            self.assertEqual(len(uids), COUNT + 10 - (user == "ann"))
        self.assertNotIn(removed, self.uids("ann"))


class FolderTests(AtOnceContract, SynchronousTestCase):
    """Into Maildirs: who has begun first goes on."""

    said = "ann: somebody else is copying to it\n"

    def setUp(self) -> None:
        self.prepared()
        self.other = self.folder / "other"
        self.other.mkdir()

    def to(self) -> list[str]:
        """The target."""
        return [f"{self.other}/{{user}}"]

    def serving(self) -> list[str]:
        """The options of a server on it."""
        return maildir_options(self.other, [f"{user}:secret" for user in USERS])

    def there(self, user: str) -> int:
        """How many messages a user has."""
        folder = self.other / user / "new"
        return len(os.listdir(folder)) if folder.exists() else 0


class CephTests(AtOnceContract, CephPlace):
    """Into object storage: who has begun last goes on."""

    said = "ann: somebody else has begun to copy to it; what was copied until then is there\n"

    def setUp(self) -> None:
        super().setUp()
        self.prepared()
        engines = self.engines()
        self.users, self.engine = Users(engines), engines.main

    def to(self) -> list[str]:
        """The target."""
        return [self.url, f"--to-endpoint={self.endpoint}", f"--to-credentials={self.credentials}"]

    def serving(self) -> list[str]:
        """The options of a server on it."""
        return [*self.options(), *(f"--user={user}:secret" for user in USERS)]

    def there(self, user: str) -> int:
        """How many messages a user has."""
        found = self.users.get(user)
        return len(self.engine.list(messages_prefix(found[0].drop))) if found is not None else 0
