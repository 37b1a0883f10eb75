"""Workers: what a supervisor does with processes that are none, and with real ones."""

from __future__ import annotations

import os
import pwd
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import SkipTest, skipIf

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pop3toy.net.accepting import PAUSE
from pop3toy.observe.line_writer import _pieces
from pop3toy.run.workers.pipes import (
    LOG,
    REPORTS,
    SOCKETS,
    Command,
    LineBuffer,
    Report,
    WorkerConfig,
    read,
    write,
)
from pop3toy.run.workers.sockets import ACCEPTS, InheritedEndpoint, SharedSockets
from pop3toy.run.workers.supervisor import PATIENCE, REMEMBERED, SpawnSpec, Supervisor, pause_before
from pop3toy.run.workers.worker import ControlPipe, LogToSupervisor, ReportPipe

from ..corpus import awkward_messages, fill_maildir
from ..folders import new_folder
from ..realserver import DEADLINE, RealServer, environment, listening, maildir_options, twistd, wait_until
from ..strictclient import Refused, StrictClient, logged_in
from ..tls_world import Authority, Wire, trusting


class FakeProcess:
    """A process that does nothing but what the test says."""

    def __init__(self, protocol: Any, pid: int, descriptors: dict[int, Any]) -> None:
        self.protocol = protocol
        self.pid = pid
        self.descriptors = descriptors
        self.heard: list[Any] = []
        self.stdin_open = True
        self.signals: list[str] = []
        self.producer: Any = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        assert self.stdin_open
        # The first line says how long the brief is.
        self.heard += [heard for line in data.splitlines() if not isinstance(heard := read(line), int)]

    def closeStdin(self) -> None:
        # Twisted would ask a producer that is paused for more, and leave the pipe open.
        assert self.producer is None
        self.stdin_open = False

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)

    def reports(self, *report: object) -> None:
        """It tells something."""
        self.protocol.childDataReceived(REPORTS, write(report))

    def ends(self, status: int = 0, by: int | None = None) -> None:
        """It is gone."""
        why = ProcessDone(0) if not (status or by) else ProcessTerminated(status or None, by, 0)
        self.protocol.processEnded(Failure(why))


