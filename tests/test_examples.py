"""The examples of embedding, run as they stand in ``docs/examples``."""

from __future__ import annotations

import runpy
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

from .folders import new_folder
from .memory_world import MemoryCase, StringClient
from .realserver import DEADLINE, environment, free_port, heed_ctrl_c, run_command, twistd, wait_until
from .strictclient import StrictClient, logged_in

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


class Examples(MemoryCase):
    """Runs an example, on a fake connection and as a program."""

    def serve(self, name: str) -> None:
        """Have the server of an example serve clients of :meth:`connect`."""
        made = runpy.run_path(str(EXAMPLES / name))
        if "make_factory" in made:
            self.factory = made["make_factory"](self.reactor)
        else:
            self.start(made["make_service"](self.reactor, 2590))
            self.factory = self.reactor.factory_at(2590)

    def connect(self) -> Callable[[str], list[str]]:
        """A function that sends a line and gives the lines of the reply."""
        client = StringClient(self.factory)
        self.addCleanup(client.leave)
        return lambda line: client.say(line.encode()).decode().split("\r\n")[:-1]

    def as_program(self, name: str, *more: str) -> StrictClient:
        """Start an example as its text says, and connect to it."""
        self.port = port = free_port()
        arguments = [sys.executable, str(EXAMPLES / name), str(port), *more]
        return self.started(arguments, port, env=environment(Path(self.mktemp())))

    def started(self, arguments: list[str], port: int, **how: Any) -> StrictClient:
        """Start a program and connect to it as soon as it listens."""
        self.program = program = subprocess.Popen(arguments, preexec_fn=heed_ctrl_c, **how)

        def end() -> None:
            program.kill()
            program.wait(DEADLINE)

        self.addCleanup(end)
        clients = []

        def connected() -> bool:
            assert program.poll() is None, "it ended"
            try:
                clients.append(StrictClient(port))
            except ConnectionRefusedError:
                return False
            return True

        wait_until(connected, "it listens")
        return clients[0]


class OwnStoreTests(Examples):
    """A store of one's own."""

    NAME = "embed_own_store.py"

    def test_conversation(self) -> None:
        """Both messages are listed, read and removed, for this user alone."""
        self.serve(self.NAME)
        say = self.connect()
        self.assertEqual(["+OK send PASS"], say("USER ann"))
        self.assertTrue(say("PASS secret")[0].startswith("+OK maildrop has 2 messages"))
        self.assertIn("1 alert-0", say("UIDL"))
        self.assertIn("Subject: Coffee is ready", say("RETR 1"))
        other = self.connect()
        other("USER ann")
        self.assertEqual([], other("PASS secret"))
        # The lock is waited for.
        self.reactor.advance(5)
        self.assertIn("[IN-USE]", other("NOOP")[0])
        say("DELE 1")
        self.assertIn("+OK bye, 1 message removed", say("QUIT"))
        for user, password, count in (("ann", "secret", 1), ("bob", "secret too", 2)):
            say = self.connect()
            say(f"USER {user}")
            say(f"PASS {password}")
            self.assertTrue(say("STAT")[0].startswith(f"+OK {count} "))

    def test_program(self) -> None:
        """It runs as a program, and a strict client takes no offence."""
        with self.as_program(self.NAME) as client:
            client.login(b"ann", b"secret")
            self.assertEqual(2, client.stat().messages)


