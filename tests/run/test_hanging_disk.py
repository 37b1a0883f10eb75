"""A disk that does not answer: it costs its own users alone, and is forgotten when it answers again."""

from __future__ import annotations

import os
import smtplib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import StoreTrouble
from pop3toy.net.threads import WorkerThreads
from pop3toy.run.recipients import LOOKING, or_mailbox

from ..corpus import make_maildir
from ..mailserver import LOOPBACK
from ..net.test_threads import FakeReactor, Gate
from ..realserver import DEADLINE, RealServer, maildir_options, wait_until
from ..store_world import DeadDisk, mounted
from ..strictclient import Refused, logged_in

#: Seconds: what a user of a healthy disk may wait at the most, on a busy machine; a user of a disk that
#: hangs until there is an answer; and a stop.
AT_ONCE, BOUNDED, STOPPED = 5.0, 25.0, 50.0

#: Sessions of a user at once; a few more than have threads, fewer than the server allows.
HANGING = 8

#: Messages that are being sent when a disk dies: more than may be written at once.
SENT = 40

#: What comes behind DATA.
BODY = b"Subject: hello\r\n\r\nbody\r\n.\r\n"


class Outcome(NamedTuple):
    """What came of something, and after how many seconds."""

    what: Any
    seconds: float


class Doing:
    """Something that may take long, done in a thread of the test's."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self.outcome: Outcome | None = None
        self._thread = threading.Thread(target=self._do, daemon=True)
        self._thread.start()

    def _do(self) -> None:
        began = time.monotonic()
        try:
            what = self._work()
        except Exception as error:
            what = error
        self.outcome = Outcome(what, time.monotonic() - began)

    def wait(self) -> Outcome:
        """Its outcome, when it is there."""
        wait_until(lambda: self.outcome is not None, "an answer")
        assert self.outcome is not None
        return self.outcome


class NamesTests(SynchronousTestCase):
    """Recipients who are known by their mailboxes alone."""

    def test_others_are_found(self) -> None:
        """A name whose mailbox cannot be looked at has one thread, and its senders are told in time."""
        reactor, gate = FakeReactor(), Gate()
        threads = WorkerThreads(reactor, size=2)
        threads.startService()

        class Mailboxes:
            def exists(self, name: str) -> bool:
                """Ann's disk hangs."""
                return bool(gate(name)) if name == "ann" else True

        mailboxes: Any = Mailboxes()
        find = or_mailbox(lambda name: None, mailboxes, threads)
        hanging: Any = [find("ann") for _ in range(9)]
        gate.wait_for(1)
        for name in ("bob", "cid"):
            found: Any = find(name)
            reactor.deliver()
            self.assertEqual(name, self.successResultOf(found))
        reactor.advance(LOOKING)
        for one in hanging:
            self.failureResultOf(one, StoreTrouble)
        gate.open()
        reactor.deliver()
        back: Any = find("ann")
        reactor.deliver()
        self.assertEqual("ann", self.successResultOf(back))
        self.successResultOf(threads.stopService())


