"""Several servers over one object storage, for tests: threads, clocks and faults are the test's.

The storage is obstore's ``MemoryStore`` unless the test brings another.  Time passes when the test says so,
the storage's included, but for a storage that the test brings, which has a real clock.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from obstore.store import MemoryStore
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from pop3toy.errors import InUse, StoreTrouble
from pop3toy.mail.octets import Encoder
from pop3toy.stores.objects.engine import Engine, Found, Listed, Tag
from pop3toy.stores.objects.lease import FREE, Lease, Node
from pop3toy.stores.objects.records import (
    UserRecord,
    lease_key,
    message_key,
    messages_prefix,
    new_name,
    user_key,
)
from pop3toy.stores.objects.store import ObjectStore
from pop3toy.stores.objects.users import Users
from pop3toy.stores.server_process import ServerProcess

from .store_contract import StoreContract
from .store_world import Threads

__all__ = [
    "Fault",
    "ObjectStoreContract",
    "Server",
    "World",
    "WorldEngine",
    "WorldEngines",
    "WorldMixin",
    "stored",
]

#: When the storage's clock begins.
EPOCH = 1_800_000_000.0


class Fault(NamedTuple):
    """What happens to a request."""

    #: Of obstore: ``get``, ``get_range``, ``put``, ``list`` or ``delete``; empty for any.
    function: str
    #: What its key begins with.
    prefix: str = ""
    #: Whether it is carried out first.
    after: bool = False
    #: What is raised; nothing, if the test wants but to do something at that moment.
    error: Callable[[], BaseException] | None = lambda: StoreTrouble(detail="nobody answers")
    #: What is done at that moment, as by others.
    do: Callable[[], object] = lambda: None
    #: Whether it happens once.
    once: bool = False
    #: To which call of all that the world has seen; 0 for any.
    at: int = 0


class WorldEngine(Engine):
    """An engine that does what the world says, and counts."""

    def __init__(self, world: World, bucket: str) -> None:
        super().__init__(lambda: world.connect(bucket), world.tag, at_once=world.at_once)
        self._world = world

    def call(self, function: str, *args: Any, **named: Any) -> Any:
        """See :meth:`Engine.call`."""
        world = self._world
        keys: list[str] = [*args[0]] if isinstance(args[0], list | tuple) else [args[0]]
        world.calls.append(function)
        world.requests.append((function, *keys))
        number = len(world.calls)
        fault = next(
            (
                one
                for one in world.faults
                if one.function in ("", function) and keys[0].startswith(one.prefix) and one.at in (0, number)
            ),
            None,
        )
        if fault is None:
            return self._carry_out(function, keys, *args, **named)
        if fault.once:
            world.faults.remove(fault)
        result = self._carry_out(function, keys, *args, **named) if fault.after else None
        fault.do()
        if fault.error is not None:
            raise fault.error()
        return result if fault.after else self._carry_out(function, keys, *args, **named)

    def _carry_out(self, function: str, keys: list[str], *args: Any, **named: Any) -> Any:
        result = super().call(function, *args, **named)
        if function == "put":
            self._world.written[keys[0]] = self._world.now
        return result

    def get(self, key: str) -> Found:
        """See :meth:`Engine.get`."""
        found = super().get(key)
        return found._replace(modified=self._world.modified(key, found.modified))

    def each(self, prefix: str) -> Iterator[Listed]:
        """See :meth:`Engine.each`."""
        for one in super().each(prefix):
            yield one._replace(modified=self._world.modified(f"{prefix}/{one.name}", one.modified))


class WorldEngines:
    """What ``Engines`` is for the rest, as one server has it.

    :param ahead: seconds by which the server takes the storage's clock to be ahead of what it is.
    """

    def __init__(self, world: World, ahead: float = 0.0, buckets: tuple[str, ...] = ()) -> None:
        self._world = world
        self.ahead = ahead
        self.buckets = buckets
        self.learnt = 0

    @property
    def main(self) -> Engine:
        """Where records are."""
        return self.of("")

    def of(self, bucket: str) -> Engine:
        """That of a bucket."""
        return self._world.engine(bucket)

    def wall(self) -> float:
        """The storage's time of day."""
        return self._world.now + self.ahead

    def learn_time(self) -> None:
        """It is known."""
        self.learnt += 1


