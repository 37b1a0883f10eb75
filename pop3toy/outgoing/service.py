"""The queue as a service: takes mail in, and in one of several processes hands it on and tells its senders.

Every process of a server has one, since each takes mail.  The one that gets the folder's lock runs the queue;
it looks into the folder every two seconds, so it finds what others have put there, and what the command asks
for.  When it ends, another takes over.

What happens is written down after it happened: a server that is killed between the smarthost's reply and the
record hands that message on twice, and never loses it: one message, since only one at a time is between its
end and its record.  The same holds for a notice.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, DeferredLock
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..clock import steady
from ..errors import BadSetting, NotOurs, StoreTrouble
from ..events import Bounced, Event, Observers, QueueRemoved, SendDeferred, Sent
from ..interfaces import OutgoingMail
from ..net.threads import RunInThread
from ..net.types import IReactor
from ..printable import printable
from .attempt import Content, Result, Trouble, examined
from .client import Handing, hand_on
from .entry import Damaged, Entry, Status
from .incoming import QueuedMessage
from .limits import HourlyLimit
from .notices import HEADER, WHOLE, Original, notice
from .queue_files import Folder, trouble
from .schedule import GIVE_UP, WAITS, Due, Notice, is_finished, notices_due, record_of_attempt, wait_after
from .smarthost import Credentials

__all__ = ["OutgoingQueue", "Told"]

log = Logger()

#: Seconds between two looks into the folder.
LOOK: Final = 2.0
#: Messages that are handed on at the same time: a smarthost sends away whoever has too many connections.
AT_ONCE: Final = 4
#: Seconds for which nothing is tried when the smarthost cannot be used at all; then one message tries it.
HOLD: Final = 60.0
#: The same if it refuses the login: so many at the most, growing as the waits of a message do.
LOGIN_WAIT: Final = 3600
#: Seconds that a stopping server gives the messages that are being handed on.
STOPPING: Final = 20.0
#: Seconds between two looks for files that writers have left behind.
SWEEP: Final = 3600.0


class Told(NamedTuple):
    """What is told of the queue as a whole: for metrics."""

    #: How many messages there are, and for how many seconds the oldest has waited.
    length: Callable[[int, float], object] = lambda messages, seconds: None
    #: Whether the smarthost refuses name and password; each time that it is known.
    login_refused: Callable[[bool], object] = lambda refused: None


class _Waiting(NamedTuple):
    """What is remembered of a message between two attempts."""

    next: float
    came: float


class _Turn:
    """An attempt's, to send the dot with which the smarthost takes a message, until that is written down.

    A process that is killed in between does not know whether it was taken.  One turn at a time, and none
    while a record waits for a full disk: one message at the most reaches its recipients twice.
    """

    def __init__(self, lock: DeferredLock) -> None:
        self._lock = lock
        self._held = self._over = False

    async def begin(self) -> None:
        """Wait for it."""
        await self._lock.acquire()
        self._held = True
        if self._over:
            self.end()

    def end(self) -> None:
        """Give it to the next, also while it is waited for still."""
        self._over = True
        if self._held:
            self._held = False
            self._lock.release()


class OutgoingQueue(Service):
    """Takes mail for elsewhere (:class:`~pop3toy.interfaces.Outgoing`), and hands it on.

    :param folder: the queue's.
    :param handing: where to, and how.
    :param credentials: reads name and password again, in a thread at each look, and is given those that
        are known.  May raise :class:`~pop3toy.errors.BadSetting`: then these stay.
    :param run: runs what waits for the disk in a thread.
    :param limit: what each user may send; asked in threads.
    :param deliver: delivers a notice to an address of ours: it is given the address, the user who had
        handed the message in, and the notice.
    :param wall: the time of day, in seconds: what is in files has to be true after a restart.
    :param observers: are told what becomes of messages; that one was queued whoever took it tells.
    :param connect: for tests: hands a message on.
    """

    def __init__(
        self,
        folder: Folder,
        handing: Handing,
        credentials: Callable[[Credentials | None], Credentials | None],
        reactor: IReactor,
        run: RunInThread,
        limit: HourlyLimit,
        deliver: Callable[[str, str, bytes], Awaitable[object]],
        wall: Callable[[], float],
        observers: Observers = Observers(),  # noqa: B008
        told: Told = Told(),  # noqa: B008
        connect: Callable[..., Awaitable[Result]] = hand_on,
    ) -> None:
        self._folder, self._handing, self._reactor, self._run = folder, handing, reactor, run
        self._credentials = credentials
        self._limit, self._deliver, self._wall, self._connect = limit, deliver, wall, connect
        self._observers, self._told = observers, told
        self._clock = steady(reactor)
        self._lock: int | None = None
        self._waiting: dict[str, _Waiting] = {}
        self._damaged: set[str] = set()
        # Those that are being handed on, with what ends that; empty until there is something to end.
        self._under_way: dict[str, Deferred[None]] = {}
        self._aborts: dict[str, Callable[[], object]] = {}
        # Held between a message's last octets and the record of what came of it.
        self._ending = DeferredLock()
        self._held_until = 0.0
        self._down = False
        # What was told of a folder that cannot be read, and of credentials; empty while they can.
        self._unreadable = self._unusable = ""
        # How often the smarthost has refused the login, one attempt after the other.
        self._refused = 0
        self._next_sweep = 0.0
        self._next_look: IDelayedCall | None = None
        self._looking: Deferred[None] | None = None
        self._again = self._made = False
        # What could not be written down, on a full disk: before it is, the message is not tried again.
        self._unwritten: dict[str, dict[str, object]] = {}

    # -- mail comes ------------------------------------------------------------------

    async def refusal(self, user: str, recipients: int) -> str | None:
        """See :class:`~pop3toy.interfaces.Outgoing`."""
        return None if recipients <= await self._limits(self._limit.left, user) else self._too_many

    async def count(self, user: str, recipients: int) -> str | None:
        """See :class:`~pop3toy.interfaces.Outgoing`."""
        return None if await self._limits(self._limit.count, user, recipients) else self._too_many

    @property
    def _too_many(self) -> str:
        most = self._limit.most
        return f"you may write to {most} recipients elsewhere within an hour, please try again later"

    async def _limits(self, ask: Callable[..., Any], *arguments: object) -> Any:
        try:
            return await self._run(ask, *arguments)
        except OSError as error:
            raise trouble(error) from error

    def begin(self, mail: OutgoingMail) -> QueuedMessage:
        """See :class:`~pop3toy.interfaces.Outgoing`."""
        return QueuedMessage(self._folder, mail, self._run, self._wall, self._look_soon)

    def _look_soon(self) -> None:
        if self.running:
            self._look_in(0)

    def _happened(self, kind: type[Event], *what: object) -> None:
        self._observers.happened(kind, self._clock.seconds(), *what)

    # -- the service -----------------------------------------------------------------

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._look_in(0)

    def stopService(self) -> Deferred[None]:
        """Begin nothing more; what is being handed on has 20 seconds.

        :return: a Deferred that fires when it is over; never fails.
        """
        super().stopService()
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        ending = [one for one in (self._looking, *self._under_way.values()) if one is not None]
        # A Deferred of each, since these have others that wait for them.
        waiting = [self._after(one) for one in ending]
        abort = self._clock.callLater(STOPPING, self._abort) if waiting else None

        def over(_: object) -> None:
            if abort is not None and abort.active():
                abort.cancel()
            lock, self._lock = self._lock, None
            self._waiting.clear()
            if lock is not None:
                os.close(lock)

        return DeferredList(waiting).addCallback(over)

    @staticmethod
    def _after(one: Deferred[None]) -> Deferred[None]:
        after: Deferred[None] = Deferred()
        one.addBoth(lambda _: after.callback(None))
        return after

    def _abort(self) -> None:
        for abort in list(self._aborts.values()):
            abort()

    def _look_in(self, seconds: float) -> None:
        if self._looking is not None:
            self._again = True
            return
        if self._next_look is not None:
            self._next_look.cancel()
        self._next_look = self._clock.callLater(seconds, self._begin_look)

    def _begin_look(self) -> None:
        self._next_look = None
        self._again = False
        self._looking = looking = Deferred.fromCoroutine(self._look())

        def done(why: Any) -> None:
            self._looking = None
            if why is not None:
                error = why.value
                if isinstance(error, OSError | StoreTrouble):
                    reason = getattr(error, "strerror", None) or getattr(error, "detail", "") or error
                    if str(reason) != self._unreadable:
                        # Once, and not every two seconds.
                        log.error("the queue cannot be read: {why}", why=str(reason))
                    self._unreadable = str(reason)
                    if isinstance(error, FileNotFoundError):
                        self._begin_anew()
                else:
                    log.failure("the queue", why)
            else:
                self._unreadable = ""
            if self.running:
                self._look_in(0 if self._again else LOOK)

        looking.addBoth(done)

    def _begin_anew(self) -> None:
        """The folder is gone, and the lock with it: it is made again, unless somebody brings it back."""
        lock, self._lock, self._made = self._lock, None, False
        if lock is not None:
            os.close(lock)

    async def _look(self) -> None:
        if not self._made:
            await self._run(self._folder.make)
            self._made = True
        if self._lock is None:
            self._lock = await self._run(self._folder.lock)
            if self._lock is None:
                return
        now = self._wall()
        if self._clock.seconds() >= self._next_sweep:
            self._next_sweep = self._clock.seconds() + SWEEP
            await self._run(self._folder.sweep, now)
            await self._run(self._limit.sweep)
        found = await self._run(self._folder.look)
        there = set(found.messages)
        for queue_id in [*self._waiting, *self._damaged]:
            if queue_id not in there:
                self._waiting.pop(queue_id, None)
                self._damaged.discard(queue_id)
        for queue_id in found.messages:
            if queue_id not in self._waiting and queue_id not in self._under_way:
                await self._read(queue_id)
        for verb, queue_id in found.orders:
            await self._obey(verb, queue_id)
        await self._read_credentials()
        oldest = min((one.came for one in self._waiting.values()), default=now)
        self._told.length(len(there), max(now - oldest, 0.0))
        self._begin_due(now)

    async def _read(self, queue_id: str) -> None:
        if queue_id in self._damaged:
            return
        try:
            entry = await self._run(self._folder.read, queue_id)
        except Damaged as error:
            self._damaged.add(queue_id)
            log.error("message {queue_id} of the queue: {why}", queue_id=queue_id, why=str(error))
        except FileNotFoundError:
            pass
        else:
            self._waiting[queue_id] = _Waiting(entry.next, entry.came)

    async def _read_credentials(self) -> None:
        """Take up other credentials; if the smarthost has refused those before, all mail tries them now."""
        try:
            found = await self._run(self._credentials, self._handing.credentials)
        except BadSetting as error:
            if str(error) != self._unusable:
                log.error("the credentials of the smarthost stay as they were: {why}", why=str(error))
            self._unusable = str(error)
            return
        self._unusable = ""
        if found == self._handing.credentials:
            return
        self._handing = self._handing._replace(credentials=found)
        log.info("the credentials of the smarthost were read again")
        if self._refused:
            self._refused, self._held_until = 0, 0.0
            self._waiting = {queue_id: one._replace(next=0.0) for queue_id, one in self._waiting.items()}

    async def _obey(self, verb: str, queue_id: str) -> None:
        """Do what the command asks for, as soon as nothing is under way for that message."""
        if queue_id in self._under_way:
            return
        if verb == "remove":
            await self._run(self._folder.remove, queue_id)
            if self._waiting.pop(queue_id, None) is not None or queue_id in self._damaged:
                self._happened(QueueRemoved, queue_id)
        elif queue_id in self._waiting:
            self._waiting[queue_id] = self._waiting[queue_id]._replace(next=0.0)
            self._held_until = 0.0
        await self._run(self._folder.done, verb, queue_id)

    # -- mail goes -------------------------------------------------------------------

    @property
    def _is_held(self) -> bool:
        return self._clock.seconds() < self._held_until

    def _begin_due(self, now: float) -> None:
        # What has longer to wait than anything waits is there since before the clock was set back.
        due = sorted(
            (one.next, queue_id)
            for queue_id, one in self._waiting.items()
            if not now < one.next <= now + WAITS[-1]
        )
        most = 1 if self._down else AT_ONCE
        for _, queue_id in due:
            if len(self._under_way) >= most or self._is_held or not self.running:
                break
            if queue_id not in self._under_way:
                self._begin(queue_id)

    def _begin(self, queue_id: str) -> None:
        attempt = Deferred.fromCoroutine(self._attempt(queue_id))

        def done(why: Any) -> None:
            self._under_way.pop(queue_id, None)
            self._aborts.pop(queue_id, None)
            if why is not None:
                error = why.value
                if isinstance(error, FileNotFoundError):
                    self._waiting.pop(queue_id, None)
                    self._unwritten.pop(queue_id, None)
                    return
                if isinstance(error, OSError | StoreTrouble):
                    reason = getattr(error, "detail", "") or getattr(error, "strerror", None) or error
                    log.error("message {queue_id}: {why}", queue_id=queue_id, why=str(reason))
                else:
                    log.failure("message {queue_id} of the queue", why, queue_id=queue_id)
                # Nothing is known to be written: not again at once.
                came = self._waiting[queue_id].came if queue_id in self._waiting else self._wall()
                self._waiting[queue_id] = _Waiting(self._wall() + WAITS[0], came)
            if self.running:
                self._look_in(0)

        if not attempt.called:
            self._under_way[queue_id] = attempt
        attempt.addBoth(done)

    async def _attempt(self, queue_id: str) -> None:
        """Hand a message on, as far as it has to be, and tell its sender what there is to tell."""
        if (unwritten := self._unwritten.get(queue_id)) is not None:
            await self._write_down(queue_id, unwritten)
        entry = await self._run(self._folder.read, queue_id)
        if unwritten is None and entry.numbers(Status.WAITING):
            entry = await self._try(entry)
        for due in list(notices_due(entry, self._wall())):
            await self._tell(entry, due)
            await self._write_down(queue_id, due.record)
        entry = await self._run(self._folder.read, queue_id)
        if is_finished(entry, self._wall()):
            await self._run(self._folder.remove, queue_id)
            self._waiting.pop(queue_id, None)
        else:
            self._waiting[queue_id] = _Waiting(entry.next, entry.came)

    async def _write_down(self, queue_id: str, record: dict[str, object]) -> None:
        """Add a record; as long as that fails, the message waits for it alone."""
        self._unwritten[queue_id] = record
        await self._run(self._folder.add, queue_id, record)
        del self._unwritten[queue_id]

    async def _try(self, entry: Entry) -> Entry:
        """An attempt, written down."""
        text = await self._run(self._folder.text, entry.queue_id)
        try:
            eight_bit, utf8_header = await self._run(examined, text.read)
        finally:
            await self._run(text.close)
        text = await self._run(self._folder.text, entry.queue_id)
        turn, handing = _Turn(self._ending), self._handing

        async def before_end() -> None:
            await turn.begin()
            if self._unwritten:
                raise OSError("what became of another message cannot be written down")

        content = Content(
            lambda most: self._run(text.read, most), entry.octets, eight_bit, utf8_header, before_end
        )
        try:
            try:
                result = await self._connect(
                    self._reactor,
                    handing,
                    entry,
                    content,
                    stop=lambda abort: self._aborts.__setitem__(entry.queue_id, abort),
                )
            finally:
                await self._run(text.close)
            self._heed(result.trouble, handing)
            now = self._wall()
            later = [one.text for one in result.outcomes.values() if one.status is Status.WAITING]
            why = result.trouble.text if result.trouble is not None else later[0] if later else ""
            await self._write_down(entry.queue_id, record_of_attempt(entry, result.outcomes, now, why))
        finally:
            turn.end()
        after = await self._run(self._folder.read, entry.queue_id)
        self._tell_observers(entry, after, now)
        return after

    def _heed(self, found: Trouble | None, handing: Handing) -> None:
        if found is not None and found.login and handing is not self._handing:
            # There are other credentials meanwhile.
            return
        if found is not None:
            # It is the same for all others: one of them will try it.
            self._down, self._held_until = True, self._clock.seconds() + HOLD
            if found.login:
                self._login_refused(found.text)
        else:
            self._down = False
            self._told.login_refused(False)
            self._refused = 0

    def _login_refused(self, why: str) -> None:
        """Wait longer each time: a smarthost locks out who comes with a wrong password again and again."""
        self._refused += 1
        wait = min(wait_after(self._refused), LOGIN_WAIT)
        self._held_until = self._clock.seconds() + wait
        self._told.login_refused(True)
        log.error(
            "the smarthost does not take the login of --smarthost-credentials: {why}; correct it in the file,"
            " which is read again; tried again in {minutes} minutes",
            why=why,
            minutes=wait // 60,
        )

    def _tell_observers(self, before: Entry, after: Entry, now: float) -> None:
        """Of each recipient about whom something is decided, and of those that wait."""
        smarthost = self._handing.smarthost.host
        message = (after.queue_id, after.user, after.sender)
        for number in before.numbers(Status.WAITING):
            one = after.recipients[number]
            if one.status is not Status.WAITING:
                kind = Bounced if one.status is Status.FAILED else Sent
                self._happened(kind, *message, one.address, smarthost, now - after.came, one.text)
        waiting = [after.recipients[number].address for number in after.numbers(Status.WAITING)]
        if waiting:
            end = (smarthost, after.attempts, after.next - now, after.why)
            self._happened(SendDeferred, *message, waiting, *end)

    async def _tell(self, entry: Entry, due: Due) -> None:
        """Deliver a notice.

        :raises pop3toy.errors.StoreTrouble: if that is not possible now.
        """
        whole = entry.ret == "FULL" and due.notice is Notice.FAILED and entry.octets <= WHOLE
        original = Original(*await self._run(self._folder.start, entry.queue_id, WHOLE if whole else HEADER))
        made = notice(
            entry,
            due,
            original,
            host=self._handing.host,
            smarthost=self._handing.smarthost.host,
            now=self._wall(),
            unique=f"{entry.queue_id}.{secrets.token_hex(8)}",
        )
        try:
            await self._deliver(entry.sender, entry.user, made)
        except StoreTrouble as error:
            if self._wall() < entry.came + 2 * GIVE_UP:
                raise
            # A mailbox that stays full: the queue does not grow for ever by it.
            log.error(
                "message {queue_id}: nobody was told that it is {what}: {why}",
                queue_id=entry.queue_id,
                what=due.notice.value,
                why=error.detail or error.text,
            )
        except NotOurs:
            log.error(
                "message {queue_id}: nobody can be told that it is {what}:"
                " <{sender}> is no address here any more",
                queue_id=entry.queue_id,
                what=due.notice.value,
                sender=printable(entry.sender),
            )