class FakeReactor(Clock):
    """Starts processes that are none."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[FakeProcess] = []
        self.trouble: OSError | None = None

    def callWhenRunning(self, function: Any) -> None:
        function()

    def spawnProcess(self, protocol: Any, executable: str, args: Any, env: Any, childFDs: Any) -> None:
        if self.trouble is not None:
            raise self.trouble
        process = FakeProcess(protocol, 1000 + len(self.started), childFDs)
        self.started.append(process)
        protocol.makeConnection(process)


class SupervisorTests(SynchronousTestCase):
    """What the supervisor does when something happens."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.lines: list[str] = []
        self.hopeless: list[str] = []
        self.unattended: list[bool] = []
        spec = SpawnSpec(
            command=["python"],
            environment={},
            config=lambda number: WorkerConfig(
                number, 2, "host", events=list(self.supervisor.events), ended=self.supervisor.ended
            ),
            sockets=lambda: [21, 22],
        )
        self.supervisor = Supervisor(
            self.reactor,
            spec,
            2,
            grace=20,
            publish=self.lines.append,
            give_up=self.hopeless.append,
            turn_away=self.unattended.append,
        )
        self.supervisor.startService()

    def both_serve(self) -> tuple[FakeProcess, FakeProcess]:
        """The first two, which serve now."""
        first, second = self.reactor.started
        first.reports(Report.READY)
        second.reports(Report.READY)
        return first, second

    def test_start(self) -> None:
        """Each worker gets the sockets and its brief."""
        for number, process in enumerate(self.reactor.started):
            self.assertEqual(
                {0: "w", 1: 1, 2: "r", REPORTS: "r", LOG: "r", SOCKETS: 21, SOCKETS + 1: 22},
                process.descriptors,
            )
            [brief] = process.heard
            self.assertEqual(number, brief["number"])

    def test_again(self) -> None:
        """A worker that dies is started again at once, then after 1, 2, 4 ... 60 seconds."""
        first, _ = self.both_serve()
        pauses = []
        process = first
        for _ in range(9):
            process.ends(by=signal.SIGKILL)
            [call] = self.reactor.getDelayedCalls()
            pauses.append(call.getTime() - self.reactor.seconds())
            self.reactor.advance(pauses[-1])
            process = self.reactor.started[-1]
            process.reports(Report.READY)
        self.assertEqual([0, 1, 2, 4, 8, 16, 32, 60, 60], pauses)
        self.reactor.advance(60)
        process.ends(status=1)
        self.assertEqual(
            [self.reactor.seconds()], [call.getTime() for call in self.reactor.getDelayedCalls()]
        )

    def test_pauses(self) -> None:
        """What has not even come to serve is not tried again at once."""
        self.assertEqual([1, 2, 4], [pause_before(start, served=False) for start in range(3)])
        self.assertEqual(60, pause_before(10**6, served=True))

    def test_hopeless(self) -> None:
        """If not one has come to serve, the first reason is told, and nothing is tried again."""
        first, second = self.reactor.started
        first.reports(Report.REFUSED, "key.pem: permission denied")
        first.ends(status=1)
        self.assertEqual([], self.hopeless)
        second.reports(Report.REFUSED, "key.pem: permission denied")
        second.ends(status=1)
        self.assertEqual(["key.pem: permission denied"], self.hopeless)
        self.assertEqual([], self.reactor.getDelayedCalls())

    def test_not_hopeless(self) -> None:
        """As long as one has served, the others are tried again and again."""
        first, second = self.reactor.started
        first.reports(Report.READY)
        second.ends(status=1)
        first.ends(status=1)
        self.assertEqual([], self.hopeless)
        self.reactor.advance(1)
        self.assertEqual(4, len(self.reactor.started))

    def test_cannot_be_started(self) -> None:
        """A system that can start no process now is asked again."""
        first, _ = self.both_serve()
        self.reactor.trouble = OSError(11, "Resource temporarily unavailable")
        first.ends(by=signal.SIGSEGV)
        self.reactor.advance(0)
        self.assertEqual(2, len(self.reactor.started))
        self.reactor.trouble = None
        self.reactor.advance(2)
        self.assertEqual(3, len(self.reactor.started))

    def test_stop(self) -> None:
        """Workers are let end, and waited for; none is started again."""
        first, second = self.both_serve()
        stopped = self.supervisor.stopService()
        self.assertEqual((False, False), (first.stdin_open, second.stdin_open))
        first.ends()
        self.assertNoResult(stopped)
        second.ends()
        self.successResultOf(stopped)
        self.assertEqual(([], [], []), (self.reactor.getDelayedCalls(), first.signals, second.signals))
        self.assertEqual(2, len(self.reactor.started))

    def test_stop_takes_too_long(self) -> None:
        """A worker that does not end is killed."""
        first, second = self.both_serve()
        stopped = self.supervisor.stopService()
        second.ends()
        self.reactor.advance(20)
        self.assertEqual((["KILL"], []), (first.signals, second.signals))
        first.ends(by=signal.SIGKILL)
        self.successResultOf(stopped)

    def test_stop_between(self) -> None:
        """A worker that waits to be started again is not started."""
        first, second = self.both_serve()
        first.ends()
        stopped = self.supervisor.stopService()
        second.ends()
        self.successResultOf(stopped)
        self.reactor.advance(100)
        self.assertEqual(2, len(self.reactor.started))

    def test_tell_all(self) -> None:
        """All workers are told of new material."""
        first, second = self.both_serve()
        self.supervisor.use_tls("new")
        self.assertEqual([["tls", "new"]] * 2, [first.heard[-1], second.heard[-1]])

    def test_who_is_dead(self) -> None:
        """Workers are told, and those that are started later, how many have ended: however, and only when."""
        first, second = self.both_serve()
        self.assertEqual([[0, 0]] * 2, [process.heard[0]["ended"] for process in (first, second)])
        first.ends(by=signal.SIGKILL)
        self.assertEqual([Command.USE_ENDED, [1, 0]], second.heard[-1])
        self.reactor.advance(0)
        third = self.reactor.started[-1]
        self.assertEqual([1, 0], third.heard[0]["ended"])
        second.producer.pauseProducing()
        known = len(second.heard)
        for status in (1, 0):
            self.reactor.advance(60)
            self.reactor.started[-1].ends(status=status)
        self.assertEqual(known, len(second.heard))
        second.producer.resumeProducing()
        self.assertEqual([[Command.USE_ENDED, [3, 0]]], second.heard[known:], "the last alone")
        self.reactor.advance(60)
        # One that cannot even be started.
        self.reactor.trouble = OSError(11, "Resource temporarily unavailable")
        self.reactor.started[-1].ends(by=signal.SIGSEGV)
        self.reactor.advance(60)
        self.assertEqual([Command.USE_ENDED, [5, 0]], second.heard[-1])

    def test_nobody_serves(self) -> None:
        """When none has served for a while clients are turned away, until one does again."""
        first, second = self.both_serve()
        first.ends(status=1)
        self.reactor.advance(0)
        self.reactor.started[-1].ends(status=1)
        second.ends(status=1)
        self.reactor.advance(0)
        for process in self.reactor.started[3:]:
            process.ends(status=1)
        self.reactor.advance(PATIENCE - 0.1)
        self.assertEqual([], self.unattended)
        self.reactor.advance(0.1)
        self.assertEqual([True], self.unattended)
        self.reactor.advance(60)
        self.reactor.started[-1].reports(Report.READY)
        self.assertEqual([True, False], self.unattended)
        self.assertEqual([], self.hopeless)

    def test_one_is_back_soon(self) -> None:
        """A worker that is back before anybody waits long changes nothing; nor does a stop."""
        for process in self.both_serve():
            process.ends(by=signal.SIGKILL)
        self.reactor.advance(PATIENCE - 1)
        again = self.reactor.started[2:]
        for process in again:
            process.reports(Report.READY)
        self.reactor.advance(100)
        self.assertEqual([], self.unattended)
        for process in again:
            process.ends(by=signal.SIGKILL)
        self.supervisor.stopService()
        self.reactor.advance(100)
        self.assertEqual([], self.unattended)
        self.assertEqual([], self.reactor.getDelayedCalls())

    def test_told(self) -> None:
        """What a worker tells is heard by the others, and by one that is started later; nonsense is not."""
        first, second = self.both_serve()
        event = ["failed", "192.0.2.7", None, 12.5]
        first.reports(Report.TELL, [event])
        self.assertEqual([Command.NOTE, [event]], second.heard[-1])
        for nonsense in ((7, "tls"), ("dance",), ()):
            first.reports(Report.TELL, *nonsense)
        self.assertEqual((1, 2), (len(first.heard), len(second.heard)))
        self.flushLoggedErrors()
        first.ends(by=signal.SIGKILL)
        second.reports(Report.TELL, [event, event])
        self.reactor.advance(0)
        [brief] = self.reactor.started[-1].heard
        self.assertEqual([event] * 3, brief["events"])

    def test_does_not_read(self) -> None:
        """A worker that does not read is told the newest events later; of the others it never hears."""
        first, second = self.both_serve()
        second.producer.pauseProducing()
        known = len(second.heard)
        with capturedLogs() as logged:
            for number in range(0, REMEMBERED + 50, 10):
                first.reports(Report.TELL, [[each] for each in range(number, number + 10)])
            self.supervisor.use_tls("old")
            self.supervisor.use_tls("new")
        self.assertEqual([2], [event["number"] for event in logged], "said once")
        self.assertEqual(known, len(second.heard))
        second.producer.resumeProducing()
        tls, (command, events) = second.heard[known:]
        self.assertEqual((["tls", "new"], Command.NOTE), (tls, command))
        self.assertEqual([[number] for number in range(50, REMEMBERED + 50)], events)
        first.reports(Report.TELL, [["next"]])
        self.assertEqual([Command.NOTE, [["next"]]], second.heard[-1])

    def test_log(self) -> None:
        """A worker's lines for the log are written as they are, whole ones in one piece."""
        first, _ = self.reactor.started
        for piece in (b"one\ntw", b"o", b"\n\tthree\xff\n\xc3", b"\xa9\n"):
            first.protocol.childDataReceived(LOG, piece)
        self.assertEqual(["one\n", "two\n\tthree\\xff\n", "\u00e9\n"], self.lines)