class MaildirsTests(Examples):
    """A part of another application, by ``twistd -y``."""

    NAME = "maildirs.tac"

    def test_program(self) -> None:
        """Mail that lies in the Maildir is fetched; the log has the login, its end, and no trouble."""
        home = new_folder(self)
        port = free_port()
        log = home / "log"
        environ = {**environment(home), "POP3_PORT": str(port)}
        command = twistd("-n", f"--logfile={log}", "-y", str(EXAMPLES / self.NAME))
        with self.started(command, port, cwd=home, env=environ) as client:
            client.login(b"bob", b"secret too")
            self.assertEqual(0, client.stat().messages)
            client.quit()
        (home / "mail" / "bob" / "new" / "1.mail").write_bytes(b"Subject: hello\n\nBob!\n")
        with logged_in(port, b"bob", b"secret too") as client:
            self.assertEqual(1, client.stat().messages)
        self.assertTrue((home / "mail" / "bob" / "cur").is_dir())
        wait_until(lambda: log.read_text().count("] end: ") == 2, "two sessions in the log")
        self.assertEqual(log.read_text().count("] login: "), 2)
        self.program.terminate()
        self.program.wait(DEADLINE)
        self.assertIn("Server Shut Down", log.read_text())
        self.assertNotIn("Traceback", log.read_text())


class AsyncioTests(Examples):
    """Beside tasks of asyncio."""

    NAME = "embed_beside_asyncio.py"

    def test_program(self) -> None:
        """A client is served, the program's own task goes on, and SIGTERM ends both in good order."""
        with self.as_program(self.NAME) as client:
            client.login(b"ann", b"secret")
            seen = client.stat().messages
            client.quit()

        def more() -> bool:
            with StrictClient(self.port) as again:
                again.login(b"ann", b"secret")
                found = again.stat().messages
                again.quit()
                return found > seen

        wait_until(more, "the task has gone on", pause=0.2)
        self.program.terminate()
        self.assertEqual(self.program.wait(DEADLINE), 0)


class ThreadTests(Examples):
    """In a thread of a web program."""

    NAME = "embed_in_a_thread.py"

    def test_program(self) -> None:
        """A visit of the page is a message, and Ctrl-C ends both in good order."""
        web = free_port()
        with self.as_program(self.NAME, str(web)) as client:
            client.login(b"ann", b"secret")
            self.assertEqual(0, client.stat().messages)
            client.quit()
        pages = []

        def visited() -> bool:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{web}/", timeout=DEADLINE) as page:
                    pages.append(page.read())
            except URLError:
                return False
            return True

        wait_until(visited, "the web server listens")
        self.assertEqual(pages, [b"There is a message more.\n"])
        with logged_in(self.port, b"ann", b"secret") as client:
            self.assertEqual(1, client.stat().messages)
        self.program.send_signal(signal.SIGINT)
        self.assertEqual(self.program.wait(DEADLINE), 0)

    def test_taken(self) -> None:
        """A port that is taken is raised where the server was asked for, and the program ends."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = str(other.getsockname()[1])
            done = run_command(sys.executable, EXAMPLES / self.NAME, port, folder=Path(self.mktemp()))
        self.assertEqual(done.returncode, 1)
        self.assertIn("CannotStart: cannot listen on 127.0.0.1:", done.stderr.splitlines()[-1])


class TwistedMailboxTests(Examples):
    """A realm of another program."""

    NAME = "embed_twisted_mailbox.py"

    def test_conversation(self) -> None:
        """Messages of an old mailbox are listed, read and removed."""
        self.serve(self.NAME)
        say = self.connect()
        say("USER ann")
        self.assertEqual(["-ERR [AUTH] invalid user name or password"], say("PASS wrong"))
        say("USER ann")
        self.assertTrue(say("PASS secret")[0].startswith("+OK maildrop has 2 messages"))
        self.assertEqual(["+OK 19 octets", "Subject: two", "", "2", "."], say("RETR 2"))
        self.assertIn("2 second", say("UIDL"))
        say("DELE 1")
        self.assertIn("+OK bye, 1 message removed", say("QUIT"))
        say = self.connect()
        say("USER ann")
        say("PASS secret")
        self.assertEqual(["+OK 1 second"], say("UIDL 1"))

    def test_program(self) -> None:
        """It runs as a program, and a strict client takes no offence."""
        with self.as_program(self.NAME) as client:
            client.login(b"ann", b"secret")
            self.assertEqual(2, client.stat().messages)
