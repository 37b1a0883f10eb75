"""The queue as a service, on a clock: attempts, notices, restarts, orders, and full disks."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Coroutine, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import BadSetting, NotOurs, StoreFull, StoreTrouble
from pop3toy.events import NONE, Bounced, Observers, QueueRemoved, SendDeferred, Sent
from pop3toy.interfaces import OutgoingRecipient
from pop3toy.net.threads import run_now
from pop3toy.outgoing.attempt import Result, Trouble
from pop3toy.outgoing.client import Handing
from pop3toy.outgoing.entry import Entry, Outcome, Status
from pop3toy.outgoing.limits import HourlyLimit
from pop3toy.outgoing.queue_files import Folder
from pop3toy.outgoing.schedule import GIVE_UP
from pop3toy.outgoing.service import HOLD, LOOK, STOPPING, OutgoingQueue, Told
from pop3toy.outgoing.smarthost import Credentials, Smarthost

from ..folders import new_folder
from ..pop3_world import Watcher
from .test_parts import CAME, FAILED, GONE, LATER, TEXT, mail, put

EVE = "eve@elsewhere.example"


class Crash(BaseException):
    """The process is killed here."""


class ServiceCase(SynchronousTestCase):
    """A queue whose smarthost is the test."""

    def setUp(self) -> None:
        self.path = new_folder(self) / "queue"
        self.clock = Clock()
        self.clock.advance(CAME)
        self.notices: list[tuple[str, bytes]] = []
        #: Who was tried; and what is answered, by address, or what is waited for.
        self.tried: list[tuple[str, list[str]]] = []
        self.answers: dict[str, Outcome] = {}
        self.trouble: Trouble | None = None
        self.waiting: Deferred[None] | None = None
        self.undeliverable: Exception | None = None
        self.watcher = Watcher(Sent, SendDeferred, Bounced, QueueRemoved)
        self.length = (0, 0.0)
        self.login_refused: bool | None = None
        #: What their file holds, or what is wrong with it; and which those were that mail was tried with.
        self.credentials: Credentials | BadSetting | None = None
        self.tried_with: list[Credentials | None] = []
        #: By how much the time of day was set back.
        self.behind = 0.0
        self.folder = Folder(self.path, sync=lambda fd: None)
        self.queue = self.new_queue()
        self.queue.startService()
        self.clock.advance(0)

    def new_queue(self) -> OutgoingQueue:
        """One more process's, on the same folder; it is stopped with the test."""
        reactor: Any = self.clock

        def length(messages: int, seconds: float) -> None:
            self.length = (messages, seconds)

        def login_refused(refused: bool) -> None:
            self.login_refused = refused

        queue = OutgoingQueue(
            self.folder,
            Handing(Smarthost("smtp", "smart", 25), None, None, "mail.example.org"),
            self.read_credentials,
            reactor,
            run_now,
            HourlyLimit(self.path, 10, self.clock.seconds),
            self.deliver,
            lambda: self.clock.seconds() - self.behind,
            Observers(self.watcher),
            Told(length, login_refused),
            self.connect,
        )
        self.addCleanup(lambda: queue.stopService() if queue.running else None)
        return queue

    def read_credentials(self, before: Credentials | None) -> Credentials | None:
        """Read their file again."""
        if isinstance(self.credentials, BadSetting):
            raise self.credentials
        return self.credentials

    async def deliver(self, address: str, user: str, message: bytes) -> None:
        """Take a notice."""
        if self.undeliverable is not None:
            raise self.undeliverable
        self.notices.append((address, message))

    async def connect(
        self, reactor: Any, handing: Handing, entry: Entry, content: Any, *, stop: Any
    ) -> Result:
        """Take a message."""
        numbers = entry.numbers(Status.WAITING)
        addresses = [entry.recipients[number].address for number in numbers]
        self.tried.append((entry.queue_id, addresses))
        self.tried_with.append(handing.credentials)
        if self.waiting is not None:
            waiting = self.waiting
            stop(lambda: waiting.callback(None) if not waiting.called else None)
            await waiting
        if self.trouble is not None:
            return Result({}, self.trouble)
        return Result(
            {number: self.answers.get(to, GONE) for number, to in zip(numbers, addresses, strict=True)}
        )

    def hand_in(self, *to: str, text: bytes = TEXT, **more: Any) -> str:
        """Queue a message."""
        envelope = mail(*(OutgoingRecipient(one) for one in to or (EVE,)), **more)
        self.assertIsNone(self.asked(self.queue.count(envelope.user, len(envelope.recipients))))
        incoming = self.queue.begin(envelope)
        self.assertIsNone(incoming.write(text))
        self.successResultOf(incoming.prepare())
        self.successResultOf(incoming.commit())
        return envelope.queue_id

    def asked(self, question: Coroutine[Any, Any, str | None]) -> str | None:
        """What the queue says of a limit."""
        return self.successResultOf(Deferred.fromCoroutine(question))

    def pass_time(self, seconds: float, step: float = LOOK) -> None:
        """Let time pass, look by look."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(min(step, end - self.clock.seconds()))

    @property
    def left(self) -> list[str]:
        """What is in the folder besides the lock and the limits."""
        return sorted(name for name in os.listdir(self.path) if name not in ("lock", "sent"))


class AttemptTests(ServiceCase):
    """Messages come and go."""

    def begin_several(self, *queue_ids: str) -> None:
        """Messages that are all handed on at once, and wait for their turn to end: see ``ended``."""
        #: Those whose last octets may be sent, and those that were told not to.
        self.ended: list[str] = []
        self.kept_back: list[str] = []
        self.results: dict[str, Deferred[Result]] = {}

        async def connect(reactor: Any, handing: Handing, entry: Entry, content: Any, **more: Any) -> Result:
            result = self.results[entry.queue_id] = Deferred()

            def goes_on(why: Any) -> None:
                if not result.called:
                    (self.ended if why is None else self.kept_back).append(entry.queue_id)

            Deferred.fromCoroutine(content.before_end()).addBoth(goes_on)
            return await result

        self.connect = connect  # type: ignore[method-assign]
        self.queue.stopService()
        self.queue = self.new_queue()
        self.queue.startService()
        for one in queue_ids:
            self.hand_in(queue_id=one)
        self.clock.advance(LOOK)
        self.assertEqual(self.results.keys(), set(queue_ids))

    def test_one_end_at_a_time(self) -> None:
        """No other message is at its end before what came of one is written down, or it has failed."""
        self.begin_several("a1", "b2", "c3")
        [first] = self.ended
        # One that gives up while it waits for its turn does not keep it.
        second, third = sorted({"a1", "b2", "c3"} - {first})
        self.results[second].callback(Result({}))
        self.assertEqual(self.ended, [first])
        add = self.folder.add

        def written(queue_id: str, record: dict[str, object]) -> None:
            self.assertEqual(self.ended, [first])
            add(queue_id, record)

        self.patch(self.folder, "add", written)
        self.results[first].callback(Result({0: GONE}))
        self.assertEqual(self.ended, [first, third])
        self.assertNotIn(f"{first}.mail", self.left)

    def test_no_end_while_a_record_waits(self) -> None:
        """On a full disk one message is in doubt, and no second one comes to its end."""
        self.begin_several("a1", "b2")
        [first] = self.ended

        def full(queue_id: str, record: Mapping[str, object]) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(self.folder, "add", full)
        self.results[first].callback(Result({0: GONE}))
        self.assertEqual((self.ended, len(self.kept_back)), ([first], 1))
        self.assertNotEqual(self.kept_back, [first])

    def test_at_once(self) -> None:
        """A message is tried at once, and gone when the smarthost has it."""
        self.hand_in()
        self.pass_time(LOOK)
        self.assertEqual(self.tried, [("abc123", [EVE])])
        self.assertEqual((self.left, self.notices), ([], []))
        [event] = self.watcher.events
        self.assertEqual(
            event, Sent(NONE, event.at, "abc123", "ann", "ann@example.org", EVE, "smart", LOOK, GONE.text)
        )

    def test_large(self) -> None:
        """A message that is too large for memory goes to the file as it comes."""
        incoming = self.queue.begin(mail())
        for _ in range(2):
            waited = incoming.write(b"x" * 200_000)
        self.assertIsNotNone(waited)
        self.assertEqual(self.left, ["abc123.tmp"])
        incoming.abort()
        self.assertEqual(self.left, [])

    def test_not_before_the_commit(self) -> None:
        """What is prepared and not committed is not tried, and aborting takes it away."""
        incoming = self.queue.begin(mail())
        incoming.write(TEXT)
        self.successResultOf(incoming.prepare())
        self.pass_time(60)
        self.assertEqual(self.tried, [])
        incoming.abort()
        incoming.abort()
        self.assertEqual(self.left, [])

    def test_some(self) -> None:
        """Of several recipients each has its own fate; one notice tells of those that failed."""
        self.answers = {"a@x.example": FAILED, "b@x.example": LATER, "c@x.example": FAILED}
        self.hand_in("a@x.example", "b@x.example", "c@x.example", "d@x.example")
        self.pass_time(LOOK)
        [(address, notice)] = self.notices
        self.assertEqual(address, "ann@example.org")
        self.assertIn(b"Final-Recipient: rfc822; a@x.example", notice)
        self.assertIn(b"Final-Recipient: rfc822; c@x.example", notice)
        self.assertNotIn(b"b@x.example", notice)
        self.answers = {}
        self.pass_time(400)
        self.assertEqual(self.tried[1:], [("abc123", ["b@x.example"])])
        self.assertEqual((len(self.notices), self.left), (1, []))
        self.assertEqual([one.recipient for one in self.watcher.of(Bounced)], ["a@x.example", "c@x.example"])
        self.assertEqual([one.recipient for one in self.watcher.of(Sent)], ["d@x.example", "b@x.example"])
        [deferred] = self.watcher.of(SendDeferred)
        self.assertEqual((deferred.recipients, deferred.attempts), (["b@x.example"], 1))
        self.assertEqual((deferred.wait, deferred.reason), (300.0, LATER.text))

    def test_five_days(self) -> None:
        """What nobody takes is given up after five days: one warning, one notice, and nothing is left."""
        self.answers = {EVE: LATER}
        self.hand_in()
        self.pass_time(GIVE_UP + 3600, step=60)
        self.assertEqual([b"Action: delayed" in text for _, text in self.notices], [True, False])
        self.assertIn(b"Status: 5.4.7", self.notices[1][1])
        self.assertEqual(self.left, [])
        self.assertLess(len(self.tried), 60)

    def test_no_sender(self) -> None:
        """A bounce that cannot be handed on is dropped, and answered to nobody."""
        self.answers = {EVE: FAILED}
        self.hand_in(sender="")
        self.pass_time(LOOK)
        self.assertEqual((self.notices, self.left), ([], []))

    def test_smarthost_down(self) -> None:
        """A smarthost that nobody can connect to is tried with one message at a time, not with all."""
        self.trouble = Trouble("cannot connect")
        for number in range(6):
            put(self.folder, envelope=mail()._replace(queue_id=f"id{number}"))
        self.pass_time(HOLD - 4)
        self.assertLessEqual(len(self.tried), 5)
        before = len(self.tried)
        self.pass_time(HOLD)
        self.assertEqual(len(self.tried), before + 1)
        self.trouble = None
        self.pass_time(700)
        self.assertEqual(self.left, [])
        self.assertEqual(self.notices, [])

    def test_login_refused(self) -> None:
        """A refused password is tried in growing waits, by one message alone; each time a line says so."""
        self.trouble = Trouble("smart: 535 5.7.8 no", login=True)
        with capturedLogs() as events:
            for _ in range(3):
                self.hand_in()
            self.pass_time(12 * 3600, step=60)
        said = [formatEvent(event) or "" for event in events if event["log_level"] is LogLevel.error]
        self.assertEqual(len(said), len(self.tried))
        self.assertEqual(
            [line.rpartition("tried again in ")[2] for line in said[:7]],
            [f"{minutes} minutes" for minutes in (5, 10, 20, 30, 60, 60, 60)],
        )
        self.assertIn(
            "the login of --smarthost-credentials: smart: 535 5.7.8 no; correct it in the file", said[0]
        )
        self.assertLessEqual(len(self.tried), 15)
        self.assertTrue(self.login_refused)
        self.trouble = None
        self.folder.order("retry", self.tried[0][0])
        self.pass_time(3600, step=60)
        self.assertFalse(self.login_refused)
        self.pass_time(5 * 3600, step=60)
        self.assertEqual(self.left, [])

    def test_corrected_login(self) -> None:
        """Other credentials are tried at once, by all that waits; those before count no more."""
        self.credentials = wrong = Credentials("relay", "swordfish")
        self.trouble = Trouble("smart: 535 5.7.8 no", login=True)
        with capturedLogs() as events:
            self.hand_in()
            self.hand_in(queue_id="b2")
            self.pass_time(20)
            # One that is under way with the wrong password still when the file is another one.
            self.folder.order("retry", "b2")
            self.waiting = Deferred()
            self.pass_time(LOOK)
            self.credentials = right = Credentials("relay", "open sesame")
            self.pass_time(LOOK)
            before = len(self.tried)
            self.waiting.callback(None)
            self.trouble = self.waiting = None
            self.pass_time(LOOK)
        self.assertIn(("abc123", [EVE]), self.tried[before:])
        self.assertEqual(self.tried_with, [wrong] * before + [right] * (len(self.tried) - before))
        self.assertNotIn("abc123.mail", self.left)
        said = [formatEvent(event) or "" for event in events]
        self.assertEqual(sum("tried again in 5 minutes" in line for line in said), 1, said)
        self.assertNotIn("open sesame", "".join(said))

    def test_bad_credentials(self) -> None:
        """A file that is wrong changes nothing; that is told once, and again for the next mistake."""
        self.credentials = right = Credentials("relay", "open sesame")
        self.pass_time(LOOK)
        with capturedLogs() as events:
            for why in ("it is no UTF-8", "it is no UTF-8", "", "it is no UTF-8"):
                self.credentials = BadSetting("smarthost-credentials", f" x: {why}") if why else right
                self.pass_time(LOOK)
        said = [formatEvent(event) or "" for event in events if event["log_level"] is LogLevel.error]
        text = "the credentials of the smarthost stay as they were: --smarthost-credentials x: it is no UTF-8"
        self.assertEqual(said, [text] * 2)
        self.hand_in()
        self.pass_time(LOOK)
        self.assertEqual(self.tried_with, [right])

    def test_limit(self) -> None:
        """A user may write to so many within an hour."""
        self.assertIsNone(self.asked(self.queue.refusal("ann", 10)))
        self.hand_in(*(f"{number}@x.example" for number in range(8)))
        self.assertIsNone(self.asked(self.queue.refusal("ann", 2)))
        self.assertIn("10 recipients", self.asked(self.queue.refusal("ann", 3)) or "")
        self.assertIn("10 recipients", self.asked(self.queue.count("ann", 3)) or "")
        self.assertIsNone(self.asked(self.queue.refusal("bob", 10)))
        self.pass_time(3600, step=60)
        self.assertIsNone(self.asked(self.queue.refusal("ann", 10)))
        self.pass_time(3600, step=60)
        self.assertEqual(os.listdir(self.path / "sent"), [])

    def test_limit_for_all(self) -> None:
        """What one process has counted, all others know, also those that start later."""
        self.hand_in(*(f"{number}@x.example" for number in range(8)))
        self.queue.stopService()
        for _ in range(2):
            self.queue = self.new_queue()
            self.assertIn("10 recipients", self.asked(self.queue.refusal("ann", 3)) or "")
            self.asked(self.queue.count("ann", 1))
        self.assertIn("10 recipients", self.asked(self.queue.count("ann", 1)) or "")

    def test_limit_cannot_be_written(self) -> None:
        """Without the queue's folder nobody sends, and hears that it may pass."""
        shutil.rmtree(self.path)
        question = Deferred.fromCoroutine(self.queue.count("ann", 1))
        self.assertIn("No such file", self.failureResultOf(question, StoreTrouble).value.detail)

    def test_length(self) -> None:
        """How many wait, and for how long the oldest does, is told."""
        self.answers = {EVE: LATER}
        self.hand_in()
        self.pass_time(100)
        self.assertEqual(self.length[0], 1)
        self.assertTrue(90 <= self.length[1] <= 100, self.length)


