"""``pop3toy.server``: a whole server within another program, which it leaves as it was."""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import threading
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.cred.checkers import ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.portal import Portal
from twisted.internet import defer, threads
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer, implementer_only

from pop3toy import (
    TLS,
    CannotStart,
    IMailbox,
    IMailStore,
    IObserver,
    IStoreAdmin,
    Limits,
    MailboxRealm,
    Maildirs,
    MemoryAccounts,
    MemoryStore,
    MemoryTranscript,
    PortalAuthenticator,
    Settings,
    events,
    server,
)
from pop3toy.interfaces import Channel, IDelivery, IGate, IServerControl, SessionRecord
from pop3toy.run.service import ListeningService, Server

from ..corpus import make_maildir
from ..memory_world import LOOPBACK, MemoryCase, MemoryReactor, StringClient
from ..strictclient import StrictClient
from ..tls_world import Wire

STRANGER = IPv4Address("TCP", "192.0.2.7", 50110)
#: Seconds after which a thread that does not answer is a failed test.
PATIENCE = 30.0
USERS = (("ann", "secret"),)
MAIL = {"ann": [b"Subject: Hello\n\nHello Ann!\n"]}


@implementer(IObserver)
class Guard:
    """Remembers who came in, who did not, and who was turned away."""

    wants = (events.LoggedIn, events.LoginFailed, events.ConnectionRejected)

    def __init__(self) -> None:
        self.told: list[str] = []

    def observe(self, event: Any) -> None:
        if isinstance(event, events.ConnectionRejected):
            self.told.append("turned away")
        else:
            how = "in" if isinstance(event, events.LoggedIn) else "failed"
            self.told.append(f"{how} {event.user}")


class DefaultTests(MemoryCase):
    """What it has without a word: what the command has."""

    def test_toy(self) -> None:
        """Without settings of a store it is the toy."""
        self.started(Settings(port=1, transcript="off"))
        self.assertIn(b"+OK maildrop has 1 message", self.talk(1, b"USER user", b"PASS pass"))

    def test_toy_is_patient(self) -> None:
        """Who types a mail into the toy has ten minutes for a line; elsewhere five (RFC 5321)."""
        real: dict[str, Any] = {"store": MemoryStore(MAIL)}
        none: dict[str, Any] = {}
        for settings, more, seconds in (
            (Settings(port=1, smtp_port=2, transcript="off"), none, 600),
            (Settings(port=1, smtp_port=2, users=USERS), real, 300),
        ):
            self.setUp()
            service = self.started(settings, **more)
            client = StringClient(self.reactor.factory_at(2))
            client.say(b"EHLO me")
            self.reactor.pump([1.0] * (seconds - 1))
            self.assertNotIn(b"421", client.read(), service)
            self.reactor.pump([1.0] * 2)
            self.assertIn(b"421 4.4.2", client.read())
            client.leave()

    def test_penalties_and_log(self) -> None:
        """Whoever guesses waits, and each guess is a line of the log; a login is one, too."""
        self.started(Settings(port=1, users=USERS), store=MemoryStore(MAIL))
        with capturedLogs() as logged:
            said = b"".join(self.talk(1, *[b"USER ann", b"PASS wrong"] * 3, peer=LOOPBACK) for _ in range(4))
            # Three are free; the others wait, and the clock stands still.
            self.assertEqual(said.count(b"-ERR [AUTH]"), 3)
            self.reactor.advance(60)
            self.talk(1, b"USER ann", b"PASS secret")
            self.reactor.advance(60)
        lines = [formatEvent(event) or "" for event in logged]
        self.assertTrue([line for line in lines if line.startswith("login failed: ")], lines)

    def test_limits(self) -> None:
        """Connections of one address are limited, by the defaults and by ``Limits``."""
        for limits, peer, most in (
            (Limits(), STRANGER, 64),
            (Limits(max_per_address=3), STRANGER, 3),
            (Limits(max_per_address=3), LOOPBACK, 3),
        ):
            self.reactor = MemoryReactor()
            service = server(
                self.reactor, Settings(port=1, users=USERS, limits=limits), store=MemoryStore(MAIL)
            )
            service.startService()
            clients = [StringClient(self.reactor.factory_at(1), peer) for _ in range(most + 1)]
            for client in clients:
                self.addCleanup(client.leave)
            self.assertEqual([one.greeting[:3] for one in clients], [b"+OK"] * most + [b"-ER"])

    def test_no_password_from_a_network(self) -> None:
        """From a network no password is taken without TLS, and the log says so at the start."""
        with capturedLogs() as logged:
            self.started(Settings(port=1, interface="0.0.0.0", users=USERS), store=MemoryStore(MAIL))
        self.assertIn(b"-ERR", self.talk(1, b"USER ann", peer=STRANGER))
        self.assertTrue([e for e in logged if "--certificate" in (formatEvent(e) or "")])

    def test_nothing_before_the_start(self) -> None:
        """Making it opens no port and starts no thread; only the start does."""
        before = threading.active_count()
        service = server(self.reactor, Settings(port=1, users=USERS), store=MemoryStore(MAIL))
        self.assertEqual((self.reactor.tcpServers, service.listening), ([], []))
        self.assertEqual(threading.active_count(), before)