@skipUnless(os.geteuid() == 0, "only root may mount")
class HangingDiskTests(SynchronousTestCase):
    """Three users, of whom one's disk hangs."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        for user in ("ann", "bob", "cid"):
            (make_maildir(self.root / user) / "new" / f"1.{user},W=5").write_bytes(b"x\n\n")
        options = maildir_options(self.root, [f"{user}:secret" for user in ("ann", "bob", "cid")])
        self.server = RealServer(
            *options, "--smtp-port=0", "--domain=example.org", "--lock-wait=0", "--max-per-address=1000"
        )
        self.addCleanup(self.server.terminate)
        self.smtp = self.server.port_for("SMTP")

    def hang(self) -> DeadDisk:
        """From now on ann's disk hangs."""
        disk = DeadDisk(self.root / "ann")
        self.addCleanup(disk.answer)
        return disk

    def fetch(self, user: str) -> list[bytes]:
        """All messages of a user, in a session of their own."""
        with logged_in(self.server.port, user.encode(), timeout=DEADLINE) as client:
            return [client.retr(number) for number in range(1, client.stat().messages + 1)]

    def deliver(self, user: str) -> int:
        """What a sender is told at the end of a message, or before."""
        with smtplib.SMTP(LOOPBACK, self.smtp, timeout=DEADLINE) as sender:
            try:
                sender.sendmail("zoe@example.com", [f"{user}@example.org"], "Subject: hello\n\nbody\n")
            except smtplib.SMTPRecipientsRefused as error:
                return next(iter(error.recipients.values()))[0]
            return 250

    def sending(self, user: str) -> smtplib.SMTP:
        """A sender whose message is wanted, and has not come yet."""
        sender = smtplib.SMTP(LOOPBACK, self.smtp, timeout=DEADLINE)
        self.addCleanup(sender.close)
        sender.ehlo()
        sender.mail("zoe@example.com")
        sender.rcpt(f"{user}@example.org")
        self.assertEqual(354, sender.docmd("DATA")[0])
        return sender

    def test_others_do_not_notice(self) -> None:
        """Others log in, retrieve and get mail; who hangs is told so, and is served when the disk is back."""
        for user in ("ann", "bob"):
            self.assertEqual(1, len(self.fetch(user)))
        disk = self.hang()
        hanging = [Doing(lambda: self.fetch("ann")) for _ in range(HANGING)]
        mail = [Doing(lambda: self.deliver("ann")) for _ in range(HANGING)]
        for count in range(1, 9):
            # Cid is seen for the first time, so even that needs no thread that hangs.
            for user in ("bob", "cid"):
                done = Doing(lambda user=user: self.fetch(user)).wait()  # type: ignore[misc]
                self.assertEqual(count, len(done.what), done)
                self.assertLess(done.seconds, AT_ONCE)
                self.assertEqual(250, (done := Doing(lambda user=user: self.deliver(user)).wait()).what)  # type: ignore[misc]
                self.assertLess(done.seconds, AT_ONCE)
        self.assertEqual([None] * HANGING, [one.outcome for one in hanging])
        for one in hanging:
            self.assertIsInstance(one.wait().what, Refused)
            self.assertEqual(b"SYS/TEMP", one.wait().what.code)
            self.assertLess(one.wait().seconds, BOUNDED)
        for one in mail:
            self.assertIn(one.wait().what, (450, 451))
            self.assertLess(one.wait().seconds, BOUNDED)
        # It is known by now.
        again = Doing(lambda: self.fetch("ann")).wait()
        self.assertEqual(b"SYS/TEMP", again.what.code)
        self.assertLess(again.seconds, AT_ONCE)
        disk.answer()
        # The threads come back from the kernel one by one.
        wait_until(lambda: Doing(lambda: len(self.fetch("ann"))).wait().what == 1, "ann is served")
        wait_until(lambda: self.deliver("ann") == 250, "ann gets mail")

    def test_messages_in_flight(self) -> None:
        """Messages that were begun before their disk died hold up no others, and none is called delivered."""
        self.enterContext(mounted(self.root / "ann"))
        senders = [self.sending("ann") for _ in range(SENT)]
        disk = self.hang()
        for sender in senders:
            sender.send(BODY)
        ends = [Doing(lambda sender=sender: sender.getreply()[0]) for sender in senders]  # type: ignore[misc]
        for count in range(1, 9):
            done = Doing(lambda: self.deliver("bob")).wait()
            self.assertEqual(250, done.what)
            self.assertLess(done.seconds, AT_ONCE)
            done = Doing(lambda: self.fetch("bob")).wait()
            self.assertEqual(1 + count, len(done.what), done)
            self.assertLess(done.seconds, AT_ONCE)
        # Those that no thread has begun to write are refused in time.  Of the others nobody knows yet.
        wait_until(lambda: sum(end.outcome is not None for end in ends) >= SENT // 2, "refusals")
        disk.answer()
        for end in ends:
            self.assertEqual(451, end.wait().what)
        wait_until(lambda: self.deliver("ann") == 250, "ann gets mail")
        self.assertEqual(2, len(self.fetch("ann")))
        self.assertEqual([], os.listdir(self.root / "ann" / "tmp"))

    def test_stop(self) -> None:
        """A server whose disk hangs stops in bounded time, with a session and a message that wait for it."""
        sender = self.sending("ann")
        self.hang()
        hanging = Doing(lambda: self.fetch("ann"))
        sender.send(BODY)
        end = Doing(sender.getreply)
        self.assertEqual(1, len(self.fetch("bob")))
        self.assertEqual(250, self.deliver("bob"))
        self.assertEqual([None, None], [hanging.outcome, end.outcome])
        stopping = Doing(self.server.terminate).wait()
        self.assertTrue(stopping.what)
        self.assertLess(stopping.seconds, STOPPED)
