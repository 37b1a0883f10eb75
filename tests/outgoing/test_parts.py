"""The parts alone: files that a crash cut off, times, limits, URLs and credentials."""

from __future__ import annotations

import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.interfaces import OutgoingMail, OutgoingRecipient
from pop3toy.outgoing.entry import Damaged, Entry, Outcome, Status, applied, entry_of, envelope_record
from pop3toy.outgoing.limits import HourlyLimit
from pop3toy.outgoing.queue_files import Folder
from pop3toy.outgoing.schedule import (
    GIVE_UP,
    WARN,
    Notice,
    is_finished,
    notices_due,
    record_of_attempt,
    wait_after,
)
from pop3toy.outgoing.smarthost import Credentials, Smarthost, credentials_in, smarthost

from ..folders import new_folder

CAME = 1_700_000_000.0
TEXT = b"Subject: x\r\n\r\n" + b"text\r\n" * 3000

FAILED = Outcome(Status.FAILED, "5.1.1", "550 5.1.1 no such user")
LATER = Outcome(Status.WAITING, "4.2.1", "450 4.2.1 busy")
GONE = Outcome(Status.HANDED_ON, "2.0.0", "250 2.0.0 ok")


def mail(
    *to: OutgoingRecipient, sender: str = "ann@example.org", queue_id: str = "abc123", **more: Any
) -> OutgoingMail:
    """An envelope."""
    recipients = to or (OutgoingRecipient("eve@elsewhere.example"),)
    return OutgoingMail(queue_id, "ann", sender, recipients, **more)


def entry(*to: OutgoingRecipient, **more: Any) -> Entry:
    """A message that has come."""
    return entry_of([envelope_record(mail(*to, **more), CAME)], len(TEXT))


def put(folder: Folder, text: bytes = TEXT, envelope: OutgoingMail | None = None) -> str:
    """Put a message into a queue."""
    envelope = envelope or mail()
    writing = folder.begin(envelope.queue_id)
    writing.write(text[:100])
    writing.write(text[100:])
    writing.finish(envelope_record(envelope, CAME))
    writing.publish()
    return envelope.queue_id