class StoppedWorkerTests(TestCase):
    """A process that the system has stopped."""

    async def test_stops_in_good_order(self) -> None:
        """What did not fit into its pipe is dropped when the server stops, and the pipe is closed."""
        from twisted.internet import reactor as installed

        reactor: Any = installed
        program = (
            "import os, sys\n"
            "os.write(3, b'[\"ready\"]\\n')\n"
            "octets = len(sys.stdin.buffer.read())\n"
            "os.write(4, b'%d\\n' % octets)"
        )
        spec = SpawnSpec(
            [sys.executable, "-c", program], {}, lambda number: WorkerConfig(number, 1, "h"), list
        )
        serves: Deferred[None] = Deferred()
        lines: list[str] = []

        class OneWorker(Supervisor):
            def serves(self, worker: Any) -> None:
                super().serves(worker)
                self.pid = worker.transport.pid
                serves.callback(None)

        supervisor = OneWorker(
            reactor, spec, 1, grace=60, publish=lines.append, give_up=self.fail, turn_away=self.fail
        )
        supervisor.startService()
        await serves
        os.kill(supervisor.pid, signal.SIGSTOP)
        for octets in (1_000_000, 2_000_000):
            supervisor.use_tls("x" * octets)
        stopped = supervisor.stopService()
        os.kill(supervisor.pid, signal.SIGCONT)
        await stopped
        self.assertTrue(1_000_000 < int("".join(lines)) < 1_100_000, lines)


class WorkerSideTests(SynchronousTestCase):
    """A worker's ends of the pipes."""

    def setUp(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.addCleanup(os.close, self.read_end)

    def test_brief(self) -> None:
        """A brief comes through the pipe, however large, without an octet too much; print hides secrets."""
        brief = WorkerConfig(1, 2, "host", tls="secret\n" * 100_000, key="secret", events=[["failed"]])
        writing = threading.Thread(target=os.write, args=(self.write_end, brief.octets() + b'"word"\n'))
        writing.start()
        self.assertEqual(brief, WorkerConfig.read(self.read_end))
        writing.join()
        self.assertEqual(b'"word"\n', os.read(self.read_end, 100))
        self.assertNotIn("secret", repr(brief))

    def test_no_brief(self) -> None:
        """A supervisor that ends before or within the brief is understood."""
        os.write(self.write_end, b"20\n[")
        os.close(self.write_end)
        self.assertIsNone(WorkerConfig.read(self.read_end))
        self.assertIsNone(WorkerConfig.read(self.read_end))

    def test_commands(self) -> None:
        """Each command is handled, in whatever pieces it comes; the end stops, once."""
        handled: list[object] = []
        reactor = FakeReader()
        pipe = ControlPipe(reactor, self.read_end, handled.append, lambda: handled.append("stop"))
        for piece in (write([Command.USE_TLS, "new"]) + b"\xff\n" + b'["note"', b", []]\n"):
            os.write(self.write_end, piece)
            pipe.doRead()
        pipe.doRead()
        said = [["tls", "new"], None, ["note", []]]
        self.assertEqual(said, handled)
        os.close(self.write_end)
        pipe.doRead()
        pipe.connectionLost(Failure(ProcessDone(0)))
        self.assertEqual([*said, "stop"], handled)
        self.assertEqual([], reactor.readers)

    def test_log_waits_a_moment(self) -> None:
        """What is said goes up with what is said soon after; a warning goes at once, and nothing is lost."""
        reactor = FakeReader()
        log = LogToSupervisor(ReportPipe(self.write_end), lambda event: event["text"], reactor)
        os.set_blocking(self.read_end, False)
        one, two, nothing = (
            {"text": text, "log_level": LogLevel.info} for text in ("one\n", "tw\udcffo\n", "")
        )
        for event in (one, nothing, two):
            log(event)
        self.assertRaises(BlockingIOError, os.read, self.read_end, 1)
        reactor.advance(1)
        self.assertEqual(b"one\ntw\\udcffo\n", os.read(self.read_end, 1000))
        log(one)
        reactor.advance(1)
        self.assertEqual(b"one\n", os.read(self.read_end, 1000), "a line that is alone goes up too")
        log(one)
        log({**one, "log_level": LogLevel.warn})
        self.assertEqual(b"one\none\n", os.read(self.read_end, 1000))
        os.close(self.write_end)

    def test_lines(self) -> None:
        """Pieces become lines."""
        lines = LineBuffer()
        pieces = (b"a", b"b\n\nc", b"d", b"\n")
        self.assertEqual([[], [b"ab", b""], [], [b"cd"]], [lines.add(piece) for piece in pieces])

    def test_whole_lines(self) -> None:
        """What several processes write to one pipe is written in pieces that are whole lines and not cut."""
        os.close(self.write_end)
        lines = ["é" * length + "\n" for length in (1, 2000, 47, 1990, 5000, 3, 4)]
        pieces = list(_pieces(lines))
        self.assertEqual("".join(lines), "".join(pieces))
        for piece in pieces:
            self.assertTrue(piece.endswith("\n"))
            self.assertTrue(len(piece.encode()) <= 4096 or piece.count("\n") == 1)
        self.assertLess(len(pieces), len(lines))


class FakeReader(Clock):
    """A reactor that remembers who reads."""

    running = True

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[object] = []

    def addReader(self, reader: object) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: object) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def removeWriter(self, writer: object) -> None:
        """There are none."""


