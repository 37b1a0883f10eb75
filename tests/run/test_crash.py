"""Servers that are killed, told to stop, or that want the same Maildir: no mail is lost and no lock stays."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ..corpus import Awkward, awkward_messages, fill_maildir
from ..realserver import RealServer, maildir_options, wait_until
from ..strictclient import Refused, StrictClient, logged_in

#: Messages in the Maildir of which many are removed, and how many of three are.
MANY = 9_000
DOOMED_OF_THREE = 2
#: Octets that the kernel may hold for a client, few enough that a large RETR is not sent ahead.
SMALL_BUFFER = 64 * 1024


class CrashCase(SynchronousTestCase):
    """A Maildir of ann's, and as many servers as a test wants."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.maildir = self.root / "ann"

    def start(self) -> RealServer:
        """Start one more server on the Maildir."""
        # Who waits for a lock does not show that there is one.
        server = RealServer(*maildir_options(self.root), "--lock-wait=0")
        self.addCleanup(server.terminate)
        return server

    def fill(self, messages: Iterable[Awkward]) -> dict[str, bytes]:
        """Fill the Maildir; file name to octets, in the server's order."""
        return {one.path.name: one.message.stored for one in fill_maildir(self.maildir, messages)}

    def fill_with_many(self) -> dict[str, bytes]:
        """Fill the Maildir with small messages."""
        return self.fill(Awkward(f"m{n}", b"Subject: %d\n\nbody %d\n" % (n, n)) for n in range(MANY))

    def kept(self) -> dict[str, bytes]:
        """File name to octets, as they are now."""
        return {
            path.name: path.read_bytes()
            for folder in ("new", "cur")
            for path in (self.maildir / folder).iterdir()
        }

    def doomed(self, names: Iterable[str]) -> dict[int, str]:
        """The messages that a test deletes: number to file name."""
        return {number: name for number, name in enumerate(names, 1) if number % 3 < DOOMED_OF_THREE}

    def gone(self, name: str) -> bool:
        """Whether a file has left the Maildir."""
        return not any((self.maildir / folder / name).exists() for folder in ("new", "cur"))

    def mark(self, client: StrictClient, numbers: Iterable[int]) -> None:
        """DELE them all in one write."""
        client.send(b"".join(b"DELE %d\r\n" % number for number in numbers))
        for _ in numbers:
            client.status()


class KilledTests(CrashCase):
    """kill -9."""

    def test_in_the_middle_of_retr(self) -> None:
        """Nothing is removed, also what was marked, and the lock is free at once for a server that waits."""
        messages = awkward_messages()
        files = self.fill(messages)
        server, other = self.start(), self.start()
        with StrictClient(server.port, receive_buffer=SMALL_BUFFER) as client:
            client.login()
            self.mark(client, range(1, 10))
            client.command(b"RETR %d" % len(messages))
            client.receive_some(100_000)
            with StrictClient(other.port) as second:
                self.assertEqual(self.assertRaises(Refused, second.login).code, b"IN-USE")
                server.kill()
                second.login()
                self.assertEqual(second.stat().messages, len(messages))
                second.quit()
            self.assertRaises((EOFError, ConnectionResetError), client.body)
        self.assertTrue(self.kept() == files)
        with logged_in(self.start().port) as client:
            for number, message in enumerate(messages, 1):
                self.assertTrue(client.retr(number) == message.wire, message.name)

    def test_in_the_middle_of_quit(self) -> None:
        """Nothing is missing but what was marked, what is left is whole, and the lock is free."""
        for _ in range(5):
            if self._killed_in_quit():
                return
        raise SkipTest("the server is always done before it can be killed")

    def _killed_in_quit(self) -> bool:
        """Whether the kill came between the first removal and the last."""
        if self.maildir.exists():
            for path in self.maildir.glob("*/*"):
                path.unlink()
        files = self.fill_with_many()
        server = self.start()
        doomed = self.doomed(files)
        with StrictClient(server.port) as client:
            client.login()
            self.mark(client, doomed)
            first = min(doomed)
            client.send(b"QUIT\r\n")
            wait_until(lambda: self.gone(doomed[first]), "the first message is removed", pause=0)
            server.kill()
            try:
                answered = bool(client.status())
            except (EOFError, ConnectionResetError):
                answered = False
        kept = self.kept()
        lost = files.keys() - kept.keys()
        self.assertEqual(lost - set(doomed.values()), set())
        self.assertTrue(all(kept[name] == files[name] for name in kept))
        if answered:
            # "+OK" is a promise.
            self.assertEqual(lost, set(doomed.values()))
        with logged_in(self.start().port) as client:
            self.assertEqual(client.stat().messages, len(kept))
            left = [
                number for number, name in enumerate(n for n in files if n in kept) if name in doomed.values()
            ]
            self.mark(client, [number + 1 for number in left])
        self.assertEqual(self.kept().keys(), files.keys() - set(doomed.values()))
        return 0 < len(lost) < len(doomed)

    def test_restarted_at_once(self) -> None:
        """A killed server's successor finds the pid file, no lock, and the same unique-ids."""
        self.fill(awkward_messages(large=False))
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        uids = None
        for _ in range(3):
            server = RealServer(*maildir_options(self.root), folder=folder)
            self.addCleanup(server.terminate)
            with StrictClient(server.port) as client:
                client.login()
                uids = uids or client.uids()
                self.assertEqual(client.uids(), uids)
                server.kill()