class Server:
    """One of the servers; its threads work when the world runs.

    :ivar hangs: its requests get no answer: its threads do nothing.
    """

    def __init__(self, world: World, name: str, process: ServerProcess, ahead: float) -> None:
        self.clock = Clock()
        self.threads, self.leases = Threads(), Threads()
        self.engines = WorldEngines(world, ahead)
        self.users = Users(self.engines, clock=self.clock.seconds)
        self.hangs = False
        #: Seconds for which it has been stopped, as by SIGSTOP; ``None`` while it goes on.
        self.stopped: float | None = None
        self.store = ObjectStore(
            self.engines,
            self.users,
            self.clock,
            Node(name, process),
            run_for=lambda user: self.threads,
            leases=lambda bucket: self.leases,
        )

    def stop(self) -> None:
        """SIGSTOP."""
        self.stopped = 0.0

    def go_on(self) -> None:
        """SIGCONT: it learns what time it is."""
        slept, self.stopped = self.stopped or 0.0, None
        self.clock.advance(slept)

    def run(self) -> int:
        """Let its threads work; how many jobs they did."""
        if self.hangs or self.stopped is not None:
            return 0
        return self.threads.run() + self.leases.run()


class World:
    """An object storage, and servers that share it.

    :param users: who have a maildrop.
    :param connect: makes obstore's store of a bucket; one in memory unless given.
    :param tag: as for :class:`Engine`.
    :param at_once: requests of one removal of very many; with one they are in order.
    :ivar faults: what happens to requests; the first that fits counts.
    :ivar calls: the functions of obstore that were called.
    :ivar requests: the same with their keys.
    """

    def __init__(
        self,
        *users: str,
        connect: Callable[[str], Any] | None = None,
        tag: Callable[[Tag], Tag] = lambda tag: tag,
        at_once: int = 1,
    ) -> None:
        self.at_once = at_once
        self._real = connect is not None
        self.connect = connect if connect is not None else lambda bucket: MemoryStore()
        self.tag = tag
        self._passed = 0.0
        self.written: dict[str, float] = {}
        self.faults: list[Fault] = []
        self.calls: list[str] = []
        self.requests: list[tuple[str, ...]] = []
        self.servers: list[Server] = []
        self._engines: dict[str, Engine] = {}
        self._micros = 0
        for user in users:
            Users(WorldEngines(self)).make(user)
        self.calls.clear()
        self.requests.clear()

    @property
    def now(self) -> float:
        """The storage's time of day."""
        return (time.time() if self._real else EPOCH) + self._passed

    def modified(self, key: str, really: float) -> float:
        """When an object was written, by the storage's clock."""
        return self.written.get(key, really)

    def engine(self, bucket: str = "") -> Engine:
        """The engine of a bucket."""
        if bucket not in self._engines:
            self._engines[bucket] = WorldEngine(self, bucket)
        return self._engines[bucket]

    def server(
        self,
        name: str = "",
        boot: str = "",
        *,
        ahead: float = 0.0,
        process: ServerProcess | None = None,
    ) -> Server:
        """One more server.

        :param name: of its node.
        :param boot: another one each time that it is started.
        :param ahead: seconds by which it is wrong about the storage's clock.
        :param process: which of the processes of this start it is; the only one unless given.
        """
        server = Server(self, name, process or ServerProcess(boot or secrets.token_hex(4)), ahead)
        self.servers.append(server)
        return server

    def run(self) -> None:
        """Let all threads work until there is nothing to do."""
        while sum(server.run() for server in self.servers):
            pass

    def wait(self, result: Any) -> Any:
        """The outcome of a call, after the work that it waits for; a failure is raised."""
        self.run()
        return Threads().wait(result)

    def passes(self, seconds: float) -> None:
        """Time goes on, and what it brings is done, second by second."""
        for _ in range(round(seconds)):
            self._passed += 1.0
            for server in self.servers:
                if server.stopped is None:
                    server.clock.advance(1.0)
                else:
                    server.stopped += 1.0
            self.run()

    def fault(self, *args: Any, **named: Any) -> None:
        """Something happens to requests from now on; see :class:`Fault`."""
        self.faults.append(Fault(*args, **named))

    # -- what others do -----------------------------------------------------------------

    def record(self, user: str) -> UserRecord:
        """The record of a user."""
        return UserRecord.decoded(self.engine().get(user_key(user)).body, user)

    def deliver(self, user: str, message: bytes, name: str = "") -> str:
        """New mail; the name of its object."""
        self._micros = max(int(self.now * 1e6), self._micros + 1)
        name = name or new_name(self._micros, secrets.token_hex(8))
        record = self.record(user)
        self.engine(record.bucket).create(message_key(record.drop, name), stored(message))
        return name

    def names(self, user: str) -> list[str]:
        """The names of the messages of a user."""
        record = self.record(user)
        return [one.name for one in self.engine(record.bucket).list(messages_prefix(record.drop))]

    def take_away(self, user: str, name: str) -> None:
        """A message goes behind the lock."""
        record = self.record(user)
        self.engine(record.bucket).delete([message_key(record.drop, name)])