class FolderTests(SynchronousTestCase):
    """The queue's files."""

    def setUp(self) -> None:
        self.path = new_folder(self) / "queue"
        self.synced: list[str] = []
        self.folder = Folder(
            self.path, sync=lambda fd: self.synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        )
        self.folder.make()

    def test_round_trip(self) -> None:
        """What was put in comes out, text and envelope; file and folder are durable before it counts."""
        self.synced.clear()
        put(self.folder, envelope=mail(utf8=True, ret="FULL", envid="x+2By"))
        self.assertEqual(self.synced, [f"{self.path}/abc123.tmp", str(self.path)])
        found = self.folder.read("abc123")
        self.assertEqual((found.user, found.sender, found.octets), ("ann", "ann@example.org", len(TEXT)))
        self.assertEqual((found.utf8, found.ret, found.envid, found.next), (True, "FULL", "x+2By", CAME))
        text = self.folder.text("abc123")
        self.addCleanup(text.close)
        read = b""
        while chunk := text.read(1000):
            read += chunk
        self.assertEqual(read, TEXT)

    def test_private(self) -> None:
        """Nobody else can look into it, and no name says more than the id."""
        put(self.folder)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o700)
        [name] = os.listdir(self.path)
        self.assertEqual(name, "abc123.mail")
        self.assertEqual((self.path / name).stat().st_mode & 0o777, 0o600)

    def test_cut_off_records(self) -> None:
        """A record that a crash cut off at any octet counts as not written, and the next one is readable."""
        put(self.folder)
        before = self.folder.read("abc123")
        file = self.path / "abc123.mail"
        whole = file.read_bytes()
        self.folder.add("abc123", {"next": 5.0})
        record = file.read_bytes()[len(whole) :]
        for cut in range(len(record)):
            file.write_bytes(whole + record[:cut])
            self.assertEqual(self.folder.read("abc123"), before, cut)
            self.folder.add("abc123", {"next": 7.0})
            self.assertEqual(self.folder.read("abc123").next, 7.0, cut)

    def test_killed_while_it_comes(self) -> None:
        """Until the last step there is no message, and what is left is removed a day later."""
        for step in range(3):
            writing = self.folder.begin("abc123")
            if step:
                writing.write(TEXT)
            if step == 2:
                writing.finish(envelope_record(mail(), CAME))
            self.assertEqual(self.folder.look().messages, [])
            left = self.path / "abc123.tmp"
            os.utime(left, (CAME, CAME))
            self.folder.sweep(CAME + 80000)
            self.assertTrue(left.exists())
            self.folder.sweep(CAME + 90000)
            self.assertFalse(left.exists())

    def test_damaged(self) -> None:
        """A file that is none of a queue's is not read as one."""
        for data in (
            b"",
            b"x" * 100,
            b"pop3toy-queue 1 %020d\n" % 5,
            b"pop3toy-queue 1 %020d\n12345[]\n" % 5,
        ):
            (self.path / "abc123.mail").write_bytes(data)
            self.assertRaises(Damaged, self.folder.read, "abc123")

    def test_short(self) -> None:
        """A text that ends too early is an error, and not a shorter message."""
        (self.path / "abc123.mail").write_bytes(b"pop3toy-queue 1 %020d\n123" % 5)
        text = self.folder.text("abc123")
        self.addCleanup(text.close)
        self.assertEqual(text.read(9), b"123")
        self.assertRaises(OSError, text.read, 9)

    def test_lock(self) -> None:
        """One process runs the queue; when its descriptor is closed, another may."""
        first = self.folder.lock()
        assert first is not None
        self.assertIsNone(self.folder.lock())
        os.close(first)
        second = self.folder.lock()
        assert second is not None
        os.close(second)

    def test_orders(self) -> None:
        """What the command asks for is found, and done once."""
        put(self.folder)
        self.folder.order("retry", "abc123")
        self.assertEqual(self.folder.look(), (["abc123"], [("retry", "abc123")]))
        self.folder.done("retry", "abc123")
        self.assertEqual(self.folder.look().orders, [])

    def test_remove(self) -> None:
        """A message is removed, durably; removing it again is harmless."""
        put(self.folder)
        self.synced.clear()
        self.folder.remove("abc123")
        self.folder.remove("abc123")
        self.assertEqual(self.synced, [str(self.path)])
        self.assertEqual(os.listdir(self.path), [])


