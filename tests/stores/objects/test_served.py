"""Sessions of POP3 over mail in object storage."""

from __future__ import annotations

from twisted.cred.portal import Portal
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import LoginThrottle, MailboxRealm, MemoryAccounts, POP3Factory, PortalAuthenticator, limits
from pop3toy.events import Observers
from pop3toy.stores.objects.lease import FREE, TTL

from ...objects_world import Fault, Server, World, WorldMixin
from ...pop3_world import FakeSocket, Watcher

A, B, C = b"Subject: a\n\na\n", b"Subject: b\n\n.b\n", b"Subject: c\n\nc\n"


class ServedTests(WorldMixin, SynchronousTestCase):
    """Sessions of POP3 over such a store."""

    def setUp(self) -> None:
        self.world = World("ann")
        self.server = self.world.server()
        for message in (A, B, C):
            self.world.deliver("ann", message)
        self.watcher = Watcher()
        self.factory = self.serves(self.server)
        self.world.calls.clear()

    def serves(self, server: Server) -> POP3Factory:
        """POP3 on a server."""
        portal = Portal(MailboxRealm(server.store), [MemoryAccounts({"ann": "pass"})])
        return POP3Factory(
            server.clock,
            PortalAuthenticator(portal, throttle=LoginThrottle(server.clock)),
            observers=Observers(self.watcher),
        )

    def connect(self, factory: POP3Factory | None = None) -> FakeSocket:
        """A client."""
        socket = FakeSocket(self.server.clock)
        socket.connect((factory or self.factory).buildProtocol(None))  # type: ignore[arg-type]
        socket.client_reads_all()
        return socket

    def says(self, socket: FakeSocket, *lines: bytes) -> bytes:
        """All that comes back when threads are done."""
        for line in lines:
            socket.client_sends(line + b"\r\n")
        said = socket.client_reads_all()
        while self.server.run():
            said += socket.client_reads_all()
        self.world.run()
        return said + socket.client_reads_all()

    def log_in(self) -> FakeSocket:
        """A client that is in TRANSACTION."""
        socket = self.connect()
        self.assertIn(b"+OK maildrop has 3 messages", self.says(socket, b"USER ann", b"PASS pass"))
        return socket

    def test_session(self) -> None:
        """All in one piece: what is told and sent is what was delivered, and what is deleted is gone."""
        said = self.says(
            self.connect(), b"USER ann", b"PASS pass", b"LIST", b"RETR 2", b"TOP 1 0", b"DELE 1", b"QUIT"
        )
        self.assertIn(b"\r\n1 17\r\n2 18\r\n3 17\r\n.\r\n", said)
        self.assertIn(b"+OK 18 octets\r\nSubject: b\r\n\r\n..b\r\n.\r\n", said)
        self.assertTrue(said.endswith(b"+OK bye, 1 message removed\r\n"), said)
        self.assertEqual(2, len(self.world.names("ann")))

    def test_requests(self) -> None:
        """A poll is two GETs, a listing and two PUTs; each message is one GET; removing some, two more."""
        self.says(self.connect(), b"USER ann", b"PASS pass", b"STAT", b"LIST", b"UIDL", b"QUIT")
        self.assertEqual(["get", "get", "put", "list", "put"], self.world.calls)
        self.world.calls.clear()
        self.says(
            self.connect(), b"USER ann", b"PASS pass", b"UIDL", b"RETR 1", b"RETR 2", b"RETR 3", b"DELE 1",
            b"DELE 3", b"QUIT",
        )  # fmt: skip
        expected = ["get", "get", "put", "list", *["get_range"] * 3, "put", "delete", "put"]
        self.assertEqual(expected, self.world.calls)

    def test_next_session(self) -> None:
        """QUIT is answered when the lease is given back: the next login finds it free, on any server."""
        socket = self.log_in()
        socket.client_sends(b"QUIT\r\n")
        self.assertEqual(b"", socket.client_reads_all())
        self.world.run()
        self.assertEqual(b"+OK bye\r\n", socket.client_reads_all())
        self.wait(self.world.server().store.open("ann"))

    def test_in_use(self) -> None:
        """On another server the maildrop is locked."""
        self.log_in()
        other = self.connect(self.serves(self.world.server()))
        said = self.says(other, b"USER ann", b"PASS pass")
        for _ in range(20):
            self.world.passes(1)
            said += other.client_reads_all()
        self.assertIn(b"-ERR [IN-USE]", said)

    def test_waits_behind_one_that_vanished(self) -> None:
        """The user's next login waits while the lease of the last session is given back."""
        first = self.log_in()
        first.vanish()
        self.assertEqual([], self.watcher.ends)
        second = self.connect()
        for line in (b"USER ann", b"PASS pass"):
            second.client_sends(line + b"\r\n")
        # Longer than a lock is waited for: that one is ending.
        jobs, self.server.leases.jobs = self.server.leases.jobs, []
        for _ in range(20):
            self.server.clock.advance(0.5)
            self.world.run()
        self.assertEqual(b"+OK send PASS\r\n", second.client_reads_all())
        self.server.leases.jobs[:0] = jobs
        self.world.run()
        self.server.clock.advance(0)
        self.world.run()
        self.assertIn(b"+OK maildrop has 3 messages", second.client_reads_all())
        self.assertEqual(1, len(self.watcher.ends))

    def test_leaves_while_it_is_opened(self) -> None:
        """Who leaves while the maildrop is being opened leaves no lease behind."""
        socket = self.connect()
        socket.client_sends(b"USER ann\r\nPASS pass\r\n")
        self.world.fault("list", error=None, do=socket.vanish)
        self.world.run()
        self.assertEqual(0, self.factory.connections)
        self.assertEqual(["get", "get", "put", "list", "put"], self.world.calls)
        self.assertEqual(FREE, self.lease().state)

    def test_lost(self) -> None:
        """A session whose lease is another's removes nothing, and ends."""
        socket = self.log_in()
        self.says(socket, b"DELE 1")
        self.world.fault("put")
        with capturedLogs() as logs:
            self.world.passes(TTL)
        self.assertEqual(["the lease could not be renewed"], [event["why"] for event in logs])
        self.assertIsNotNone(socket.lost)
        self.assertEqual(["store"], [event.why for event in self.watcher.ends])
        self.assertEqual(3, len(self.world.names("ann")))

    def test_taken_over(self) -> None:
        """QUIT of a session whose lease was taken over unnoticed removes nothing, and says so."""
        socket = self.log_in()
        self.says(socket, b"DELE 1")
        self.server.stop()
        self.world.passes(TTL + 20)
        self.wait(self.world.server().store.open("ann"))
        # Its clock has stopped as well.
        self.server.stopped = None
        self.assertIn(b"-ERR [SYS/TEMP]", self.says(socket, b"QUIT"))
        self.assertEqual(3, len(self.world.names("ann")))

    def test_trouble(self) -> None:
        """Whatever fails is trouble that passes, and never an empty maildrop or half a message."""
        self.world.fault("list")
        refused = self.says(self.connect(), b"USER ann", b"PASS pass")
        self.assertIn(b"-ERR [SYS/TEMP]", refused)
        self.world.faults.clear()
        socket = self.log_in()
        self.world.faults = [Fault("get_range"), Fault("delete")]
        self.assertTrue(self.says(socket, b"RETR 1").startswith(b"-ERR [SYS/TEMP]"))
        self.assertIn(b"-ERR [SYS/TEMP]", self.says(socket, b"DELE 1", b"QUIT"))
        self.world.faults.clear()
        self.assertIn(b"+OK bye", self.says(self.log_in(), b"QUIT"))

    def test_slow_release(self) -> None:
        """QUIT is answered after a while even if the storage does not answer."""
        socket = self.log_in()
        socket.client_sends(b"QUIT\r\n")
        with capturedLogs() as logs:
            self.server.clock.advance(limits.RELEASE)
        self.assertEqual(1, len(logs))
        self.assertEqual(b"+OK bye\r\n", socket.client_reads_all())
        drained = self.factory.drain()
        self.assertNoResult(drained)
        self.world.run()
        self.successResultOf(drained)
        self.assertEqual(FREE, self.lease().state)