def stored(message: bytes) -> bytes:
    """A message as it is kept."""
    encoder = Encoder(stuffed=False)
    return encoder.feed(message) + encoder.finish()


class WorldMixin:
    """Each answer comes when a thread has been there."""

    USER = "ann"
    world: World
    failureResultOf: Any
    assertEqual: Any

    def wait(self, result: Any) -> Any:
        """The outcome of a call, when all threads have done their work."""
        return self.world.wait(result)

    def fails(self, kind: Any, function: Any, *args: Any) -> Any:
        """What a call raises, or fails with when all threads have done their work."""
        failing = maybeDeferred(function, *args)
        self.world.run()
        return self.failureResultOf(failing, kind).value

    def lease(self) -> Lease:
        """What is written of the maildrop's lease."""
        found = self.world.engine().get(lease_key(self.world.record(self.USER).drop))
        return Lease.decoded(found.body)


class ObjectStoreContract(WorldMixin, StoreContract):
    """The contract, over any object storage: a class that mixes it in says which one."""

    def new_world(self, *users: str) -> World:
        """An empty storage, and users with maildrops in it."""
        raise NotImplementedError

    def store(self, messages: Sequence[bytes]) -> ObjectStore:
        """See :class:`StoreContract`."""
        self.world = self.new_world(self.USER)
        for message in messages:
            self.world.deliver(self.USER, message)
        return self.world.server().store

    def arrive(self, store: ObjectStore, message: bytes) -> None:
        """See :class:`StoreContract`."""
        self.world.passes(1)
        self.world.deliver(self.USER, message)

    def time_of_day(self) -> float:
        """See :class:`StoreContract`."""
        return self.world.now

    def take_away(self, store: ObjectStore, index: int) -> None:
        """See :class:`StoreContract`."""
        self.world.take_away(self.USER, self.world.names(self.USER)[index])

    def test_lease_is_freed(self) -> None:
        """On another server the maildrop is free as soon as it was given back here."""
        store = self.store([b"Subject: a\n\na\n"])
        other = self.world.server().store
        mailbox = self.open(store)
        self.fails(InUse, other.open, self.USER)
        self.wait(mailbox.remove([mailbox.entries[0].uid]))
        self.wait(mailbox.release())
        self.assertEqual(FREE, self.lease().state)
        self.assertEqual([], list(self.open(other).entries))