class TwoServersTests(CrashCase):
    """Two server processes on one Maildir."""

    def test_exactly_one_session(self) -> None:
        """Of many clients that log in at the same moment at both, exactly one gets in, round after round."""
        self.fill(awkward_messages(large=False)[:5])
        ports = [self.start().port, self.start().port]
        for round_ in range(20):
            clients = [StrictClient(port) for port in ports for _ in range(4)]
            outcomes = self._log_in_at_once(clients)
            winners = [client for client, outcome in zip(clients, outcomes, strict=True) if outcome == "in"]
            self.assertEqual(sorted(outcomes), ["IN-USE"] * 7 + ["in"], f"round {round_}")
            # The lock is free before QUIT is answered.
            winners[0].quit()
            for client in clients:
                client.close()

    def _log_in_at_once(self, clients: list[StrictClient]) -> list[str]:
        gate = threading.Barrier(len(clients))
        outcomes = [""] * len(clients)

        def log_in(at: int) -> None:
            clients[at].command(b"USER ann")
            gate.wait(60)
            try:
                clients[at].command(b"PASS secret")
                outcomes[at] = "in"
            except Refused as refusal:
                outcomes[at] = refusal.code.decode()

        threads = [threading.Thread(target=log_in, args=(at,)) for at in range(len(clients))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return outcomes

    def test_a_dropped_session_frees_the_lock(self) -> None:
        """A client that vanishes in the middle of RETR removes nothing, and the other server takes over."""
        messages = awkward_messages()
        files = self.fill(messages)
        here, there = self.start(), self.start()
        with StrictClient(here.port, receive_buffer=SMALL_BUFFER) as client:
            client.login()
            self.mark(client, [1, 2, 3])
            client.command(b"RETR %d" % len(messages))
            client.receive_some(10_000)

        def in_there() -> bool:
            try:
                with logged_in(there.port) as client:
                    self.assertEqual(client.stat().messages, len(messages))
            except Refused as refusal:
                self.assertEqual(refusal.code, b"IN-USE")
                return False
            return True

        wait_until(in_there, "the lock is free")
        self.assertTrue(self.kept() == files)

    def test_deleted_by_the_other(self) -> None:
        """What a session on one server deleted, the next session on the other does not see."""
        self.fill(awkward_messages(large=False)[:5])
        here, there = self.start(), self.start()
        for port, messages in ((here.port, 5), (there.port, 4), (here.port, 3), (there.port, 2)):
            with logged_in(port) as client:
                self.assertEqual(client.stat().messages, messages)
                client.dele(1)


#: Starts the command line behind it with a log that gets SIGTERM while it writes the line of a
#: login, at the worst moment: its lock is taken, and does not know yet by whom.
SIGNALLED_WHILE_IT_WRITES = """
import os, signal, sys
from twisted.python import logfile

write = logfile.LogFile.write

def signalled(log, data):
    if " login: " not in data:
        return write(log, data)
    lock = log._threadable_lock
    lock.acquire()
    lock._owner, owner = None, lock._owner
    try:
        os.write(1, b"signalled")
        signal.raise_signal(signal.SIGTERM)
    finally:
        lock._owner = owner
        lock.release()
    return write(log, data)

logfile.LogFile.write = signalled
sys.argv = ["twistd", *sys.argv[4:]]
from twisted.scripts.twistd import run
run()
"""


#: Starts the command line behind it where every chunk of a message takes long to read while it is counted.
COUNTS_SLOWLY = """
import os, sys, time

pread = os.pread

def slowly(*args):
    os.write(1, b".")
    time.sleep(0.01)
    return pread(*args)

os.pread = slowly
os.lseek = lambda file, at, how: at
sys.argv = ["twistd", *sys.argv[4:]]
from twisted.scripts.twistd import run
run()
"""


class CountingTests(CrashCase):
    """Messages that take an hour to count."""

    def counting(self) -> RealServer:
        """A server whose next session asks it to count."""
        self.fill([])
        with (self.maildir / "new" / "1.endless").open("wb") as file:
            # Octets and no holes, as far as a reader can tell.
            file.write(b"x")
            file.truncate(90 * 1024**3)
        limit = f"--max-listed-size={10**14}"
        launcher = [sys.executable, "-c", COUNTS_SLOWLY]
        server = RealServer(*maildir_options(self.root), limit, launcher=launcher)
        self.addCleanup(server.kill)
        return server

    def test_client_gone(self) -> None:
        """Counting ends when the client goes, so that the next one is not kept out."""
        server = self.counting()
        with StrictClient(server.port) as client:
            client.send(b"USER ann\r\nPASS secret\r\n")
            wait_until(lambda: len(server.words) > 2, "it counts")
        (self.maildir / "new" / "1.endless").unlink()
        wait_until(lambda: self.logs_in(server), "the maildrop is free")

    def logs_in(self, server: RealServer) -> bool:
        """Whether ann may come in."""
        with StrictClient(server.port) as client:
            client.send(b"USER ann\r\nPASS secret\r\n")
            client.line()
            return client.line().startswith(b"+OK")

    def test_sigterm(self) -> None:
        """SIGTERM is obeyed although messages are being counted."""
        server = self.counting()
        with StrictClient(server.port) as client:
            client.send(b"USER ann\r\nPASS secret\r\n")
            wait_until(lambda: len(server.words) > 2, "it counts")
            self.assertTrue(server.terminate())


class StoppedTests(CrashCase):
    """SIGTERM."""

    def test_in_the_middle_of_a_log_line(self) -> None:
        """A server that is told to stop while it writes to its log stops all the same."""
        self.fill([])
        server = RealServer(
            *maildir_options(self.root), launcher=[sys.executable, "-c", SIGNALLED_WHILE_IT_WRITES]
        )
        self.addCleanup(server.kill)
        with StrictClient(server.port) as client:
            client.send(b"USER ann\r\nPASS secret\r\n")
            wait_until(lambda: server.words == "signalled", "it is told to stop")
            self.assertTrue(server.terminate())

    def refuses(self, port: int) -> bool:
        """Whether nobody listens there any more."""
        try:
            socket.create_connection(("127.0.0.1", port), 60).close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            # The port was closed between this connection and its acceptance.
            pass
        return False

    def test_during_retr(self) -> None:
        """No new connection is taken, the message on its way arrives whole, and nothing is removed."""
        messages = awkward_messages()
        files = self.fill(messages)
        server = self.start()
        with StrictClient(server.port, receive_buffer=SMALL_BUFFER) as client:
            client.login()
            self.mark(client, [1, 2, 3])
            client.command(b"RETR %d" % len(messages))
            client.receive_some(10_000)
            server.signal_to_end()
            wait_until(lambda: self.refuses(server.port), "the port is closed")
            self.assertTrue(client.body() == messages[-1].wire)
            self.assertTrue(server.terminate())
        self.assertTrue(self.kept() == files)

    def test_during_retr_of_one_who_does_not_read(self) -> None:
        """A client that has stopped reading does not keep the server from ending."""
        files = self.fill(awkward_messages())
        server = self.start()
        with StrictClient(server.port, receive_buffer=SMALL_BUFFER) as client:
            client.login()
            client.dele(1)
            client.command(b"RETR %d" % len(files))
            self.assertTrue(server.terminate())
            self.assertRaises((EOFError, ConnectionResetError), client.body)
        self.assertTrue(self.kept() == files)

    def test_during_update(self) -> None:
        """A removal that has begun is finished and answered before the server ends."""
        files = self.fill_with_many()
        server = self.start()
        doomed = self.doomed(files)
        with StrictClient(server.port) as client:
            client.login()
            self.mark(client, doomed)
            client.send(b"QUIT\r\n")
            wait_until(lambda: self.gone(doomed[min(doomed)]), "the first message is removed", pause=0)
            server.signal_to_end()
            client.status()
            client.ended()
        self.assertTrue(server.terminate())
        self.assertEqual(self.kept().keys(), files.keys() - set(doomed.values()))

    def test_quit_after_sigterm(self) -> None:
        """A session at work that ends with QUIT after SIGTERM removes what it marked."""
        messages = awkward_messages()
        files = self.fill(messages)
        server = self.start()
        with StrictClient(server.port, receive_buffer=SMALL_BUFFER) as client:
            client.login()
            self.mark(client, [2, 4])
            client.send(b"RETR %d\r\nQUIT\r\n" % len(messages))
            client.status()
            client.receive_some(10_000)
            server.signal_to_end()
            wait_until(lambda: self.refuses(server.port), "the port is closed")
            self.assertTrue(client.body() == messages[-1].wire)
            client.status()
            client.ended()
        self.assertTrue(server.terminate())
        names = list(files)
        self.assertEqual(self.kept().keys(), set(names) - {names[1], names[3]})

    def test_at_rest(self) -> None:
        """A server without sessions ends in order, and takes its pid file away."""
        self.fill([])
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        server = RealServer(*maildir_options(self.root), folder=folder)
        self.assertIn("server.pid", os.listdir(folder))
        self.assertTrue(server.terminate())
        self.assertNotIn("server.pid", os.listdir(folder))
