"""Unix sockets: systemd's stay as they are, and one at which nobody answers any more is taken over."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.protocol import Factory, ServerFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.files import Owner
from pop3toy.net.unix_sockets import UnixListening

from ..corpus import awkward_messages, fill_maildir
from ..folders import new_folder
from ..realserver import (
    DEADLINE,
    RealServer,
    ServerDied,
    environment,
    maildir_options,
    twistd,
    wait_until,
)
from ..tls_world import Wire


def knock(path: str) -> bytes:
    """What a server at this socket says to QUIT."""

    def connected() -> bool:
        # A socket has its name a moment before it is listened to.
        with contextlib.suppress(OSError):
            wires.append(Wire(path))
        return bool(wires)

    wires: list[Wire] = []
    wait_until(connected, "somebody listens")
    with wires[0] as wire:
        wire.send(b"QUIT\r\n")
        return wire.rest()


def close(port: Any) -> None:
    """End a port at once, without the reactor."""
    port.stopReading()
    port.connectionLost(Failure(ConnectionDone()))


class Case(SynchronousTestCase):
    """Servers with a Maildir, and a folder for sockets, whose names may not be long."""

    def setUp(self) -> None:
        self.path = f"{new_folder(self)}/s"
        self.folder = Path(self.mktemp()).absolute()
        fill_maildir(self.folder / "mail" / "ann", awkward_messages(large=False)[:2])
        (self.folder / "home").mkdir()

    def start(self, *options: str, workers: int = 0, **more: Any) -> RealServer:
        """A server."""
        several = [f"--workers={workers}"] if workers else []
        server = RealServer(
            *maildir_options(self.folder / "mail"), *several, *options, folder=self.folder / "home", **more
        )
        self.addCleanup(server.terminate)
        wait_until(lambda: server.log.count(" serves (process ") == workers, "all workers serve")
        return server

    @property
    def file(self) -> tuple[int, int, int, str]:
        """Which file it is, whose, and who may connect."""
        status = os.lstat(self.path)
        return status.st_ino, status.st_uid, status.st_gid, stat.filemode(status.st_mode)


class HandedOverTests(Case):
    """``systemd:domain=UNIX:index=0``."""

    # As systemd does it: descriptors from 3 on, and the number of the process that they are for.
    named = 'exec 3<&"$1"; shift; LISTEN_FDS=1 LISTEN_FDNAMES=a LISTEN_PID=$$ exec "$@"'
    unnamed = 'exec 3<&"$1"; shift; unset LISTEN_FDNAMES; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'

    def handed_over(self, theirs: socket.socket, script: str) -> dict[str, Any]:
        """How a server is started that gets this socket."""
        number = theirs.fileno()
        return {"launcher": ["bash", "-c", script, "systemd", str(number)], "inherited": [number]}

    def test_left_alone(self) -> None:
        """Mode, owner and path are as they were while it serves and when it has ended, and others connect."""
        for workers in (0, 2):
            for option in ("--lmtp", "--smtp", "--listen"):
                with self.subTest(workers=workers, option=option), socket.socket(socket.AF_UNIX) as theirs:
                    theirs.bind(self.path)
                    os.chmod(self.path, 0o640)
                    theirs.listen()
                    before = self.file
                    server = self.start(
                        f"{option}=systemd:domain=UNIX:index=0",
                        "--listen=tcp:0:interface=127.0.0.1",
                        workers=workers,
                        **self.handed_over(theirs, self.named),
                    )
                    self.assertIn(knock(self.path)[:3], (b"+OK", b"220"))
                    self.assertEqual(before, self.file)
                    self.assertTrue(server.terminate())
                    self.assertEqual(before, self.file)
                    # systemd has it still, and starts the next server for whoever comes.
                    with socket.socket(socket.AF_UNIX) as client:
                        client.connect(self.path)
                os.unlink(self.path)

    def test_without_names(self) -> None:
        """LISTEN_FDNAMES may be missing; an index that is not there is one line, as it is with names."""
        for workers in (0, 2):
            with self.subTest(workers=workers), socket.create_server(("127.0.0.1", 0)) as theirs:
                how = self.handed_over(theirs, self.unnamed)
                server = self.start("--listen=systemd:domain=INET:index=0", workers=workers, **how)
                with Wire(theirs.getsockname()[1]) as wire:
                    wire.send(b"QUIT\r\n")
                    self.assertEqual(2, wire.rest().count(b"+OK"))
                self.assertTrue(server.terminate())
                with self.assertRaises(ServerDied) as raised:
                    self.start("--listen=systemd:domain=INET:index=1", workers=workers, **how)
                self.assertIn("systemd has handed over no such socket", str(raised.exception))

    def test_systemd_socket_activate(self) -> None:
        """systemd's own program hands over a Unix socket and one of TCP, with names and without."""
        if shutil.which("systemd-socket-activate") is None:
            raise SkipTest("systemd-socket-activate is not installed (Debian package systemd)")
        for more in ([], ["--fdname=pop3"]):
            with self.subTest(more=more):
                log = self.folder / "home" / "log"
                log.unlink(missing_ok=True)
                process = subprocess.Popen(
                    [
                        "systemd-socket-activate",
                        # It passes next to nothing on.
                        *(f"-E{name}={value}" for name, value in environment(self.folder / "home").items()),
                        *more,
                        f"--listen={self.path}",
                        *twistd("-n", "--pidfile=", f"--logfile={log}", "pop3toy"),
                        *maildir_options(self.folder / "mail"),
                        "--listen=systemd:domain=UNIX:index=0",
                    ],
                    cwd=self.folder / "home",
                    env=environment(self.folder / "home"),
                    stderr=subprocess.DEVNULL,
                )
                try:
                    wait_until(lambda: os.path.exists(self.path), "it listens")
                    before = self.file
                    self.assertEqual(2, knock(self.path).count(b"+OK"))
                    self.assertEqual(before, self.file)
                finally:
                    process.terminate()
                    process.wait(DEADLINE)
                self.assertTrue(os.path.exists(self.path))
                os.unlink(self.path)