class ScheduleTests(SynchronousTestCase):
    """Times."""

    def test_waits_grow(self) -> None:
        """From five minutes to four hours."""
        waits = [wait_after(number) for number in range(1, 30)]
        self.assertEqual((waits[0], waits[-1]), (300, 14400))
        self.assertEqual(waits, sorted(waits))

    def test_each_recipient(self) -> None:
        """Each has its own state; those that are decided are not tried again."""
        three = entry(*(OutgoingRecipient(f"{name}@x.example") for name in "abc"))
        record = record_of_attempt(three, {0: GONE, 1: FAILED, 2: LATER}, CAME + 1, "busy")
        after = applied(three, record)
        self.assertEqual(after.numbers(Status.WAITING), (2,))
        self.assertEqual(after.next, CAME + 301)
        self.assertEqual(
            [(due.notice, due.numbers) for due in notices_due(after, CAME + 1)], [(Notice.FAILED, (1,))]
        )
        told = applied(after, {"told": [1]})
        self.assertEqual(list(notices_due(told, CAME + 1)), [])
        self.assertFalse(is_finished(told, CAME + 1))
        gone = applied(told, record_of_attempt(told, {2: GONE}, CAME + 301, ""))
        self.assertTrue(is_finished(gone, CAME + 301))

    def test_five_days(self) -> None:
        """Tries go on for five days, with one warning after four hours, and then it is given up."""
        now, one, tries, warned = CAME, entry(), 0, []
        while not one.numbers(Status.FAILED):
            tries += 1
            one = applied(one, record_of_attempt(one, {0: LATER}, now, LATER.text))
            for due in notices_due(one, now):
                if due.notice is Notice.DELAYED:
                    warned.append(now - CAME)
                    one = applied(one, due.record)
            self.assertLess(tries, 100)
            last, now = now, one.next
        self.assertEqual(len(warned), 1)
        self.assertTrue(WARN <= warned[0] < WARN + 3600, warned)
        self.assertEqual(last - CAME, GIVE_UP)
        self.assertGreater(tries, 30)
        self.assertEqual(one.recipients[0].enhanced, "4.4.7")
        self.assertEqual([due.notice for due in notices_due(one, now)], [Notice.FAILED])

    def test_notify(self) -> None:
        """RFC 3461 section 4.1: the sender says of what to be told; nobody is told of what has no sender."""
        for notify, outcome, expected in (
            ((), FAILED, [Notice.FAILED]),
            (("NEVER",), FAILED, []),
            (("NEVER",), LATER, []),
            (("NEVER",), Outcome(Status.RELAYED, "2.0.0", "250 ok"), []),
            (("DELAY",), FAILED, []),
            (("SUCCESS", "FAILURE"), FAILED, [Notice.FAILED]),
            (("FAILURE",), LATER, []),
            ((), LATER, [Notice.DELAYED]),
            (("SUCCESS",), Outcome(Status.RELAYED, "2.0.0", "250 ok"), [Notice.RELAYED]),
            (("SUCCESS",), GONE, []),
        ):
            one = entry(OutgoingRecipient("eve@x.example", notify))
            one = applied(one, record_of_attempt(one, {0: outcome}, CAME + WARN, ""))
            self.assertEqual(
                [due.notice for due in notices_due(one, CAME + WARN)], expected, (notify, outcome)
            )
        bounce = entry(sender="")
        bounce = applied(bounce, record_of_attempt(bounce, {0: FAILED}, CAME, ""))
        self.assertTrue(is_finished(bounce, CAME))

    def test_delivered_here(self) -> None:
        """Who is here and was asked about with NOTIFY=SUCCESS is told of, and never tried."""
        one = entry(OutgoingRecipient("bob@example.org", ("SUCCESS",), here=True))
        self.assertEqual(one.numbers(Status.WAITING), ())
        self.assertEqual([due.notice for due in notices_due(one, CAME)], [Notice.DELIVERED])