class GivenTests(MemoryCase):
    """Stores, checkers and observers of the program's own."""

    def test_checkers(self) -> None:
        """Twisted's own checker works as it is, besides the accounts of the settings, and stays as it was."""
        checker = InMemoryUsernamePasswordDatabaseDontUse(bob="x")
        users = dict(checker.users)
        store = MemoryStore(create=True)
        self.started(Settings(port=1, users=USERS), store=store, checkers=[checker])
        self.assertIn(b"+OK maildrop", self.talk(1, b"USER bob", b"PASS x"))
        self.assertIn(b"+OK maildrop", self.talk(1, b"USER ann", b"PASS secret"))
        self.assertIn(b"-ERR [AUTH]", self.talk(1, b"USER bob", b"PASS secret"))
        self.assertEqual(checker.users, users)

    def test_checker_over_maildirs(self) -> None:
        """A checker is enough for somebody to log in, also where the settings name the store."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        settings = Settings(port=1, store=Maildirs(f"{folder}/{{user}}", create=True))
        self.assertRaises(CannotStart, server, self.reactor, settings)
        self.started(settings, checkers=[MemoryAccounts({"ann": "x"})])
        self.assertIn(b"+OK maildrop", self.talk(1, b"USER ann", b"PASS x", results=1))

    def test_observers(self) -> None:
        """A transcript and others are told, besides the log, and of submission's logins as well."""
        transcript, guard = MemoryTranscript(), Guard()
        self.started(
            Settings(port=1, submission_port=2, users=USERS),
            store=MemoryStore(MAIL),
            observers=[transcript, guard],
        )
        with capturedLogs() as logged:
            self.talk(1, b"USER ann", b"PASS wrong", b"USER ann", b"PASS secret", b"QUIT")
            self.talk(2, b"EHLO me", b"AUTH PLAIN AGFubgB3cm9uZw==")
        self.assertEqual(guard.told, ["failed ann", "in ann", "failed ann"])
        lines = "\n".join(transcript.lines)
        self.assertIn("[1] C: PASS ****", lines)
        self.assertIn("[2] C: EHLO me", lines)
        self.assertNotIn("secret", lines)
        said = [formatEvent(event) or "" for event in logged]
        self.assertEqual(len([one for one in said if one.startswith(("login: ", "login failed: "))]), 3)

    def test_several_observers(self) -> None:
        """Any number of them is told, in their order; one that fails is logged, and keeps nobody from it."""

        @implementer(IObserver)
        class Broken:
            wants = (events.LoggedIn,)

            def observe(self, event: Any) -> None:
                raise ZeroDivisionError

        first, second, guard = MemoryTranscript(), MemoryTranscript(), Guard()
        self.started(
            Settings(port=1, users=USERS), store=MemoryStore(MAIL), observers=[first, Broken(), second, guard]
        )
        self.assertIn(b"+OK bye", self.talk(1, b"USER ann", b"PASS secret", b"QUIT"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(guard.told, ["in ann"])
        self.assertEqual(first.lines, second.lines)
        self.assertTrue(first.lines)

    def test_with_a_transcript_of_the_settings(self) -> None:
        """A transcript file that the settings name is written all the same."""
        path = Path(self.mktemp()).absolute()
        transcript = MemoryTranscript()
        service = server(
            self.reactor,
            Settings(port=1, users=USERS, transcript=str(path)),
            store=MemoryStore(MAIL),
            observers=[transcript],
        )
        for times in (1, 2):
            service.startService()
            [factory] = [one[1] for one in self.reactor.tcpServers]
            # As a port does when it is opened.
            factory.doStart()
            self.talk(1, b"USER ann", b"QUIT")
            stopping = service.stopService()
            while not stopping.called:
                self.reactor.advance(0.05)
            self.assertEqual(path.read_text().splitlines(), list(transcript.lines))
            self.assertEqual(path.read_text().count("C: USER ann"), times)
            factory.doStop()
            self.reactor.tcpServers.clear()

    def test_mail_comes_in(self) -> None:
        """Into a store that takes mail, for users of the settings and of a checker that can tell."""
        store = MemoryStore(create=True)
        self.started(
            Settings(port=1, smtp_port=2, users=USERS),
            store=store,
            checkers=[MemoryAccounts({"bob": "x"})],
        )
        letter = [b"DATA", b"Subject: x", b"", b"x", b"."]
        for user, code in (("ann", b"250"), ("bob", b"250"), ("carl", b"550")):
            to = b"RCPT TO:<%b@localhost>" % user.encode()
            said = self.talk(2, b"HELO me", b"MAIL FROM:<me@example.org>", to, *letter)
            self.assertEqual(said.splitlines()[3][:3], code, said)
            self.assertEqual(len(store.messages(user)), int(code == b"250"))

    def test_store_without_a_way_in(self) -> None:
        """Ports for mail need a store that takes some: told when the server is made."""

        @implementer(IMailStore)
        class Closed:
            def open(self, user: str) -> IMailbox:
                raise NotImplementedError

        why = self.assertRaises(
            CannotStart, server, self.reactor, Settings(port=1, smtp_port=2, users=USERS), store=Closed()
        )
        self.assertIn("IDelivery", str(why))

    def test_wrong_kinds(self) -> None:
        """A store, checker or observer without its interface is refused at once, with the class's name."""
        for more in ({"store": object()}, {"checkers": [object()]}, {"observers": [object()]}):
            why = self.assertRaises(TypeError, server, self.reactor, Settings(users=USERS), **more)
            self.assertIn("object provides no I", str(why))
            self.assertIn("implementer", str(why))


@implementer(IGate)
class Shouting:
    """A gate that makes NOOP of every STAT, and QUIT of every DATA."""

    def command(self, record: SessionRecord, line: bytes) -> bytes:
        return {b"STAT": b"NOOP", b"DATA": b"QUIT"}.get(line, line)

    def reply(self, record: SessionRecord, line: bytes, reply: Any) -> Any:
        return reply.replace(b"goodbye", b"GOODBYE") if isinstance(reply, bytes) else reply


class ControlTests(MemoryCase):
    """Who acts on a running server: by its control, and by a gate."""

    def setUp(self) -> None:
        super().setUp()
        self.store = MemoryStore({"ann": MAIL["ann"]})
        self.service = server(
            self.reactor, Settings(port=1, smtp_port=2, users=USERS), store=self.store, gate=Shouting()
        )
        self.service.startService()
        self.control = self.service.control

    def tearDown(self) -> None:
        stopped = self.service.stopService()
        for port in self.reactor.tcpServers:
            for connection in port[1].all_connections():  # type: ignore[attr-defined]
                connection.connectionLost()
        self.reactor.advance(1)
        self.successResultOf(stopped)

    def client(self, port: int, *lines: bytes) -> tuple[Any, StringTransport]:
        """A client that stays."""
        [factory] = [one[1] for one in self.reactor.tcpServers if one[0] == port]
        protocol = factory.buildProtocol(LOOPBACK)
        transport = StringTransport(peerAddress=LOOPBACK, lenient=True)
        transport.abortConnection = transport.loseConnection
        protocol.makeConnection(transport)
        for line in lines:
            protocol.dataReceived(line + b"\r\n")
        return protocol, transport

    def test_sessions(self) -> None:
        """Whoever is connected is told, with what is known of it, whatever it speaks."""
        self.assertTrue(IServerControl.providedBy(self.control))
        self.client(1, b"USER ann", b"PASS secret", b"RETR 1")
        self.client(2, b"EHLO me")
        self.reactor.advance(2)
        first, second = self.control.sessions()
        self.assertEqual(
            (first.session, first.protocol, first.user, first.mechanism), (1, "POP3", "ann", "USER")
        )
        self.assertEqual(
            (first.state, first.retrieved, first.seconds, first.idle), ("TRANSACTION", 1, 2.0, 2.0)
        )
        self.assertEqual(first.received, len(b"USER ann\r\nPASS secret\r\nRETR 1\r\n"))
        self.assertEqual(
            (second.session, second.protocol, second.user, second.state), (2, "SMTP", None, "ready")
        )
        self.assertEqual(second.channel.host, "127.0.0.1")

    def test_close(self) -> None:
        """One is ended, the others stay; SMTP hears why; one that is gone cannot be ended."""
        _, one = self.client(1, b"USER ann", b"PASS secret", b"DELE 1")
        protocol, other = self.client(2, b"EHLO me")
        self.assertTrue(self.control.close(2))
        self.assertIn(b"421 4.3.2 closed by the administrator", other.value())
        self.assertEqual((one.disconnecting, other.disconnecting), (False, True))
        protocol.connectionLost()
        self.assertEqual([session.session for session in self.control.sessions()], [1])
        self.assertFalse(self.control.close(2))
        self.assertTrue(self.control.close(1))
        self.assertEqual(len(self.store.messages("ann")), 1, "no UPDATE")

    def test_drain(self) -> None:
        """Strangers go, newcomers are turned away, a busy user may finish; then it is told."""
        user, mine = self.client(1, b"USER ann", b"PASS secret")
        stranger, other = self.client(1)
        drained = self.control.drain()
        self.assertEqual((mine.disconnecting, other.disconnecting), (False, True))
        stranger.connectionLost()
        late, refused = self.client(1)
        self.assertIn(b"the server is stopping", refused.value())
        late.connectionLost()
        self.assertNoResult(drained)
        user.dataReceived(b"QUIT\r\n")
        user.connectionLost()
        self.reactor.advance(1)
        self.successResultOf(drained)

    def test_drain_with_notice(self) -> None:
        """With a ``stop_delay`` it is told at once, and newcomers are served until that has passed."""
        limits = Limits(stop_delay=5)
        service = server(self.reactor, Settings(port=3, users=USERS, limits=limits), store=self.store)
        service.startService()
        control = service.control
        control.drain()
        control.resume()
        self.assertFalse(control.draining)
        drained = control.drain()
        self.assertTrue(control.draining)
        self.reactor.advance(4.9)
        early, mine = self.client(3)
        self.assertIn(b"+OK", mine.value())
        self.assertFalse(mine.disconnecting)
        self.reactor.advance(0.1)
        self.assertTrue(mine.disconnecting)
        early.connectionLost()
        self.successResultOf(drained)
        late, refused = self.client(3)
        self.assertIn(b"the server is stopping", refused.value())
        late.connectionLost()
        self.successResultOf(service.stopService())

    def test_mailboxes(self) -> None:
        """The store as an administrator sees it."""
        self.assertIs(self.control.mailboxes, self.store)

    def test_gate(self) -> None:
        """A gate stands before all ports; without an interface it is refused."""
        _, one = self.client(1, b"USER ann", b"PASS secret")
        one.clear()
        self.client(2)
        said = self.talk(1, b"STAT")
        self.assertNotIn(b"-ERR STAT is for after login", said)
        self.assertIn(b"-ERR NOOP is for after login", said)
        self.assertIn(b"221 2.0.0 GOODBYE", self.talk(2, b"EHLO me", b"DATA"))
        why = self.assertRaises(TypeError, server, self.reactor, Settings(), gate=object())
        self.assertIn("provides no IGate", str(why))


@implementer(ICredentialsChecker)
class Checker:
    """A checker that tells nothing of its users."""

    def __init__(self, checker: Any) -> None:
        self.credentialInterfaces = checker.credentialInterfaces
        self.requestAvatarId = checker.requestAvatarId


class RefusedTests(MemoryCase):
    """What cannot be is CannotStart with one sentence, before anything is open."""

    def test_settings(self) -> None:
        """Nobody can log in, files that are not there, several processes, the toy with accounts."""
        folder = Path(self.mktemp()).absolute()
        (folder / "mail").mkdir(parents=True)
        store = MemoryStore(MAIL)
        for settings, more, says in (
            (Settings(), {"store": store}, "who may log in?"),
            (Settings(accounts="/nowhere/accounts"), {"store": store}, "--accounts: there is no file"),
            (Settings(users=USERS, workers=2), {"store": store}, "--workers is for twistd pop3toy"),
            (Settings(accounts="/nowhere/accounts"), {}, "--accounts needs --maildir"),
            (Settings(users=USERS, store=Maildirs("/nowhere/{user}")), {}, "there is no folder /nowhere"),
            (
                Settings(users=USERS, tls=TLS(certificate="/nowhere/c")),
                {"store": store},
                "/nowhere/c: no such",
            ),
            (Settings(users=USERS, transcript="/nowhere/t"), {"store": store}, "cannot write to /nowhere/t"),
            (Settings(users=USERS, listen=("nonsense:1",)), {"store": store}, "--listen nonsense:1: "),
        ):
            why = self.assertRaises(CannotStart, server, self.reactor, settings, **more)
            self.assertIn(says, str(why))
            self.assertEqual(len(str(why).splitlines()), 1)
        self.assertEqual(self.reactor.tcpServers, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class PortalTests(SynchronousTestCase):
    """A portal is its caller's."""

    def test_stays_as_it_was(self) -> None:
        """An authenticator registers nothing in it, and puts nothing in the place of its checkers."""
        checker = InMemoryUsernamePasswordDatabaseDontUse(ann="x")
        portal = Portal(MailboxRealm(MemoryStore(MAIL)), [checker])
        before = dict(portal.checkers)
        for _ in range(2):
            authenticator = PortalAuthenticator(portal)
            record = SessionRecord(1, Channel("127.0.0.1", local=True))
            login: Any = authenticator.password(b"ann", b"x", record)
            self.assertEqual(login.user, "ann")
            login.logout()
        self.assertEqual(portal.checkers, before)
        self.assertIs(portal.checkers[IUsernamePassword], checker)
        # What else the caller does with it goes on as before.
        self.failureResultOf(portal.login(UsernamePassword(b"ann", b"wrong"), None, IMailbox))


class Real(TestCase):
    """Servers on real sockets, in the process of the tests."""

    timeout = 60

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor

    def serve(self, settings: Settings, **more: Any) -> Server:
        """A server that is stopped when the test ends."""
        service = server(self.reactor, settings, **more)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    def memory(self, **settings: Any) -> Server:
        """One with mail in memory."""
        return self.serve(Settings(port=0, users=USERS, **settings), store=MemoryStore(MAIL))

    def visit(self, port: int) -> Deferred[int]:
        """Log in, fetch, leave; how many messages there were."""

        def blocking() -> int:
            with StrictClient(port) as client:
                client.login(b"ann", b"secret")
                messages = client.stat().messages
                for number in range(1, messages + 1):
                    client.retr(number)
                client.quit()
                return messages

        visiting: Deferred[int] = threads.deferToThread(blocking)
        return visiting

    def taken(self) -> int:
        """A port that somebody else has."""
        other = socket.socket()
        self.addCleanup(other.close)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port: int = other.getsockname()[1]
        return port


def open_sockets() -> set[str]:
    """The listening sockets of this process."""
    listening = {
        line.split()[9]
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue
        if target.startswith("socket:[") and target[8:-1] in listening:
            found.add(target)
    return found


class ServeTests(Real):
    """It serves, says where, stops, and starts again."""

    @defer.inlineCallbacks
    def test_which_ports(self) -> Any:
        """Port 0 is any free one; which it got is in ``listening``, POP3 first, until the stop."""
        service = self.serve(
            Settings(port=0, smtp_port=0, submission_port=0, users=USERS), store=MemoryStore(MAIL)
        )
        self.assertEqual(
            [(one.protocol, one.tls) for one in service.listening],
            [("POP3", False), ("SMTP", False), ("submission", False)],
        )
        self.assertEqual({one.address.host for one in service.listening}, {"127.0.0.1"})
        ports = [one.address.port for one in service.listening]
        self.assertEqual((len(set(ports)), 0 in ports), (3, False))
        self.assertEqual((yield self.visit(ports[0])), 1)
        yield service.stopService()
        self.assertEqual(service.listening, [])

    @defer.inlineCallbacks
    def test_start_again(self) -> Any:
        """A server that was stopped serves as before when it is started again, by every protocol."""
        folder = Path(self.mktemp()).absolute()
        (make_maildir(folder / "ann") / "new" / "1.mail").write_bytes(b"Subject: x\n\nx\n")
        before = open_sockets()
        service = self.serve(Settings(port=0, smtp_port=0, store=Maildirs(f"{folder}/{{user}}"), users=USERS))
        for _ in range(3):
            pop3, smtp = (one.address.port for one in service.listening)
            self.assertEqual((yield self.visit(pop3)), 1)
            greeting, helo = yield threads.deferToThread(self.hello, smtp)
            self.assertEqual((greeting[:3], helo[:3]), (b"220", b"250"))
            yield service.stopService()
            self.assertEqual(open_sockets(), before)
            self.assertEqual(self.pools(), 0)
            service.startService()

    def pools(self) -> int:
        """How many threads of servers there are, but for that of the clock."""
        return sum(
            one.name.startswith("pop3toy-") and one.name != "pop3toy-clock" for one in threading.enumerate()
        )

    def hello(self, port: int) -> tuple[bytes, bytes]:
        """The greeting of an SMTP server, and its answer to HELO."""
        with Wire(port) as client:
            return client.line(), client.ask(b"HELO me")

    @defer.inlineCallbacks
    def test_mail_for_whom_the_store_knows(self) -> Any:
        """Where a checker cannot tell who there is, a store that can (IStoreAdmin) is asked, in a thread."""

        @implementer(IStoreAdmin)
        class Knows(MemoryStore):
            def exists(self, user: str) -> bool:
                asked.append(threading.current_thread())
                return user == "carl"

        @implementer_only(IMailStore, IDelivery)
        class Silent(MemoryStore):
            """One that is asked nothing."""

        asked: list[threading.Thread] = []
        checker = Checker(InMemoryUsernamePasswordDatabaseDontUse())
        for kind, code in ((Knows, b"250"), (Silent, b"550")):
            service = self.serve(Settings(port=0, smtp_port=0), store=kind({"carl": []}), checkers=[checker])
            smtp = service.listening[1].address.port
            said = yield threads.deferToThread(self.recipient, smtp, b"carl@localhost")
            self.assertEqual(said[:3], code)
            yield service.stopService()
        self.assertNotIn(threading.current_thread(), asked)
        self.assertTrue(asked)

    def recipient(self, port: int, address: bytes) -> bytes:
        """What an SMTP server says to a recipient."""
        with Wire(port) as client:
            client.line()
            client.ask(b"HELO me")
            client.ask(b"MAIL FROM:<me@example.org>")
            return client.ask(b"RCPT TO:<%b>" % address)

    @defer.inlineCallbacks
    def test_start_while_stopping(self) -> Any:
        """A start while it is still stopping is refused with a sentence, and does not disturb the stop."""
        service = self.memory()
        stopping = service.stopService()
        self.assertIn("still stopping", str(self.assertRaises(CannotStart, service.startService)))
        yield stopping
        service.startService()
        self.assertEqual((yield self.visit(service.listening[0].address.port)), 1)

    @defer.inlineCallbacks
    def test_two_servers(self) -> Any:
        """Two servers in one process have nothing in common: users, mail, limits, sessions."""
        first = self.memory()
        second = self.serve(
            Settings(port=0, users=(("ann", "secret"),), limits=Limits(max_per_address=1)),
            store=MemoryStore({"ann": [b"1\n", b"2\n"]}),
        )
        ports = [one.listening[0].address.port for one in (first, second)]
        found = yield defer.gatherResults([self.visit(port) for port in ports])
        self.assertEqual(found, [1, 2])
        yield first.stopService()
        self.assertEqual((yield self.visit(ports[1])), 2)

    @defer.inlineCallbacks
    def test_in_a_parent(self) -> Any:
        """A parent that runs starts it, and stops it."""
        parent = MultiService()
        parent.startService()
        service = server(self.reactor, Settings(port=0, users=USERS), store=MemoryStore(MAIL))
        service.setServiceParent(parent)
        self.assertEqual((yield self.visit(service.listening[0].address.port)), 1)
        yield parent.stopService()
        self.assertEqual(service.listening, [])

    @defer.inlineCallbacks
    def test_started_twice(self) -> Any:
        """A server that runs already is not disturbed by a parent that starts it once more."""
        service = self.memory()
        [before] = service.listening
        parent = MultiService()
        service.setServiceParent(parent)
        parent.privilegedStartService()
        parent.startService()
        self.assertEqual(service.listening, [before])
        self.assertEqual((yield self.visit(before.address.port)), 1)
        yield parent.stopService()

    @defer.inlineCallbacks
    def test_stop_lets_sessions_end(self) -> Any:
        """A stop ends a session that is silent, and fires when it is gone; the mailbox is free then."""
        service = self.memory()
        client = yield threads.deferToThread(StrictClient, service.listening[0].address.port)
        yield threads.deferToThread(client.login, b"ann", b"secret")
        yield service.stopService()
        client.close()
        service.startService()
        self.assertEqual((yield self.visit(service.listening[0].address.port)), 1)


class TakenTests(Real):
    """A port that is taken."""

    @defer.inlineCallbacks
    def test_raised(self) -> Any:
        """The start raises CannotStart with the port in it; what was opened before is closed again."""
        count = threading.active_count()
        for more in ({"submission_port": 0, "smtp_port": 0}, {"smtp_port": 0, "submission_port": None}):
            taken = self.taken()
            before = open_sockets()
            ports = {**more, "submission_port": taken}
            service = server(self.reactor, Settings(port=0, users=USERS, **ports), store=MemoryStore(MAIL))
            why = self.assertRaises(CannotStart, service.startService)
            self.assertIn(f"cannot listen on 127.0.0.1:{taken}: address already in use", str(why))
            self.assertFalse(service.running)
            self.assertEqual(service.listening, [])
            yield service.stopService()
            self.assertEqual(open_sockets(), before)
        self.assertLessEqual(threading.active_count(), count)

    @defer.inlineCallbacks
    def test_start_after_it(self) -> Any:
        """When the port is free again, the very service starts."""
        other = socket.socket()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        service = server(
            self.reactor, Settings(port=0, smtp_port=taken, users=USERS), store=MemoryStore(MAIL)
        )
        self.addCleanup(service.stopService)
        self.assertRaises(CannotStart, service.startService)
        other.close()
        yield service.stopService()
        service.startService()
        self.assertEqual([one.address.port for one in service.listening][1], taken)
        self.assertEqual((yield self.visit(service.listening[0].address.port)), 1)

    @defer.inlineCallbacks
    def test_of_several_services(self) -> Any:
        """In one MultiService: the one that cannot start is closed, others go on, and one stop ends all."""
        parent = MultiService()
        first = server(self.reactor, Settings(port=0, users=USERS), store=MemoryStore(MAIL))
        second = server(
            self.reactor, Settings(port=0, smtp_port=self.taken(), users=USERS), store=MemoryStore(MAIL)
        )
        first.setServiceParent(parent)
        second.setServiceParent(parent)
        others = open_sockets()
        self.assertRaises(CannotStart, parent.startService)
        self.assertEqual((len(first.listening), len(second.listening)), (1, 0))
        self.assertEqual((yield self.visit(first.listening[0].address.port)), 1)
        self.assertEqual(len(open_sockets()), len(others) + 1)
        yield parent.stopService()
        self.assertEqual(open_sockets(), others)

    @defer.inlineCallbacks
    def test_while_privileged(self) -> Any:
        """The same where ports are opened before privileges are given up, as twistd does it."""
        parent = MultiService()
        first = server(self.reactor, Settings(port=0, users=USERS), store=MemoryStore(MAIL))
        second = server(self.reactor, Settings(port=self.taken(), users=USERS), store=MemoryStore(MAIL))
        first.setServiceParent(parent)
        second.setServiceParent(parent)
        others = open_sockets()
        self.assertRaises(CannotStart, parent.privilegedStartService)
        self.assertEqual(len(first.listening), 1)
        yield parent.stopService()
        self.assertEqual(open_sockets(), others)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_added_to_a_parent_that_runs(self) -> None:
        """``setServiceParent`` raises it then, and the server is not running."""
        parent = MultiService()
        parent.startService()
        service = server(self.reactor, Settings(port=self.taken(), users=USERS), store=MemoryStore(MAIL))
        self.assertRaises(CannotStart, service.setServiceParent, parent)
        self.assertFalse(service.running)
        return parent.stopService()


class LateEndpoint:
    """An endpoint that takes its time."""

    def __init__(self) -> None:
        self.opening: Deferred[Any] = Deferred()

    def listen(self, factory: object) -> Deferred[Any]:
        return self.opening


class LateTests(SynchronousTestCase):
    """Endpoints of others may open later."""

    def test_trouble_is_told(self) -> None:
        """One that fails after the start is told in the log."""
        endpoint: Any = LateEndpoint()
        factory: Any = None
        service = ListeningService(
            "there", endpoint, factory, ready=lambda name, port: None, failed=self.fail
        )
        service.startService()
        with capturedLogs() as logged:
            endpoint.opening.errback(OSError(98, "Address already in use"))
        self.assertEqual(
            [formatEvent(event) for event in logged], ["cannot listen on there: address already in use"]
        )
        self.successResultOf(service.stopService())


class ProcessTests(Real):
    """The process belongs to the program."""

    def state(self) -> dict[str, Any]:
        """What a server could change of the process and the reactor."""
        return {
            "gc": (gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()),
            "limits": [
                resource.getrlimit(getattr(resource, name))
                for name in dir(resource)
                if name.startswith("RLIMIT_")
            ],
            "signals": [signal.getsignal(number) for number in signal.valid_signals()],
            "environment": dict(os.environ),
            "folder": os.getcwd(),
            "reactor": {name: id(value) for name, value in vars(self.reactor).items() if callable(value)},
            "names": set(vars(self.reactor)),
        }

    @defer.inlineCallbacks
    def test_nothing_changed(self) -> Any:
        """No signal handler, collector, limit, environment, nor attribute of the reactor is changed."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        # The reactor sets handlers of its own when it begins to run.
        yield threads.deferToThread(int)
        before = self.state()
        own = self.serve(
            Settings(port=0, smtp_port=0, store=Maildirs(f"{folder}/{{user}}", create=True), users=USERS)
        )
        self.assertEqual((yield self.visit(own.listening[0].address.port)), 0)
        self.assertEqual(self.state(), before)
        yield own.stopService()
        self.assertEqual(self.state(), before)

    @defer.inlineCallbacks
    def test_no_name_is_looked_up(self) -> Any:
        """Neither at construction nor at the start nor at a login is the system asked for a host's name."""
        asked: list[object] = []

        def ask(*args: object, **how: object) -> Any:
            asked.append(args)
            raise OSError("no DNS here")

        service = server(
            self.reactor,
            Settings(port=0, smtp_port=0, submission_port=0, users=USERS),
            store=MemoryStore(MAIL),
        )
        self.addCleanup(service.stopService)
        for name in ("getfqdn", "gethostbyname", "gethostbyaddr", "getaddrinfo", "gethostbyname_ex"):
            self.patch(socket, name, ask)
        other = server(
            self.reactor,
            Settings(port=0, smtp_port=0, submission_port=0, users=USERS),
            store=MemoryStore(MAIL),
        )
        other.startService()
        yield other.stopService()
        self.assertEqual(asked, [])


class SlowTests(Real):
    """A stop does not hold up the program."""

    @defer.inlineCallbacks
    def test_stop_with_work_in_a_thread(self) -> Any:
        """What a thread has begun is finished while the reactor goes on."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        service = self.serve(Settings(port=0, store=Maildirs(f"{folder}/{{user}}", create=True), users=USERS))
        from pop3toy.net.threads import WorkerThreads

        [pool, *_] = [part for part in service if isinstance(part, WorkerThreads)]
        gate = threading.Event()
        result = pool.run(gate.wait, 30)
        stopping = service.stopService()
        turns = []
        self.reactor.callLater(0, turns.append, 1)
        self.reactor.callLater(0.01, gate.set)
        yield stopping
        self.assertEqual((turns, self.successResultOf(result)), ([1], True))
