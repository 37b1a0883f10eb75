"""A model of servers that share an object storage: what may happen to them, step by step, and what not.

The servers are the real ones (``ObjectStore`` and what it opens); storage, network, clocks and threads are
the model's.  A thread stops at each request, and then anything may happen: the answer, no answer though it
was carried out, none because it was not, or not yet; to the server, that it is stopped, with its clock or
without; or that another server goes on.  Two that are workers of one server may die, too, and then the other
one hears of it, sooner or later.
"""

from __future__ import annotations

import _thread
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from pop3toy.errors import InUse, Refusal, StoreTrouble
from pop3toy.stores.objects.engine import Found, Listed, NoSuchObject, Tag, Taken
from pop3toy.stores.objects.lease import FREE, HELD, Lease, Node, may_take
from pop3toy.stores.objects.records import UserRecord
from pop3toy.stores.objects.store import ObjectStore
from pop3toy.stores.server_process import ServerProcess

__all__ = ["Chooser", "Model", "Violation", "by_chance", "every_schedule"]

#: Says which event happens next, given a function that tells how many there are.
Chooser: TypeAlias = Callable[[Callable[[], int]], int]

DROP = "d"
LEASE = f"l/{DROP}"
#: How far the second server's clock is ahead of the storage's: as far as may be.
AHEAD = 15.0


class Violation(AssertionError):
    """What must not happen has happened."""