class LimitTests(SynchronousTestCase):
    """How much a user may send."""

    def setUp(self) -> None:
        self.now = 1_000_000.0
        self.folder = new_folder(self)

    def limit(self) -> HourlyLimit:
        """As a process of a server has it."""
        return HourlyLimit(self.folder, 10, lambda: self.now)

    def test_hour(self) -> None:
        """What was sent counts for an hour, each user's for itself, and for all processes."""
        self.assertTrue(self.limit().count("ann", 4))
        self.now += 1800
        self.assertTrue(self.limit().count("ann", 6))
        self.assertEqual((self.limit().left("ann"), self.limit().left("bob")), (0, 10))
        self.assertFalse(self.limit().count("ann", 1))
        self.now += 1800
        self.assertEqual(self.limit().left("ann"), 4)
        self.limit().sweep()
        self.assertEqual(self.limit().left("ann"), 4)
        self.now += 1800
        self.assertEqual(self.limit().left("ann"), 10)
        self.limit().sweep()
        self.assertEqual(list((self.folder / "sent").iterdir()), [])

    def test_one_at_a_time(self) -> None:
        """Another process that counts the same user's is waited for, and what it has counted counts."""
        self.limit().count("ann", 4)
        [path] = (self.folder / "sent").iterdir()
        waited = []
        real = fcntl.flock

        def flock(fd: int, how: int) -> None:
            if not waited:
                with open(path, "ab") as other:
                    real(other, fcntl.LOCK_EX)
                    self.assertRaises(BlockingIOError, real, fd, how | fcntl.LOCK_NB)
                    other.write(b"%.3f 5\n" % self.now)
                waited.append(fd)
            real(fd, how)

        self.patch(fcntl, "flock", flock)
        self.assertFalse(self.limit().count("ann", 2))
        self.assertEqual((len(waited), self.limit().left("ann")), (1, 1))

    def test_clock_set_back(self) -> None:
        """What was sent at a time that is still to come counts for an hour from now on, and no longer."""
        self.limit().count("ann", 4)
        self.now -= 86400
        self.assertTrue(self.limit().count("ann", 1))
        self.assertEqual(self.limit().left("ann"), 5)
        self.now += 3600
        self.assertEqual(self.limit().left("ann"), 10)

    def test_refused_with_a_clock_set_back(self) -> None:
        """It does as well for a user who is at the limit."""
        self.limit().count("ann", 10)
        self.now -= 86400
        self.assertEqual(self.limit().left("ann"), 0)
        self.now += 3600
        self.assertTrue(self.limit().count("ann", 1))

    def test_names(self) -> None:
        """Any name of a user is one file; nobody else looks into it."""
        for user in ("../ann", "a" * 300, "\udcff", "ann\0", "Ann"):
            self.assertTrue(self.limit().count(user, 10))
            self.assertFalse(self.limit().count(user, 1))
        files = list((self.folder / "sent").iterdir())
        self.assertEqual(len(files), 5)
        self.assertEqual({file.stat().st_mode & 0o777 for file in files}, {0o600})

    def test_cut_off(self) -> None:
        """A line that is none costs nobody anything."""
        self.limit().count("ann", 4)
        (file,) = (self.folder / "sent").iterdir()
        with file.open("ab") as added:
            added.write(b"12345.678\n\xff\xfe 1\n99999")
        self.assertEqual(self.limit().left("ann"), 6)
        self.assertTrue(self.limit().count("ann", 6))

    def test_at_once(self) -> None:
        """However many count at the same time, no more is allowed than there is."""
        limits = [self.limit() for _ in range(4)]
        with ThreadPoolExecutor(8) as pool:
            allowed = list(pool.map(lambda number: limits[number % 4].count("ann", 1), range(40)))
        self.assertEqual(sum(allowed), 10)


class SmarthostTests(SynchronousTestCase):
    """URL and credentials."""

    def test_urls(self) -> None:
        """TLS, or this machine."""
        for url, expected in (
            ("smtp+starttls://mail.example.net:587", ("smtp+starttls", "mail.example.net", 587)),
            ("smtp+starttls://mail.example.net", ("smtp+starttls", "mail.example.net", 587)),
            ("smtps://mail.example.net/", ("smtps", "mail.example.net", 465)),
            ("smtp://127.0.0.1:10025", ("smtp", "127.0.0.1", 10025)),
            ("smtp://[::1]:25", ("smtp", "::1", 25)),
            ("smtp://localhost", ("smtp", "localhost", 25)),
        ):
            self.assertEqual(smarthost(url), Smarthost(*expected))
        for url in ("smtp://mail.example.net", "http://x", "smtps://", "smtps://x:0", "smtps://x:70000", "x"):
            self.assertRaises(ValueError, smarthost, url)
        error = self.assertRaises(ValueError, smarthost, "smtps://ann:hunter2@mail.example.net")
        self.assertNotIn("hunter2", str(error))
        self.assertIn("--smarthost-credentials", str(error))

    def test_credentials(self) -> None:
        """In one line or in two; an error repeats nothing."""
        for text in ("ann:a:b", "ann:a:b\n", "ann\na:b\n", "ann\r\na:b\r\n"):
            self.assertEqual(credentials_in(text), Credentials("ann", "a:b"))
        self.assertNotIn("a:b", repr(Credentials("ann", "a:b")))
        for text in ("", "ann", ":secret", "ann:", "a\nb\nc"):
            error = self.assertRaises(ValueError, credentials_in, text)
            self.assertNotIn("secret", str(error))