class LeftBehindTests(Case):
    """``unix:PATH`` where a server was killed."""

    def abandon(self) -> None:
        """Leave what a killed server leaves, whose number some other process has now."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(self.path)
            dead.listen()
        os.symlink("1", f"{self.path}.lock")

    def test_taken_over(self) -> None:
        """A socket at which nobody answers is taken over, whoever has the old number, and goes in the end."""
        for workers in (0, 2):
            for option in ("--listen", "--lmtp", "--smtp"):
                with self.subTest(workers=workers, option=option):
                    self.abandon()
                    server = self.start(
                        f"{option}=unix:{self.path}:mode=600",
                        "--listen=tcp:0:interface=127.0.0.1",
                        workers=workers,
                    )
                    self.assertIn(knock(self.path)[:3], (b"+OK", b"220"))
                    self.assertEqual("srw-------", self.file[-1])
                    self.assertTrue(server.terminate())
                    self.assertFalse(os.path.lexists(self.path))
                    self.assertFalse(os.path.lexists(f"{self.path}.lock"))

    def test_killed(self) -> None:
        """The next server serves where one was killed."""
        options = ["--listen=tcp:0:interface=127.0.0.1", f"--listen=unix:{self.path}"]
        first = self.start(*options)
        first.kill()
        self.assertTrue(os.path.exists(self.path))
        (self.folder / "home" / "server.pid").unlink()
        server = self.start(*options)
        self.assertEqual(2, knock(self.path).count(b"+OK"))
        self.assertTrue(server.terminate())

    def test_answered(self) -> None:
        """A socket at which somebody answers, or is too busy to, is his: one line, and he goes on."""
        for busy in (False, True):
            with self.subTest(busy=busy), socket.socket(socket.AF_UNIX) as alive:
                alive.bind(self.path)
                alive.listen(0)
                first = socket.socket(socket.AF_UNIX)
                self.addCleanup(first.close)
                if busy:
                    first.connect(self.path)
                with self.assertRaises(ServerDied) as raised:
                    self.start(f"--listen=unix:{self.path}", "--listen=tcp:0:interface=127.0.0.1")
                says = f"pop3toy: cannot listen on unix:{self.path}: a server answers there already\n"
                self.assertIn(says, str(raised.exception))
                self.assertIn("exit status 1", str(raised.exception))
                self.assertNotIn("Traceback", str(raised.exception))
                self.assertTrue(os.path.exists(self.path))
            os.unlink(self.path)

    def test_stopped_server(self) -> None:
        """A server that is only stopped for a while keeps its socket."""
        options = ["--listen=tcp:0:interface=127.0.0.1", f"--listen=unix:{self.path}"]
        first = self.start(*options)
        (self.folder / "home" / "server.pid").unlink()
        os.kill(first.process.pid, signal.SIGSTOP)
        try:
            log = first.log
            with self.assertRaises(ServerDied) as raised:
                RealServer(*maildir_options(self.folder / "mail"), *options)
            self.assertIn("a server answers there already", str(raised.exception))
            self.assertEqual(log, first.log)
        finally:
            os.kill(first.process.pid, signal.SIGCONT)
        self.assertEqual(2, knock(self.path).count(b"+OK"))

    def test_no_socket(self) -> None:
        """A file of another kind is never removed, and what is missing or closed is a reason in the log."""
        Path(self.path).write_text("somebody's")
        reasons = {
            self.path: "there is a file or folder of that name already",
            f"{self.path}.d/s": f"there is no folder {self.path}.d",
        }
        for path, reason in reasons.items():
            with self.assertRaises(ServerDied) as raised:
                self.start(f"--listen=unix:{path}", "--listen=tcp:0:interface=127.0.0.1")
            self.assertIn(f"cannot listen on unix:{path}: {reason}\n", str(raised.exception))
        self.assertEqual("somebody's", Path(self.path).read_text())
        self.assertEqual(["s"], os.listdir(os.path.dirname(self.path)))

    def test_two_at_once(self) -> None:
        """Of two servers that find a dead socket at the same moment one takes it and one is refused."""
        from twisted.internet import reactor

        listening = UnixListening(reactor)  # type: ignore[arg-type]
        self.abandon()

        class Opening(Factory):
            """Looks what another one can do while its server is opening its socket."""

            def doStart(inner) -> None:
                self.assertFalse(os.path.lexists(self.path))
                with socket.socket(socket.AF_UNIX) as other:
                    other.bind(self.path)
                    # Bound and not listening yet: as dead as it looks, it is not removed.
                    self.assertRaises(
                        CannotListenError, listening.listenUNIX, self.path, Factory(), wantPID=1
                    )
                    self.assertTrue(os.path.exists(self.path))

        self.assertRaises(CannotListenError, listening.listenUNIX, self.path, Opening())
        # Neither of them has left anything else.
        self.assertEqual(["s"], os.listdir(os.path.dirname(self.path)))

    def test_owner(self) -> None:
        """A socket that root opens is the user's that it becomes, with the mode as given, in any folder."""
        if os.geteuid() != 0:
            raise SkipTest("only root can become somebody else")
        from twisted.internet import reactor

        owner = Owner(65534, 65534)
        listening = UnixListening(reactor, owner)  # type: ignore[arg-type]
        folder = os.path.dirname(self.path)
        for user in (0, owner.uid):
            os.chown(folder, user, user)
            os.chmod(folder, 0o755)
            # One that an earlier start has left as root is in nobody's way.
            self.abandon()
            port = listening.listenUNIX(self.path, ServerFactory(), mode=0o620, wantPID=True)
            self.assertEqual(self.file[1:], (*owner, "srw--w----"), user)
            # Where that user can remove it, the lock too is one that this user has made.
            self.assertEqual(os.lstat(f"{self.path}.lock").st_uid, user)
            self.assertEqual(os.geteuid(), 0)
            close(port)
            self.assertEqual([], os.listdir(folder))

    def test_cannot_be(self) -> None:
        """Where no socket can be, the reason is one that helps, and nothing is left there."""
        from twisted.internet import reactor

        listening = UnixListening(reactor)  # type: ignore[arg-type]
        folder = os.path.dirname(self.path)
        Path(f"{folder}/file").touch()
        longest = f"{folder}/".ljust(107, "x")
        for path, why in (
            (f"{longest}x", "107 octets"),
            ("", "a path is wanted"),
            (f"{folder}/", "a path is wanted"),
            (f"{folder}/file", "a file or folder of that name"),
            (f"{folder}/file/s", f"{folder}/file is no folder"),
            (f"{folder}/none/s", f"there is no folder {folder}/none"),
        ):
            error = self.assertRaises(
                CannotListenError, listening.listenUNIX, path, ServerFactory(), wantPID=True
            )
            self.assertIn(why, str(error.socketError), path)
        self.assertEqual(["file"], os.listdir(folder))
        close(listening.listenUNIX(longest, ServerFactory()))

    def test_folder_locked(self) -> None:
        """Whoever can open the folder cannot keep a server from it."""
        folder = os.path.dirname(self.path)
        for how in (fcntl.LOCK_SH, fcntl.LOCK_EX):
            self.abandon()
            descriptor = os.open(folder, os.O_RDONLY)
            self.addCleanup(os.close, descriptor)
            fcntl.flock(descriptor, how)
            server = self.start("--listen=tcp:0:interface=127.0.0.1", f"--listen=unix:{self.path}")
            self.assertEqual(2, knock(self.path).count(b"+OK"))
            self.assertEqual(["s", "s.lock"], sorted(os.listdir(folder)))
            self.assertTrue(server.terminate())
            self.assertEqual([], os.listdir(folder))
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def test_interrupted_start(self) -> None:
        """What a server leaves that was killed at its start is in nobody's way."""
        Path(f"{self.path}.starting").touch()
        server = self.start("--listen=tcp:0:interface=127.0.0.1", f"--listen=unix:{self.path}")
        self.assertEqual(["s", "s.lock"], sorted(os.listdir(os.path.dirname(self.path))))
        self.assertTrue(server.terminate())

    def test_another_servers_socket(self) -> None:
        """A server that stops leaves another one's socket alone, which is where its own was."""
        for workers in (0, 2):
            with self.subTest(workers=workers):
                options = ["--listen=tcp:0:interface=127.0.0.1", f"--listen=unix:{self.path}"]
                first = self.start(*options, workers=workers)
                (self.folder / "home" / "server.pid").unlink()
                os.unlink(self.path)
                # Not in the same folder, where the log is.
                second = RealServer(*maildir_options(self.folder / "mail"), *options)
                self.addCleanup(second.terminate)
                before = self.file
                self.assertTrue(first.terminate())
                self.assertEqual(before, self.file)
                self.assertTrue(os.path.islink(f"{self.path}.lock"))
                self.assertEqual(2, knock(self.path).count(b"+OK"))
                self.assertTrue(second.terminate())
                self.assertEqual([], os.listdir(os.path.dirname(self.path)))

    def test_removed(self) -> None:
        """A server whose socket, or the lock beside it, was removed stops as any other."""
        for gone in ([""], [".lock"], ["", ".lock"]):
            with self.subTest(gone=gone):
                server = self.start("--listen=tcp:0:interface=127.0.0.1", f"--listen=unix:{self.path}")
                for end in gone:
                    os.unlink(self.path + end)
                server.terminate()
                self.assertNotIn("Traceback", server.log)
                self.assertFalse(os.path.exists(self.path))
                (self.folder / "home" / "log").unlink(missing_ok=True)