class Job:
    """A function in a thread, which stops at each request."""

    def __init__(self, server: Server, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.server = server
        self.result: Deferred[Any] = Deferred()
        #: The request that it waits for; ``None`` when it has ended.
        self.request: Callable[[], Any] | None = None
        self.kind = ""
        #: What was answered and has not arrived.
        self.answer: Callable[[], Any] | None = None
        self._outcome: Any = None
        # Plain locks, and threads without names: there are very many.
        self._mine, self._theirs = threading.Lock(), threading.Lock()
        self._mine.acquire()
        self._theirs.acquire()
        _thread.start_new_thread(self._work, (function, args))
        self._arrives()

    def _arrives(self) -> None:
        self._theirs.acquire()
        if self.request is None:
            self.result.callback(self._outcome)

    def _work(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        _current.job = self
        try:
            self._outcome = function(*args)
        except BaseException:
            self._outcome = Failure()
        self.request = None
        self._theirs.release()

    def ask(self, kind: str, request: Callable[[], Any]) -> Any:
        """In the thread: a request."""
        self.kind, self.request = kind, request
        self._theirs.release()
        self._mine.acquire()
        assert self.answer is not None
        answer, self.answer = self.answer, None
        return answer()

    def go_on(self, answer: Callable[[], Any]) -> None:
        """The request has an answer: on to the next one, or to the end."""
        self.answer = answer
        self._mine.release()
        self._arrives()


class _Current(threading.local):
    job: Job


_current = _Current()


class Storage:
    """Objects, and their engine; all requests stop at the model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._objects: dict[str, tuple[bytes, int, float]] = {}
        self._versions = 0
        #: Nonces of the leases that were written, in order.
        self.nonces: list[str] = []

    def put(self, key: str, body: bytes) -> Tag:
        self._versions += 1
        self._objects[key] = body, self._versions, self._model.now
        if key == LEASE:
            self.nonces.append(Lease.decoded(body).nonce)
        return Tag(str(self._versions))

    @property
    def lease(self) -> tuple[Lease, float]:
        """What is written, and how old it is."""
        body, _, modified = self._objects[LEASE]
        return Lease.decoded(body), self._model.now - modified

    @property
    def messages(self) -> list[str]:
        """The keys of the messages."""
        return sorted(key for key in self._objects if key.startswith("m/"))

    def get(self, key: str) -> Found:
        def got() -> Found:
            if key not in self._objects:
                raise NoSuchObject
            body, version, modified = self._objects[key]
            return Found(body, Tag(str(version)), modified)

        return _current.job.ask("get", got)  # type: ignore[no-any-return]

    def swap(self, key: str, body: bytes, tag: Tag) -> Tag:
        def swapped() -> Tag:
            if key not in self._objects or Tag(str(self._objects[key][1])) != tag:
                raise Taken
            return self.put(key, body)

        return _current.job.ask("swap", swapped)  # type: ignore[no-any-return]

    def each(self, prefix: str) -> list[Listed]:
        return _current.job.ask(  # type: ignore[no-any-return]
            "list", lambda: [Listed(key[len(prefix) + 1 :], 1, 0.0) for key in self.messages]
        )

    def delete(self, keys: Sequence[str], request: Callable[[Sequence[str]], None] | None = None) -> None:
        if request is not None:
            # One message is one request.
            request(keys)
            return
        job = _current.job

        def deleted() -> None:
            self._model.deletes(job, keys)
            for key in keys:
                self._objects.pop(key, None)

        job.ask("delete", deleted)


class Server:
    """A server with one client, who opens the maildrop, marks the first message, and quits."""

    def __init__(self, model: Model, number: int, ahead: float, process: ServerProcess) -> None:
        self.model = model
        self.number = number
        self.clock = Clock()
        self.ahead = ahead
        self.process = process
        self.jobs: list[Job] = []
        #: Seconds for which it has been stopped.
        self.slept: float | None = None
        self.dead = False
        #: Whether it has yet to hear that the other one is dead; and whether it had when its client came.
        self.news = False
        self.knew = False
        #: Whether it has been kept out by it all the same.
        self.locked_out = False
        self.mailbox: Any = None
        self.marked: list[str] = []
        self.superseded = False
        self.lost: list[str] = []
        self.acts = [self.opens, self.quits, self.releases]
        self._waiting = False
        self.store = ObjectStore(
            self,  # type: ignore[arg-type]
            self,
            self.clock,
            Node("", process),
            run_for=lambda user: self._run,
            leases=lambda bucket: self._run,
        )

    # As its store sees engines and users.
    def wall(self) -> float:
        return self.model.now + self.ahead

    def learn_time(self) -> None:
        pass

    def of(self, bucket: str) -> Any:
        return self.model.storage

    def find(self, login: str) -> UserRecord:
        return UserRecord(login, DROP)

    def _run(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        job = Job(self, function, args)
        self.jobs.append(job)
        return job.result

    # The client.
    @property
    def may_act(self) -> bool:
        return bool(self.acts) and not self._waiting and self.slept is None and not self.dead

    def act(self) -> None:
        """The next thing that the client wants."""
        doing = self.acts.pop(0)()
        if isinstance(doing, Deferred):
            self._waiting = True
            doing.addBoth(self._done)

    def _done(self, outcome: Any) -> None:
        self._waiting = False
        if isinstance(outcome, Failure) and outcome.check(Refusal) is None:
            outcome.raiseException()

    def hears(self) -> None:
        """The supervisor tells it that the other one is dead."""
        self.news = False
        self.process.ended = [int(number != self.number) for number in range(2)]

    def dies(self) -> None:
        """kill -9: its threads get no answers any more."""
        self.dead = True
        self.mailbox = None

    def opens(self) -> Any:
        def opened(mailbox: Any) -> None:
            self.mailbox = mailbox
            mailbox.when_lost(self.lost.append)

        def refused(why: Failure) -> Failure:
            self.acts.clear()
            self.locked_out = self.knew and why.check(InUse) is not None
            return why

        self.knew = any(self.process.ended)
        return self.store.open("ann").addCallbacks(opened, refused)

    def quits(self) -> Any:
        if self.lost or not self.mailbox.entries:
            return None
        nonces = self.model.storage.nonces
        self.superseded = nonces[-1] != self.mailbox._held.nonce
        uids = [self.mailbox.entries[0].uid]
        self.marked = [f"m/{DROP}/{uid.decode()}" for uid in uids]
        return self.mailbox.remove(uids)

    def releases(self) -> Any:
        mailbox, self.mailbox = self.mailbox, None
        return mailbox.release()

    @property
    def in_session(self) -> bool:
        """Whether its client is in TRANSACTION or UPDATE, with a lease that is valid."""
        return self.mailbox is not None and not self.lost and self.model.now < self.mailbox._held.until


class Event(NamedTuple):
    """Something that may happen next."""

    name: str
    happens: Callable[[], object]


class Model:
    """Two servers and what happens to them.

    A server may also be stopped together with its clock, as a virtual machine is.  Its session does not know
    then that its lease is over, and may read on; but it removes nothing.

    :param choose: says which event happens next, the usual one being 0; it can ask how many there are.
    :param both: whether the second client removes a message as well.
    :param workers: whether they are processes of one server.
    """

    def __init__(self, choose: Chooser, *, both: bool = True, workers: bool = False) -> None:
        self.now = 0.0
        self.storage = Storage(self)
        self.storage.put(LEASE, Lease(FREE, "first", 0).encoded())
        for number in range(2):
            self.storage.put(f"m/{DROP}/{number:032x}", b"x")
        self.late: list[Callable[[], Any]] = []
        self.servers = [
            Server(
                self,
                number,
                ahead,
                ServerProcess("both", number, [0, 0]) if workers else ServerProcess(str(number)),
            )
            for number, ahead in enumerate((0.0, AHEAD))
        ]
        self._workers = workers
        if not both:
            self.servers[1].acts.remove(self.servers[1].quits)
        self._choose = choose
        # Whether the clock of a server goes wrong.
        self._behind = False
        self._turn = 0
        self._pauses = 3
        #: What has happened, for people.
        self.story: list[str] = []

    def deletes(self, job: Job, keys: Sequence[str]) -> None:
        """Messages are about to go."""
        if list(keys) != job.server.marked:
            raise Violation("a message is removed that its user has not marked")
        if job.server.superseded:
            raise Violation("a session removes mail though another had the maildrop by then")

    def passes(self, seconds: float) -> None:
        """Time goes on."""
        self.now += seconds
        for server in self.servers:
            if server.dead:
                continue
            if server.slept is None:
                server.clock.advance(seconds)
            else:
                server.slept += seconds

    def _check(self) -> None:
        if not self._behind and sum(server.in_session for server in self.servers) > 1:
            raise Violation("two sessions have the maildrop")
        if any(server.locked_out for server in self.servers):
            raise Violation("the maildrop of a worker that is known to be dead is locked")

    # -- what may happen ------------------------------------------------------------------

    def _usual(self, server: Server) -> Iterator[Event]:
        """How a server goes on if nothing happens."""
        name = "AB"[server.number]
        if server.dead:
            return
        if server.news and server.slept is None:
            yield Event(f"{name} hears that the other is dead", server.hears)
        if server.slept is not None:
            yield Event(f"{name} goes on", lambda: self._awake(server, clock=True))
            return
        for job in server.jobs:
            if job.request is not None:
                yield Event(f"{name}: {job.kind}", lambda job=job: self._answer(job, job.request))  # type: ignore[misc]
        if server.may_act:
            yield Event(f"{name}'s client {server.acts[0].__name__}", server.act)

    def _events(self) -> Iterator[Event]:
        order = [self.servers[self._turn], self.servers[1 - self._turn]]
        going_on = False
        for server in order:
            for event in self._usual(server):
                going_on = True
                yield event
        if not going_on:
            return
        for server, name in zip(order, ("AB"[one.number] for one in order), strict=True):
            if server.dead:
                continue
            if self._workers and not order[1 - order.index(server)].dead and self._pauses:
                yield from self._deaths(server, name)
            if server.slept is not None:
                yield Event(
                    f"{name} goes on with its clock behind",
                    lambda s=server: self._awake(s, clock=False),  # type: ignore[misc]
                )
                continue
            job = next((job for job in server.jobs if job.request is not None), None)
            if job is not None and self._pauses:
                yield from self._faults(name, job)
            if server.acts and self._pauses:
                yield Event(f"{name} is stopped for 80 s", lambda s=server: self._stop(s, 80.0))  # type: ignore[misc]
        if self._pauses:
            for seconds in (50.0, 61.0):
                yield Event(f"{seconds:.0f} s pass", lambda seconds=seconds: self._pause(seconds))  # type: ignore[misc]
        for late in self.late:
            yield Event("a request that was late is carried out", lambda late=late: self._late(late))  # type: ignore[misc]

    def _deaths(self, server: Server, name: str) -> Iterator[Event]:
        # Stopped or not; a request of its own is not carried out any more, was, or will be.
        yield Event(f"{name} dies", lambda: self._dies(server))
        for job in server.jobs:
            request = job.request
            if request is not None and job.kind in ("swap", "delete"):
                yield Event(
                    f"{name} dies with its {job.kind} carried out",
                    lambda request=request: (_outcome(request), self._dies(server)),  # type: ignore[misc]
                )
                yield Event(
                    f"{name} dies with its {job.kind} on the way",
                    lambda request=request: (self.late.append(request), self._dies(server)),  # type: ignore[misc]
                )

    def _dies(self, server: Server) -> None:
        server.dies()
        self.servers[1 - server.number].news = True
        self._turn = 1 - server.number

    def _faults(self, name: str, job: Job) -> Iterator[Event]:
        request = job.request
        assert request is not None

        def nothing() -> Any:
            raise StoreTrouble(detail="nobody answers")

        def lost() -> Any:
            _outcome(request)
            return nothing

        def late() -> Any:
            self.late.append(request)
            return nothing

        def own_retry() -> Any:
            _outcome(request)

            def taken() -> Any:
                raise Taken

            return taken

        faults = {"fails": lambda: nothing, "is carried out, and its answer lost": lost}
        if job.kind in ("swap", "delete"):
            faults["comes later than its answer is waited for"] = late
        if job.kind == "swap":
            faults["is carried out twice"] = own_retry
        for what, fault in faults.items():
            yield Event(f"{name}: {job.kind} {what}", lambda fault=fault: self._go_on(job, fault()))  # type: ignore[misc]

    def _answer(self, job: Job, request: Callable[[], Any]) -> None:
        # Carried out here, so that a violation is told here.
        self._go_on(job, _outcome(request))

    def _go_on(self, job: Job, answer: Callable[[], Any]) -> None:
        job.go_on(answer)

    def _awake(self, server: Server, *, clock: bool) -> None:
        slept, server.slept = server.slept or 0.0, None
        self._behind = self._behind or not clock
        if clock:
            # Its timers come when the reactor is reached, and threads may be first.
            server.clock.rightNow += slept
            server.clock.callLater(0, lambda: None)

    def _stop(self, server: Server, seconds: float) -> None:
        self._pauses -= 1
        server.slept = 0.0
        self.passes(seconds)
        self._turn = 1 - server.number

    def _pause(self, seconds: float) -> None:
        self._pauses -= 1
        self.passes(seconds)

    def _late(self, late: Callable[[], Any]) -> None:
        self.late.remove(late)
        _outcome(late)

    # -- the whole ---------------------------------------------------------------------------

    def run(self) -> None:
        """From the beginning to the end.

        :raises Violation: if something happens that must not.
        """
        try:
            while (event := self._next()) is not None:
                self.story.append(event.name)
                if event.name[0] in "AB":
                    self._turn = "AB".index(event.name[0])
                event.happens()
                for server in self.servers:
                    server.jobs = [job for job in server.jobs if job.request is not None]
                self._check()
            self._ends()
        finally:
            for server in self.servers:
                for job in server.jobs:
                    while job.request is not None:
                        job.go_on(_dead)

    def _next(self) -> Event | None:
        events = self._events()
        usual = next(events, None)
        if usual is None:
            return None
        others: list[Event] = []

        def count() -> int:
            others.extend(events)
            return 1 + len(others)

        choice = self._choose(count)
        return others[choice - 1] if choice else usual

    def _ends(self) -> None:
        """All is well again: soon nobody has the lease."""
        for late in [*self.late]:
            self._late(late)
        for _ in range(14):
            self.passes(5.0)
            for server in self.servers:
                for job in [*server.jobs] if not server.dead else ():
                    while job.request is not None:
                        self._answer(job, job.request)
            self._check()
        lease, age = self.storage.lease
        alive = next(server for server in self.servers if not server.dead)
        if lease.state == HELD and not may_take(lease, age, Node("", alive.process)):
            raise Violation("nobody has the maildrop, and it is locked")


def _outcome(request: Callable[[], Any]) -> Callable[[], Any]:
    """Carry a request out; what its answer is."""
    try:
        value = request()
    except (Taken, NoSuchObject) as error:
        return _raiser(error)
    return lambda: value


def _raiser(error: Exception) -> Callable[[], Any]:
    def raises() -> Any:
        raise error

    return raises


def _dead() -> Any:
    raise StoreTrouble(detail="the end")


def every_schedule(most: int) -> Iterator[Chooser]:
    """Choosers for all that can happen if at most so many things are unusual, one after the other.

    :param most: of events that are not the first.
    """
    prefix: list[int] = []
    while True:
        # Choices made, and out of how many where there was one.
        taken: list[tuple[int, int]] = []
        left = [most]

        def choose(
            count: Callable[[], int],
            taken: list[tuple[int, int]] = taken,
            prefix: list[int] = prefix,
            left: list[int] = left,
        ) -> int:
            choice = prefix[len(taken)] if len(taken) < len(prefix) else 0
            taken.append((choice, count() if left[0] else 1))
            left[0] -= choice > 0
            return choice

        yield choose
        # The next one: the last choice that can be another.
        while taken:
            choice, count = taken.pop()
            if choice + 1 < count:
                prefix = [*(one for one, _ in taken), choice + 1]
                break
        else:
            return


def by_chance(seed: int, unusual: float = 0.25) -> Chooser:
    """A chooser that takes something unusual now and then.

    :param unusual: how probable that is.
    """
    chance = random.Random(seed)
    return lambda count: chance.randrange(count()) if chance.random() < unusual else 0