class Hearer(Protocol):
    """A client that waits for the end, or for a word."""

    def __init__(self) -> None:
        self.over: Deferred[bytes] = Deferred()
        self.heard = b""

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over.callback(self.heard)


class Greeter(Protocol):
    """A server that says a word and ends the connection."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")
        self.transport.loseConnection()


class SocketTests(TestCase):
    """Sockets that are opened for others, on loopback."""

    async def test_turned_away(self) -> None:
        """While nobody else accepts, who connects is closed on at once; later the others are left to it."""
        from twisted.internet import reactor as installed

        reactor: Any = installed
        path = tempfile.mktemp(dir="/tmp")
        shared = SharedSockets()
        ports = [
            reactor.listenTCP(0, shared.factory, interface="127.0.0.1"),
            reactor.listenTCP(0, shared.factory, interface="::1"),
            reactor.listenUNIX(path, shared.factory),
        ]
        for port in ports:
            self.addCleanup(port.stopListening)
            shared.add(port)
        ends: list[Any] = [
            TCP4ClientEndpoint(reactor, "127.0.0.1", ports[0].getHost().port),
            TCP6ClientEndpoint(reactor, "::1", ports[1].getHost().port),
            UNIXClientEndpoint(reactor, path),
        ]
        shared.turn_away(True)
        for end in ends:
            client = await connectProtocol(end, Hearer())
            self.assertEqual(await client.over, b"")
        shared.turn_away(False)
        waiting = [await connectProtocol(end, Hearer()) for end in ends]
        mode = os.stat(path).st_mode
        for port, descriptor in zip(ports, shared.descriptors, strict=True):
            endpoint = InheritedEndpoint(reactor, os.dup(descriptor))
            inherited = await endpoint.listen(Factory.forProtocol(Greeter))
            self.addCleanup(inherited.stopListening)
            self.assertEqual(inherited.getHost(), port.getHost())
        for client in waiting:
            self.assertEqual(await client.over, b"hello")
        await inherited.stopListening()
        self.assertEqual(os.stat(path).st_mode, mode, "a Unix socket is left alone")


class AcceptReaderTests(SynchronousTestCase):
    """A worker's accept reader."""

    def setUp(self) -> None:
        self.reactor = FakeReader()
        #: What each client that was accepted has said.
        self.accepted: list[bytes] = []
        self.factory = Factory()
        self.factory.noisy = False  # type: ignore[misc]
        self.patch(self.factory, "buildProtocol", self.serve)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listening.close)
        endpoint = InheritedEndpoint(self.reactor, os.dup(self.listening.fileno()))  # type: ignore[arg-type]
        self.reader: Any = self.successResultOf(endpoint.listen(self.factory))
        self.addCleanup(self.reader.stopListening)

    def serve(self, peer: object) -> Protocol:
        """A protocol that reads what its client has said."""
        test = self

        class Reads(Protocol):
            def connectionMade(self) -> None:
                transport: Any = self.transport
                test.assertEqual((peer, test.reader.getHost()), (transport.getPeer(), transport.getHost()))
                test.assertIn("127.0.0.1", repr(transport))
                transport.stopReading()
                test.accepted.append(transport.getHandle().recv(10))
                test.addCleanup(transport.getHandle().close)

        return Reads()

    def clients(self, number: int) -> list[socket.socket]:
        """Clients that have connected, each with its number said."""
        clients = []
        for each in range(number):
            client = socket.create_connection(self.listening.getsockname(), 60)
            self.addCleanup(client.close)
            client.sendall(b"%d" % each)
            clients.append(client)
        return clients

    def test_few_in_a_turn(self) -> None:
        """Some are left to the other workers, and nobody is there afterwards."""
        self.clients(ACCEPTS + 1)
        self.reader.doRead()
        self.assertEqual([b"%d" % each for each in range(ACCEPTS)], self.accepted)
        for _ in range(2):
            self.reader.doRead()
        self.assertEqual(ACCEPTS + 1, len(self.accepted))

    def test_no_descriptor(self) -> None:
        """A client for whom there is no descriptor waits for one and is served."""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, files)
        self.clients(2)
        with capturedLogs() as events:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, files[1]))
            self.reader.doRead()
            resource.setrlimit(resource.RLIMIT_NOFILE, files)
            self.assertEqual([], self.reactor.readers)
            self.reactor.advance(PAUSE)
            self.assertEqual([self.reader], self.reactor.readers)
        self.assertEqual(1, len(events))
        self.reader.doRead()
        self.assertEqual([b"0", b"1"], self.accepted)

    def test_not_served(self) -> None:
        """A client that is not served is closed on, and keeps nobody else out."""

        class Fails(Protocol):
            def connectionMade(self) -> None:
                raise ZeroDivisionError

        *others, _ = self.clients(4)
        first = iter((lambda peer: 1 / 0, lambda peer: None, lambda peer: Fails()))
        self.patch(self.factory, "buildProtocol", lambda peer: next(first, self.serve)(peer))
        self.reader.doRead()
        self.assertEqual(2, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.reactor.advance(0)
        self.assertEqual([b"3"], self.accepted)
        self.assertEqual([self.reader], self.reactor.readers)
        for client in others:
            self.assertRaises(ConnectionError, client.recv, 1)

    def test_ended(self) -> None:
        """Where the supervisor has shut the socket down nothing is read any more; a stop closes it, once."""
        self.listening.shutdown(socket.SHUT_RDWR)
        self.reader.doRead()
        self.assertEqual([], self.reactor.readers)
        self.reader.stopListening()
        self.reader.stopListening()
        self.assertEqual((-1, 0), (self.reader.fileno(), self.factory.numPorts))


def alive(pid: int) -> bool:
    """Whether a process runs: is there and is no zombie."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def pids(log: str) -> dict[int, int]:
    """The process of each worker, as the log tells; the last that served under each number."""
    return {int(n): int(pid) for n, pid in re.findall(r"worker (\d+) serves \(process (\d+)\)", log)}


class RealCase(SynchronousTestCase):
    """Servers with workers, in processes of their own, with mail of ann's and bob's."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        for user in ("ann", "bob"):
            fill_maildir(self.folder / "mail" / user, awkward_messages(large=False)[:3])
        self.home = self.folder / "home"
        self.home.mkdir()

    def where(self) -> list[str]:
        """The options that say where mail is, and who the users are."""
        return maildir_options(self.folder / "mail", ["ann:secret", "bob:secret"])

    def start(self, *options: str, workers: int = 2) -> RealServer:
        """A server whose workers all serve."""
        server = RealServer(*self.where(), f"--workers={workers}", *options, folder=self.home)
        self.addCleanup(server.terminate)
        wait_until(lambda: len(pids(server.log)) == workers, "all workers serve")
        return server

    @contextmanager
    def only(self, server: RealServer, worker: int) -> Iterator[int]:
        """While nobody else can accept; gives the port."""
        others = [pid for number, pid in pids(server.log).items() if number != worker]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield server.port
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    def client(self, server: RealServer, worker: int) -> StrictClient:
        """A client whom this worker has greeted."""
        with self.only(server, worker) as port:
            client = StrictClient(port)
            self.addCleanup(client.close)
            return client

    def again(self, server: RealServer, *workers: int) -> None:
        """Kill workers, and wait until they serve again."""
        before = pids(server.log)
        for worker in workers:
            os.kill(before[worker], signal.SIGKILL)
        wait_until(
            lambda: all(pids(server.log)[worker] != before[worker] for worker in workers), "they serve again"
        )


class WorkersServeTests(RealCase):
    """``twistd -n pop3toy --workers``."""

    def test_serve_and_stop(self) -> None:
        """Each serves, no two sessions have one number, and all end together, in order."""
        server = self.start(workers=3)
        for worker in (1, 2, 3, 1):
            client = self.client(server, worker)
            client.login()
            self.assertEqual(3, client.stat().messages)
            client.quit()
        everybody = pids(server.log).values()
        wait_until(lambda: server.log.count(" end: ") == 4, "the log tells of all sessions")
        numbers = re.findall(r" login: session=(\d+) ", server.log)
        self.assertEqual(4, len(set(numbers)), numbers)
        self.assertEqual({0, 1, 2}, {(int(number) - 1) % 3 for number in numbers})
        self.assertTrue(server.terminate())
        self.assertEqual([], [pid for pid in everybody if alive(pid)])
        self.assertNotIn("Traceback", server.log)
        self.assertNotIn("killed", server.log)

    def test_locks(self) -> None:
        """A maildrop that is open at one worker is locked at the other, and free when that one is killed."""
        server = self.start("--lock-wait=0")
        self.client(server, 1).login()
        with self.assertRaises(Refused) as caught:
            self.client(server, 2).login()
        self.assertEqual(b"IN-USE", caught.exception.code)
        self.client(server, 2).login(b"bob")
        os.kill(pids(server.log)[1], signal.SIGKILL)
        wait_until(lambda: len(re.findall("worker 1 serves", server.log)) == 2, "it is started again")
        self.client(server, 1).login()

    def test_locks_are_waited_for(self) -> None:
        """A login at one worker waits for a session at the other, and is let in soon after its end."""
        server = self.start("--lock-wait=60")
        for here, there in ((1, 2), (2, 1), (1, 1)):
            first, second = self.client(server, here), self.client(server, there)
            first.login()
            second.command(b"USER ann")
            second.send(b"PASS secret\r\n")
            self.assertEqual([], select.select([second.socket], [], [], 0.2)[0], "it waits")
            began = time.monotonic()
            first.quit()
            second.status()
            self.assertLess(time.monotonic() - began, 10)
            second.quit()

    def test_limits(self) -> None:
        """Of the connections of one address each worker has its part; a worker that is killed has none."""
        server = self.start("--max-per-address=3")
        for worker in (1, 2, 1, 2):
            self.client(server, worker)
        for worker in (1, 2):
            self.assertRaises(Refused, self.client, server, worker)
        os.kill(pids(server.log)[1], signal.SIGKILL)
        wait_until(lambda: len(re.findall("worker 1 serves", server.log)) == 2, "it is started again")
        self.assertIn("worker 1 was ended by signal 9 (SIGKILL)", server.log)
        for _ in range(2):
            self.client(server, 1)
        for worker in (1, 2):
            self.assertRaises(Refused, self.client, server, worker)

    def test_room(self) -> None:
        """When all places of a worker are taken by strangers, one of them goes for who comes next."""
        server = self.start("--max-connections=3")
        idle = [self.client(server, 1) for _ in range(2)]
        elsewhere = self.client(server, 2)
        user = self.client(server, 1)
        user.login()
        # Which of them, chance decides.
        (closed,), _, _ = select.select([client.socket for client in idle], [], [], 60)
        self.assertEqual(3, user.stat().messages)
        for client in idle:
            if client.socket is closed:
                client.ended()
            else:
                client.command(b"CAPA")
        elsewhere.command(b"CAPA")

    def test_visitors(self) -> None:
        """Visitors of two workers and the owner have the mailbox open at once, whoever comes first."""
        server = self.start("--anonymous=ann", "--lock-wait=0")
        sessions = [self.client(server, worker) for worker in (1, 2, 1, 2)]
        for number, session in enumerate(sessions):
            if number == 2:
                session.login()
            else:
                session.command(b"AUTH ANONYMOUS =")
        for session in sessions:
            self.assertEqual(3, session.stat().messages)
            session.retr(1)
            session.quit()

    def test_penalties(self) -> None:
        """Bad passwords at one worker make the next attempt at another wait, and at one started later."""
        server = self.start()
        for _ in range(4):
            self.assertRaises(Refused, self.client(server, 1).login, b"bob", b"wrong")
        self.again(server, 1)
        for worker in (2, 1):
            self.waits(self.client(server, worker), b"ann" if worker == 1 else b"bob")

    def waits(self, other: StrictClient, user: bytes) -> None:
        """A login that is right has to wait."""
        # From below only: a busy machine may take longer.
        before = time.monotonic()
        other.login(user)
        self.assertGreater(time.monotonic() - before, 0.9)

    def test_login_delay(self) -> None:
        """LOGIN-DELAY is kept between workers."""
        server = self.start("--login-delay=600")
        client = self.client(server, 1)
        client.login()
        client.quit()
        with self.assertRaises(Refused) as caught:
            self.client(server, 2).login()
        self.assertEqual(b"LOGIN-DELAY", caught.exception.code)

    def shown(self, server: RealServer, worker: int, authority: Authority) -> int:
        """The serial number of the certificate that this worker shows now."""
        with self.only(server, worker):
            wire = Wire(server.port_for("POP3 over TLS"))
            self.addCleanup(wire.close)
            certificate = wire.starttls(trusting(authority)).tls.getpeercert()
            assert certificate is not None
            return int(str(certificate["serialNumber"]), 16)

    def test_reload(self) -> None:
        """SIGHUP to the supervisor brings every worker the new certificates, and those started later."""
        authority = Authority(self.folder)
        path = self.folder / "localhost.pem"
        authority.issue("localhost", "127.0.0.1").write(path)
        server = self.start(f"--certificate={path}", "--tls-port=0")
        new = authority.issue("localhost", "127.0.0.1")
        new.write(path)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "certificates reloaded" in server.log, "the supervisor has reloaded")
        for worker in (1, 2):
            wait_until(
                lambda worker=worker: self.shown(server, worker, authority) == new.x509.serial_number,
                "the worker has the new one",
            )
        self.again(server, 2)
        self.assertEqual(self.shown(server, 2, authority), new.x509.serial_number)

    def test_accidents_outlived(self) -> None:
        """Workers that die are started again whatever has become of certificates, accounts and aliases."""
        authority = Authority(self.folder)
        names = {name: self.folder / name for name in ("localhost.pem", "accounts", "aliases")}
        good = authority.issue("localhost", "127.0.0.1")
        good.write(names["localhost.pem"])
        names["accounts"].write_text("carl:{PLAIN}secret\n")
        names["accounts"].chmod(0o600)
        names["aliases"].write_text("boss: carl\n")
        fill_maildir(self.folder / "mail" / "carl", [])
        server = self.start(
            f"--certificate={names['localhost.pem']}",
            "--tls-port=0",
            f"--accounts={names['accounts']}",
            f"--aliases={names['aliases']}",
            "--lmtp=tcp:0:interface=127.0.0.1",
        )
        names["localhost.pem"].write_text("nonsense")
        names["aliases"].write_text("nonsense")
        names["accounts"].rename(self.folder / "away")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the old ones stay in use" in server.log, "the supervisor has said so")
        self.again(server, 1, 2)
        for worker in (1, 2):
            self.assertEqual(self.shown(server, worker, authority), good.x509.serial_number)
            with self.assertRaises(Refused) as caught:
                self.client(server, worker).login(b"carl")
            self.assertEqual(b"SYS/TEMP", caught.exception.code)
            self.client(server, worker).login(b"ann" if worker == 1 else b"bob")
        self.assertEqual(self.recipient(server, b"boss"), b"451")
        (self.folder / "away").rename(names["accounts"])
        names["aliases"].write_text("boss: carl\nchief: carl\n")
        self.client(server, 1).login(b"carl")
        self.assertEqual(self.recipient(server, b"boss"), b"250")
        self.assertNotIn("Traceback", server.log)

    def recipient(self, server: RealServer, name: bytes) -> bytes:
        """What LMTP says of a recipient."""
        with Wire(server.port_for("LMTP")) as wire:
            for line in (b"", b"LHLO x", b"MAIL FROM:<>"):
                said = wire.ask(line) if line else wire.line()
                while said[3:4] == b"-":
                    said = wire.line()
            return wire.ask(b"RCPT TO:<" + name + b"@localhost>")[:3]

    def test_supervisor_killed(self) -> None:
        """Workers do not outlive a supervisor that is killed, and the port is free."""
        server = self.start()
        everybody, port = pids(server.log).values(), server.port
        server.kill()
        wait_until(lambda: not any(map(alive, everybody)), "the workers have ended")
        socket.create_server(("127.0.0.1", port)).close()

    def test_several_ports(self) -> None:
        """Each socket is served for what it was opened for, and a Unix socket outlives a worker."""
        path = self.folder / "pop3.sock"
        # A Unix socket's name is at most 107 octets long.
        short = os.path.relpath(path, self.home)
        server = self.start(
            "--self-signed",
            "--listen=tcp:0:interface=127.0.0.1",
            f"--listen=unix:{short}",
            "--tls-listen=tcp:0:interface=127.0.0.1",
            "--lmtp=tcp:0:interface=127.0.0.1",
        )
        for what, first in (("POP3", b"+OK "), ("LMTP", b"220 ")):
            with Wire(server.port_for(what)) as plain:
                self.assertEqual(first, plain.line()[:4])
        with Wire(server.port_for("POP3 over TLS")) as tls:
            tls.send(b"this is no TLS\r\n")
            self.assertNotIn(b"OK", tls.rest())
        os.kill(pids(server.log)[1], signal.SIGTERM)
        wait_until(lambda: len(re.findall("worker 1 serves", server.log)) == 2, "it is started again")
        self.assertIn("worker 1 ended with status 0", server.log)
        here = os.open(self.home, os.O_RDONLY)
        self.addCleanup(os.close, here)
        with Wire(f"/proc/self/fd/{here}/{short}") as unix:
            self.assertEqual(b"+OK ", unix.line()[:4])
        server.terminate()
        self.assertFalse(path.exists())

    def test_transcript(self) -> None:
        """All workers write to one transcript, each line whole."""
        server = self.start("--transcript=-")
        for worker in (1, 2):
            client = self.client(server, worker)
            client.login()
            client.quit()
        wait_until(lambda: server.words.count("closed (quit)") == 2, "both sessions are written down")
        for line in server.words.splitlines():
            self.assertRegex(line, r"^\[\d+\] (C: |S: |-- )")
        self.assertEqual(2, len({line.split()[0] for line in server.words.splitlines()}))


