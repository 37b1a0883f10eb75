"""Maildirs on a file system that another process serves, as NFS and FUSE are (bindfs)."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ..folders import new_folder
from ..realserver import DEADLINE, POP3TOY, RealServer, maildir_options, run_command, wait_until
from ..strictclient import Refused, logged_in

#: Seconds until a user of a disk that hangs has an answer; others have one long before.
BOUNDED, AT_ONCE = 25.0, 5.0


class NetworkDiskTests(SynchronousTestCase):
    """Two servers, ann's Maildir on such a file system, bob's on this machine's."""

    def setUp(self) -> None:
        if shutil.which("bindfs") is None:
            raise SkipTest("bindfs is not installed (Debian package bindfs)")
        self.root = new_folder(self)
        self.mail, behind = self.root / "mail", self.root / "behind"
        for folder in (self.mail / "ann", behind / "new", behind / "cur", behind / "tmp"):
            folder.mkdir(parents=True)
        self.disk = subprocess.Popen(
            ["bindfs", "-f", "--no-allow-other", behind, self.mail / "ann"], stderr=subprocess.PIPE
        )
        self.addCleanup(self.unmount)
        wait_until(self.is_mounted, "the file system is there")
        self.servers = [self.started(name) for name in ("one", "two")]

    def is_mounted(self) -> bool:
        """Whether it is there; skips where it cannot be."""
        if self.disk.poll() is not None:
            assert self.disk.stderr is not None
            raise SkipTest(f"no FUSE here: {self.disk.stderr.read().decode().strip()}")
        return f" {self.mail}/ann fuse" in Path("/proc/mounts").read_text()

    def unmount(self) -> None:
        """Take it away, whatever it does."""
        if self.disk.poll() is None:
            self.disk.send_signal(signal.SIGCONT)
        subprocess.run(["umount", "-l", self.mail / "ann"], capture_output=True, timeout=DEADLINE)
        self.disk.kill()
        self.disk.communicate(timeout=DEADLINE)

    def started(self, name: str) -> RealServer:
        """A server for all mail."""
        (self.root / name).mkdir()
        options = [*maildir_options(self.mail, ("ann:secret", "bob:secret")), "--create"]
        server = RealServer(*options, "--lock-wait=0", folder=self.root / name)
        self.addCleanup(server.terminate)
        return server

    def deliver(self, user: str, text: str) -> None:
        """A message by the command."""
        options = maildir_options(self.mail)[0]
        done = run_command(
            *POP3TOY, "deliver", options, "--create", user, folder=self.root / "deliver", stdin=text
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def messages(self, server: RealServer, user: bytes) -> list[bytes]:
        """What a user has at a server."""
        with logged_in(server.port, user, timeout=DEADLINE) as client:
            return [client.retr(number) for number in range(1, client.stat().messages + 1)]

    def test_two_servers(self) -> None:
        """Mail is delivered, deleted by QUIT and locked for both servers of the host, as on a disk."""
        for number in range(3):
            self.deliver("ann", f"Subject: {number}\n\nbody\n")
        one, two = self.servers
        with logged_in(one.port, b"ann", timeout=DEADLINE) as client:
            uids = client.uids()
            with self.assertRaises(Refused) as refused:
                self.messages(two, b"ann")
            self.assertEqual(refused.exception.code, b"IN-USE")
            client.dele(2)
        with logged_in(two.port, b"ann", timeout=DEADLINE) as client:
            self.assertEqual(list(client.uids().values()), [uids[1], uids[3]])
        self.assertEqual(2, len(self.messages(one, b"ann")))

    def test_hangs(self) -> None:
        """While its process is stopped ann is told [SYS/TEMP] in time and bob is served; then ann is, too."""
        self.deliver("ann", "Subject: a\n\nbody\n")
        self.deliver("bob", "Subject: b\n\nbody\n")
        [server, _] = self.servers
        self.assertEqual(1, len(self.messages(server, b"ann")))
        self.disk.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        with self.assertRaises(Refused) as refused:
            self.messages(server, b"ann")
        self.assertEqual(refused.exception.code, b"SYS/TEMP")
        self.assertLess(time.monotonic() - began, BOUNDED)
        began = time.monotonic()
        self.assertEqual(1, len(self.messages(server, b"bob")))
        self.assertLess(time.monotonic() - began, AT_ONCE)
        self.disk.send_signal(signal.SIGCONT)

        def is_served() -> bool:
            try:
                return len(self.messages(server, b"ann")) == 1
            except Refused:
                return False

        wait_until(is_served, "ann is served", pause=0.2)
