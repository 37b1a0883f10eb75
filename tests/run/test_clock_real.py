"""A running server whose clock is set, by libfaketime: nobody is thrown out, held up or locked out."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from ..corpus import awkward_messages, fill_maildir
from ..realserver import DEADLINE, RealServer, environment, maildir_options, wait_until
from ..strictclient import Refused, StrictClient
from ..tls_world import Wire

_FOUND = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
without_faketime = skipIf(not _FOUND, "Debian's faketime is not installed")

#: A server of another program, over its own reactor: three wrong passwords cost nothing, the next a second.
_EMBEDDED = """
import sys
from twisted.cred.portal import Portal
from twisted.internet import reactor
from pop3toy import MailboxRealm, POP3Factory, PortalAuthenticator
from pop3toy.auth.accounts.memory import MemoryAccounts
from pop3toy.auth.throttle.login_throttle import LoginThrottle
from pop3toy.stores.memory import MemoryStore

portal = Portal(MailboxRealm(MemoryStore({"ann": [b"x"]})), [MemoryAccounts({"ann": "secret"})])
factory = POP3Factory(reactor, PortalAuthenticator(portal, throttle=LoginThrottle(reactor)))
port = reactor.listenTCP(0, factory, interface="127.0.0.1")
before = reactor.seconds
reactor.callWhenRunning(lambda: print(port.getHost().port, flush=True))
reactor.run()
assert reactor.seconds is before
"""


class SetClock:
    """A clock that can be set, for processes that are started with :attr:`launcher`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set("+0")
        preload = {
            "LD_PRELOAD": str(_FOUND[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            # Nobody sets the monotonic clock, or what files say.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self.launcher = ["env", *(f"{name}={value}" for name, value in preload.items())]

    def set(self, to: str) -> None:
        """Set it, relative to the real one: ``+15m``, ``-1h``."""
        written = self._file.with_suffix(".new")
        written.write_text(f"{to}\n")
        os.replace(written, self._file)


@without_faketime
class RealClockTests(SynchronousTestCase):
    """``twistd pop3toy``, in one process."""

    workers: ClassVar[int] = 0

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        for user in ("ann", "bob"):
            fill_maildir(self.folder / "mail" / user, awkward_messages(large=False)[:3])
        (self.folder / "home").mkdir()
        self.clock = SetClock(self.folder)

    def start(self, *options: str) -> RealServer:
        """A server that reads its time from :attr:`clock`."""
        several = [f"--workers={self.workers}"] if self.workers else []
        server = RealServer(
            *maildir_options(self.folder / "mail", ["ann:secret", "bob:secret"]),
            *several,
            *options,
            folder=self.folder / "home",
            launcher=self.clock.launcher,
        )
        self.addCleanup(server.terminate)
        wait_until(lambda: server.log.count(" serves (process ") == self.workers, "all workers serve")
        return server

    def client(self, port: int) -> StrictClient:
        """Somebody who has been greeted."""
        client = StrictClient(port, timeout=20)
        self.addCleanup(client.close)
        return client

    def test_forward(self) -> None:
        """A session outlives a clock that is set forward; QUIT removes what it marked."""
        server = self.start()
        client = self.client(server.port)
        client.login()
        client.dele(1)
        self.clock.set("+15m")
        # Whoever connects has the server look at its clock.
        self.client(server.port).login(b"bob")
        client.quit()
        self.assertEqual(2, len(list((self.folder / "mail" / "ann").glob("[cn][ue][rw]/*"))))
        wait_until(lambda: "ended=quit" in server.log, "the log tells of the end")
        self.assertNotIn("ended=timeout", server.log)

    def test_penalty(self) -> None:
        """A wrong password that waits for its answer gets it, though the clock is set back meanwhile."""
        server = self.start()
        client = self.client(server.port)
        for attempt in range(5):
            client.command(b"USER ann")
            if attempt == 4:
                threading.Timer(0.5, self.clock.set, ["-1h"]).start()
            with self.assertRaises(Refused):
                client.command(b"PASS wrong")

    def test_login_delay(self) -> None:
        """The delay between logins is over when it is, though the clock was set back an hour."""
        server = self.start("--login-delay=2")
        client = self.client(server.port)
        client.login()
        client.quit()
        self.clock.set("-1h")

        def comes_in() -> bool:
            with StrictClient(server.port) as again:
                try:
                    again.login()
                except Refused as refused:
                    self.assertEqual(b"LOGIN-DELAY", refused.code)
                    return False
                return True

        wait_until(comes_in, "the next login is let in", pause=0.2)

    def test_output(self) -> None:
        """A flood of commands is answered to the end, though the clock is set back in the middle of it."""
        server = self.start()
        count = 200_000
        with Wire(server.port) as wire:
            threading.Thread(
                target=wire.send,
                args=(b"USER ann\r\nPASS secret\r\n" + b"NOOP\r\n" * count + b"QUIT\r\n",),
                daemon=True,
            ).start()
            answers, back = 0, 0
            while piece := wire.receive():
                answers += piece.count(b"\n")
                if answers > (back + 1) * count / 8:
                    back += 1
                    self.clock.set(f"-{back}h")
        self.assertEqual(count + 4, answers)
        self.assertGreater(back, 4)


class RealWorkersClockTests(RealClockTests):
    """``twistd pop3toy --workers``: what workers tell each other is measured by one clock."""

    workers = 2


@without_faketime
class EmbeddedClockTests(SynchronousTestCase):
    """A server in a program of somebody else's, whose reactor keeps its time."""

    @contextmanager
    def serve(self, clock: SetClock, folder: Path) -> Iterator[int]:
        """Run it; gives its port."""
        process = subprocess.Popen(
            [*clock.launcher, sys.executable, "-c", _EMBEDDED],
            env=environment(folder),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()
            process.wait(DEADLINE)
            process.stdout.close()

    def test_penalty(self) -> None:
        """A wrong password that waits for its answer gets it, though the clock is set back meanwhile."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        clock = SetClock(folder)
        with self.serve(clock, folder) as port, StrictClient(port, timeout=20) as client:
            for attempt in range(5):
                client.command(b"USER ann")
                if attempt == 4:
                    threading.Timer(0.5, clock.set, ["-1h"]).start()
                with self.assertRaises(Refused):
                    client.command(b"PASS wrong")