class WorkersStartTests(RealCase):
    """How a start goes wrong, and as a daemon."""

    def run_twistd(
        self, *arguments: str, python: str = sys.executable, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run twistd until the process that was started ends."""
        _, *command = twistd("--pidfile=t.pid", "--logfile=t.log", *arguments, *self.where(), "--workers=2")
        return subprocess.run(
            [python, *command],
            cwd=self.home,
            env=env if env is not None else environment(self.home),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    @property
    def log(self) -> str:
        """The log file."""
        return (self.home / "t.log").read_text()

    def test_port_taken(self) -> None:
        """A port that is taken is one line and exit status 1; nothing is left behind."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            done = self.run_twistd("--nodaemon", "pop3toy", f"--port={port}")
        self.assertEqual(1, done.returncode)
        why = f"pop3toy: cannot listen on 127.0.0.1:{port}: address already in use\n"
        self.assertEqual(("", why), (done.stdout, done.stderr))
        self.assertNotIn("worker", self.log)
        self.assertFalse((self.home / "t.pid").exists())

    def test_certificate(self) -> None:
        """A certificate that cannot be read is one line and exit status 1."""
        done = self.run_twistd("--nodaemon", "pop3toy", "--port=0", "--certificate=nowhere.pem")
        self.assertEqual(1, done.returncode)
        self.assertEqual(f"pop3toy: {self.home}/nowhere.pem: no such file or directory\n", done.stderr)

    def test_not_one_serves(self) -> None:
        """If every worker dies before it serves, that is one line and exit status 1."""
        modules = self.folder / "modules"
        modules.mkdir()
        # Python reads it at every start.
        (modules / "sitecustomize.py").write_text(
            "import os, sys\nif 'pop3toy.run.as_worker' in sys.orig_argv:\n    os._exit(3)\n"
        )
        found = environment(self.home)
        found["PYTHONPATH"] = os.pathsep.join([str(modules), found["PYTHONPATH"]])
        done = self.run_twistd("--nodaemon", "pop3toy", "--port=0", env=found)
        self.assertEqual(1, done.returncode)
        self.assertRegex(done.stderr, r"^pop3toy: worker [12] ended with status 3\n$")
        # Written when the pid file is gone already.
        wait_until(lambda: self.log.endswith("Server Shut Down.\n"), "the log's last line")
        self.assertFalse((self.home / "t.pid").exists())

    def test_turns(self) -> None:
        """Each worker hears those who are ready together in one turn."""
        modules = self.folder / "modules"
        modules.mkdir()
        (modules / "sitecustomize.py").write_text(
            "import os, sys, threading, time\n"
            "def look():\n"
            "    while 'doIteration' not in vars(sys.modules.get('twisted.internet.reactor', sys)):\n"
            "        time.sleep(0.05)\n"
            f"    open({str(self.folder)!r} + f'/turns.{{os.getpid()}}', 'w').close()\n"
            "if 'pop3toy.run.as_worker' in sys.orig_argv:\n"
            "    threading.Thread(target=look, daemon=True).start()\n"
        )
        found = environment(self.home)
        found["PYTHONPATH"] = os.pathsep.join([str(modules), found["PYTHONPATH"]])
        done = self.run_twistd(
            f"--pidfile={self.home}/t.pid", f"--logfile={self.home}/t.log", "pop3toy", "--port=0", env=found
        )
        self.assertEqual((0, "", ""), (done.returncode, done.stdout, done.stderr))
        pid = int((self.home / "t.pid").read_text())
        self.addCleanup(self._end, pid)
        wait_until(lambda: len(pids(self.log)) == 2, "both serve")
        marks = [self.folder / f"turns.{pid}" for pid in pids(self.log).values()]
        wait_until(lambda: all(mark.exists() for mark in marks), "both take turns")
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not (self.home / "t.pid").exists(), "the pid file is gone")

    def test_daemon(self) -> None:
        """The pid file names the supervisor; SIGTERM to it ends all, and the log of all is one file."""
        done = self.run_twistd(
            "--rundir=/",
            f"--pidfile={self.home}/t.pid",
            f"--logfile={self.home}/t.log",
            "pop3toy",
            "--port=0",
            # Relative to where the command was given, although daemons and workers are elsewhere.
            "--transcript=talk.txt",
        )
        self.assertEqual((0, "", ""), (done.returncode, done.stdout, done.stderr))
        pid = int((self.home / "t.pid").read_text())
        self.addCleanup(self._end, pid)
        wait_until(lambda: len(pids(self.log)) == 2, "both serve")
        everybody = pids(self.log).values()
        with logged_in(listening(self.log)["POP3"]) as client:
            self.assertEqual(3, client.stat().messages)
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not (self.home / "t.pid").exists(), "the pid file is gone")
        self.assertIn(" login: session=", self.log)
        self.assertIn("C: STAT", (self.home / "talk.txt").read_text())
        wait_until(lambda: self.log.endswith("Server Shut Down.\n"), "the log's last line")
        self.assertEqual([], [each for each in everybody if alive(each)])

    def _end(self, pid: int) -> None:
        # Only if the test has failed before it could end it: the file names no other process.
        if (self.home / "t.pid").exists():
            os.kill(pid, signal.SIGKILL)

    def for_nobody(self) -> pwd.struct_passwd:
        """The user ``nobody``, to whom all of the folder belongs now, wherever the tests run."""
        nobody = pwd.getpwnam("nobody")
        elsewhere = new_folder(self)
        shutil.copytree(self.folder, elsewhere, dirs_exist_ok=True)
        self.folder, self.home = elsewhere, elsewhere / "home"
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        return nobody

    def with_packages(self) -> dict[str, str]:
        """An environment in which a Python that is not installed where this one is finds its packages."""
        found = environment(self.home)
        here = [path for path in sys.path if path.endswith("-packages")]
        found["PYTHONPATH"] = os.pathsep.join([found["PYTHONPATH"], *here])
        return found

    def python_for(self, user: pwd.struct_passwd) -> tuple[str, dict[str, str]]:
        """A Python that this user can run with all that is needed, and its environment."""
        found = self.with_packages()
        for python in (sys.executable, "/usr/bin/python3"):
            try:
                subprocess.run(
                    [python, "-c", "import pop3toy.run.as_worker"],
                    cwd="/",
                    env=found,
                    user=user.pw_uid,
                    group=user.pw_gid,
                    extra_groups=[],
                    capture_output=True,
                    timeout=DEADLINE,
                    check=True,
                )
            except (OSError, subprocess.CalledProcessError):
                continue
            return python, found
        raise SkipTest("nobody can read no Python with Twisted here")

    @skipIf(os.geteuid() != 0, "only root can become somebody else")
    def test_another_user(self) -> None:
        """Started as root, the sockets are root's and the workers are whom twistd was told to become."""
        nobody = self.for_nobody()
        python, found = self.python_for(nobody)
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
        done = self.run_twistd("--uid=nobody", "pop3toy", f"--port={port}", python=python, env=found)
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        pid = int((self.home / "t.pid").read_text())
        self.addCleanup(self._end, pid)
        wait_until(lambda: len(pids(self.log)) == 2, "both serve")
        for each in (pid, *pids(self.log).values()):
            self.assertRegex(Path(f"/proc/{each}/status").read_text(), rf"\nUid:(\t{nobody.pw_uid}){{4}}\n")
        with StrictClient(port) as client:
            client.login()
            client.quit()
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not alive(pid), "it has ended")

    @skipIf(os.geteuid() != 0, "only root can become somebody else")
    def test_key_only_root_may_read(self) -> None:
        """A key that is root's alone serves workers who may not read it, also one that is started again."""
        python, found = self.python_for(self.for_nobody())
        authority = Authority(self.folder)
        path = authority.issue("localhost", "127.0.0.1").write(self.folder / "localhost.pem")
        done = self.run_twistd(
            "--uid=nobody",
            "pop3toy",
            "--port=0",
            "--tls-port=0",
            f"--certificate={path}",
            python=python,
            env=found,
        )
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        pid = int((self.home / "t.pid").read_text())
        self.addCleanup(self._end, pid)
        wait_until(lambda: len(pids(self.log)) == 2, "both serve")
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: "stay in use: " in self.log, "the supervisor cannot read it any more")
        self.assertIn(f"{path}: permission denied", self.log)
        before = pids(self.log)
        for worker in before.values():
            os.kill(worker, signal.SIGKILL)
        wait_until(lambda: set(pids(self.log).values()).isdisjoint(before.values()), "they serve again")
        with Wire(listening(self.log)["POP3 over TLS"]) as wire:
            self.assertTrue(wire.starttls(trusting(authority)).line().startswith(b"+OK"))
        for process in (pid, *pids(self.log).values()):
            for where in ("environ", "cmdline"):
                self.assertNotIn(b"PRIVATE KEY", Path(f"/proc/{process}/{where}").read_bytes())
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not alive(pid), "it has ended")

    @skipIf(os.geteuid() != 0, "only root can become somebody else")
    def test_python_only_root_may_run(self) -> None:
        """A Python that the workers may not run is one line and exit status 1 at start, also of a daemon."""
        self.for_nobody()
        hidden = self.folder / "hidden"
        hidden.mkdir(mode=0o700)
        (hidden / "python").symlink_to(sys.executable)
        python, found = str(hidden / "python"), self.with_packages()
        done = self.run_twistd("--uid=nobody", "pop3toy", "--port=0", python=python, env=found)
        self.assertEqual(1, done.returncode)
        self.assertIn("as the user of the workers: no permission for ", done.stderr)
        self.assertFalse((self.home / "t.pid").exists())

    @skipIf(os.geteuid() != 0, "only root can become somebody else")
    def test_what_only_root_may_read(self) -> None:
        """What workers may not read is one line and exit status 1 at start, not workers that die and die."""
        python, found = self.python_for(self.for_nobody())
        accounts = self.folder / "accounts"
        accounts.write_text("ann:{PLAIN}secret\n")
        accounts.chmod(0o600)
        done = self.run_twistd(
            "--uid=nobody",
            "--nodaemon",
            "pop3toy",
            "--port=0",
            f"--accounts={accounts}",
            python=python,
            env=found,
        )
        self.assertEqual(1, done.returncode)
        self.assertEqual(
            f"pop3toy: as the user of the workers: --accounts {accounts}: Permission denied\n", done.stderr
        )
        self.assertNotIn("worker 1", self.log)

    def test_what_workers_cannot(self) -> None:
        """What cannot work with workers is refused with one line."""
        for options, says in (
            (
                ["--listen=stdio:"],
                "--listen stdio:: with --workers there are tcp, tcp6, unix, systemd\n",
            ),
            (
                ["--listen=ssl:0:privateKey=x"],
                "systemd; TLS is for --tls-port and --tls-listen, with --certificate",
            ),
            (["--listen=haproxy:stdio:"], "with --workers there are"),
        ):
            done = self.run_twistd("--nodaemon", "pop3toy", *options)
            self.assertEqual((1, 1), (done.returncode, len(done.stderr.splitlines())), done)
            self.assertIn(says, done.stderr)
        done = self.run_twistd("--nodaemon", "--chroot=/", "pop3toy")
        self.assertIn("--chroot", done.stderr)