class TroubleTests(ServiceCase):
    """What goes wrong here."""

    def test_notice_waits(self) -> None:
        """A notice that cannot be delivered now waits, and nothing is tried again for it."""
        self.answers = {EVE: FAILED}
        self.undeliverable = StoreTrouble(detail="the disk is away")
        self.hand_in()
        self.pass_time(LOOK)
        self.assertEqual(self.left, ["abc123.mail"])
        self.undeliverable = None
        self.pass_time(400)
        self.assertEqual((len(self.notices), len(self.tried), self.left), (1, 1, []))

    def test_notice_never_possible(self) -> None:
        """A mailbox that stays full for days costs its owner the notice, and the queue nothing."""
        self.answers = {EVE: FAILED}
        self.undeliverable = StoreTrouble(detail="the mailbox is full")
        self.hand_in()
        self.pass_time(2 * GIVE_UP - 600, step=60)
        self.assertEqual(self.left, ["abc123.mail"])
        self.pass_time(1200, step=60)
        self.assertEqual((self.left, len(self.tried)), ([], 1))

    def test_nobody_to_tell(self) -> None:
        """A sender who is gone is told of nothing; the log has it, and the queue ends with it."""
        self.answers = {EVE: FAILED}
        self.undeliverable = NotOurs()
        self.hand_in()
        self.pass_time(LOOK)
        self.assertEqual(self.left, [])

    def test_full_disk_while_it_comes(self) -> None:
        """A full disk is a temporary error, and leaves nothing."""

        def full(fd: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.folder._sync = full
        incoming = self.queue.begin(mail())
        incoming.write(TEXT)
        self.failureResultOf(incoming.prepare(), StoreFull)
        incoming.abort()
        self.assertEqual(self.left, [])

    def test_full_disk_behind_the_smarthost(self) -> None:
        """What could not be written down is written before anything is tried: nobody gets it twice."""
        add = self.folder.add

        def full(queue_id: str, record: Mapping[str, object]) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.folder.add = full  # type: ignore[method-assign]
        self.hand_in()
        self.pass_time(1000)
        self.assertEqual(len(self.tried), 1)
        self.folder.add = add  # type: ignore[method-assign]
        self.pass_time(400)
        self.assertEqual((len(self.tried), self.left), (1, []))

    def test_damaged(self) -> None:
        """A file that cannot be read is told of once, and holds up nobody."""
        (self.path / "bad1.mail").write_bytes(b"nonsense")
        self.hand_in()
        self.pass_time(60)
        self.assertEqual(self.left, ["bad1.mail"])
        self.assertEqual([queue_id for queue_id, _ in self.tried], ["abc123"])

    def test_killed_at_each_step(self) -> None:
        """Killed before or behind any step, the next process ends it: once, or twice, never not at all."""
        steps = ("text", "connect", "add", "deliver", "add 2", "remove")
        for number, step in enumerate(steps):
            for behind in (False, True):
                self.notices.clear()
                self.tried.clear()
                self.answers = {"a@x.example": FAILED}
                put(self.folder, envelope=mail(*(OutgoingRecipient(one) for one in ("a@x.example", EVE))))
                dying = self.new_queue()
                self._dies(dying, step.partition(" ")[0], 2 if "2" in step else 1, behind)
                done = Deferred.fromCoroutine(dying._attempt("abc123"))
                self.assertIsInstance(self.failureResultOf(done).value, Crash, step)
                self.folder = Folder(self.path, sync=lambda fd: None)
                # The one that lives on looks into the same folder.
                self.queue._folder = self.folder
                self.pass_time(700)
                self.assertEqual(self.left, [], (step, behind))
                times = sum(EVE in to for _, to in self.tried)
                self.assertEqual(
                    times, 2 if (number, behind) in ((1, True), (2, False)) else 1, (step, behind)
                )
                told = len(self.notices)
                twice = (number, behind) in ((3, True), (4, False))
                self.assertEqual(told, 2 if twice else 1, (step, behind))

    def _dies(self, queue: OutgoingQueue, step: str, times: int, behind: bool) -> None:
        """Let a queue die before or behind a step."""
        where: Any = queue if step in ("connect", "deliver") else Folder(self.path, sync=lambda fd: None)
        if where is not queue:
            queue._folder = where
        name = f"_{step}" if where is queue else step
        real, left = getattr(where, name), [times]

        def dies(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0]:
                return real(*args, **options)
            if not behind:
                raise Crash
            done = real(*args, **options)
            if step in ("connect", "deliver"):
                return Deferred.fromCoroutine(done).addCallback(lambda _: self._crash())
            self._crash()
            return None

        setattr(where, name, dies)

    def _crash(self) -> None:
        raise Crash

    def test_clock_set_back(self) -> None:
        """A clock that is set back by a day holds nothing up for a day."""
        self.trouble = Trouble("smart: no connection")
        self.hand_in()
        self.pass_time(10)
        self.assertEqual(len(self.tried), 1)
        self.behind = 86400.0
        self.trouble = None
        self.pass_time(HOLD + LOOK)
        self.assertEqual(self.left, [])

    def test_folder_gone(self) -> None:
        """A folder that is removed is told of once, made again, and locked for others again."""
        self.hand_in()
        self.pass_time(LOOK)
        with capturedLogs() as events:
            shutil.rmtree(self.path)
            self.path.write_text("in the way")
            self.pass_time(60)
            self.path.unlink()
            self.pass_time(60)
        said = [formatEvent(event) or "" for event in events if event["log_level"] is LogLevel.error]
        self.assertEqual(len(said), len(set(said)), said)
        self.assertLessEqual(len(said), 2)
        self.hand_in()
        self.pass_time(LOOK)
        self.assertEqual(len(self.tried), 2)
        self.assertIsNone(self.folder.lock())


class ProcessesTests(ServiceCase):
    """Several processes, commands, and the end."""

    def test_one_runs_it(self) -> None:
        """Of two processes one hands on what either takes; when it ends, the other does."""
        other = self.new_queue()
        other.startService()
        self.pass_time(LOOK)
        first, self.queue = self.queue, other
        self.hand_in()
        self.pass_time(2 * LOOK)
        self.assertEqual(len(self.tried), 1)
        self.successResultOf(first.stopService())
        self.pass_time(2 * LOOK)
        self.hand_in()
        self.pass_time(2 * LOOK)
        self.assertEqual((len(self.tried), self.left), (2, []))

    def test_orders(self) -> None:
        """The command has a message tried now, or removed."""
        self.answers = {EVE: LATER}
        self.hand_in()
        self.pass_time(10)
        self.folder.order("retry", "abc123")
        self.pass_time(2 * LOOK)
        self.assertEqual(len(self.tried), 2)
        self.folder.order("remove", "abc123")
        self.folder.order("retry", "nobody")
        self.pass_time(2 * LOOK)
        self.assertEqual(self.left, [])

    def test_restart(self) -> None:
        """What waited goes on where it was when a server starts again."""
        self.answers = {EVE: LATER}
        self.hand_in()
        self.pass_time(10)
        self.successResultOf(self.queue.stopService())
        self.queue = self.new_queue()
        self.queue.startService()
        self.pass_time(200)
        self.assertEqual(len(self.tried), 1)
        self.answers = {}
        self.pass_time(200)
        self.assertEqual((len(self.tried), self.left), (2, []))

    def test_stop_waits(self) -> None:
        """A server that stops lets a message end that is being handed on, and gives up in the end."""
        self.waiting = Deferred()
        self.hand_in()
        self.pass_time(LOOK)
        stopping = self.queue.stopService()
        self.assertNoResult(stopping)
        self.waiting.callback(None)
        self.successResultOf(stopping)
        self.assertEqual(self.left, [])
        self.queue = self.new_queue()
        self.queue.startService()
        self.waiting, self.answers = Deferred(), {EVE: LATER}
        self.hand_in()
        self.pass_time(LOOK)
        stopping = self.queue.stopService()
        self.clock.advance(STOPPING)
        self.successResultOf(stopping)
        self.assertEqual(self.left, ["abc123.mail"])
