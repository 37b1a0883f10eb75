"""A process that may open few files: fewer connections, each of which hears a word."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path

from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from pop3toy.auth.throttle.connection_limiter import ConnectionLimits
from pop3toy.run.process import RESERVE, Fitting

from ..corpus import awkward_messages, fill_maildir
from ..realserver import RealServer, maildir_options
from ..strictclient import StrictClient


class FittingTests(SynchronousTestCase):
    """``Fitting``: arithmetic."""

    def told(self, fit: Fitting) -> list[str]:
        """What the log says."""
        with capturedLogs() as events:
            fit.tell(asked=False)
        return [formatEvent(event) for event in events]

    def test_enough(self) -> None:
        """Where files are many, limits stay as they were asked for, and nothing is said."""
        limits = ConnectionLimits()
        for files in (524_288, sys.maxsize):
            fit = Fitting(limits, files, smtp=True, lmtp=True)
            self.assertEqual((fit.pop3.connections, fit.smtp.connections), (4096, 4096))
            self.assertEqual((fit.pop3.unauthenticated, self.told(fit)), (1024, []))

    def test_lowered(self) -> None:
        """Where they are few, all maildrops can be open at once beside the reserve, and one line says so."""
        for files in (41, 64, 256, 1024):
            for smtp, lmtp in ((False, False), (True, False), (True, True)):
                fit = Fitting(ConnectionLimits(), files, smtp=smtp, lmtp=lmtp)
                used = 5 * fit.pop3.connections
                used += 4 * fit.smtp.connections * smtp + 4 * fit.lmtp.connections * lmtp
                # One connection of each kind at least.
                self.assertLessEqual(used, max(files - RESERVE, 5 + 4 * smtp + 4 * lmtp))
                self.assertGreaterEqual(min(fit.pop3.connections, fit.smtp.connections), 1)
                self.assertLessEqual(fit.pop3.unauthenticated, fit.pop3.connections)
                [line] = self.told(fit)
                self.assertIn(f"{files:,} open files are allowed, hence {fit.pop3.connections} of POP3", line)
                self.assertEqual(" of SMTP" in line, smtp)

    def test_toy(self) -> None:
        """Where mail is in memory a connection needs its socket alone."""
        self.assertEqual(Fitting(ConnectionLimits(), RESERVE + 24, toy=True).pop3.connections, 24)

    def test_asked_for(self) -> None:
        """Who has asked for a number that cannot be is warned."""
        for asked, level in ((True, LogLevel.warn), (False, LogLevel.info)):
            with capturedLogs() as events:
                Fitting(ConnectionLimits(), 64).tell(asked=asked)
            self.assertEqual([event["log_level"] for event in events], [level])

    def test_workers(self) -> None:
        """Each worker has a part of the connections, and files of its own."""
        limits = ConnectionLimits(connections=1001, unauthenticated=10, per_address=3)
        fit = Fitting(limits, 4096, workers=4)
        self.assertEqual(fit.pop3, ConnectionLimits(251, 3, 1, per_local_address=fit.pop3.per_local_address))
        self.assertEqual(self.told(fit), [])
        few = Fitting(limits, RESERVE + 500, workers=4)
        self.assertEqual(few.pop3.connections, 100)
        [line] = self.told(few)
        self.assertIn("hence 400 of POP3 connections at once instead of 1,001", line)

    def test_smaller_limit(self) -> None:
        """A limit that is smaller than what fits is kept."""
        self.assertEqual(Fitting(ConnectionLimits(connections=7), 1024).pop3.connections, 7)


class FewFilesTests(TestCase):
    """A server with 64 descriptors."""

    def test_strangers(self) -> None:
        """Fifty strangers stop neither RETR nor QUIT of who is inside, and each is told why it has to go."""
        if shutil.which("prlimit") is None:
            raise SkipTest("needs prlimit of util-linux")
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        fill_maildir(folder / "mail" / "ann", awkward_messages(large=False)[:3])
        options = maildir_options(folder / "mail")
        server = RealServer(*options, folder=folder, launcher=("prlimit", "--nofile=64:64"))
        self.addCleanup(server.kill)
        user = StrictClient(server.port)
        self.addCleanup(user.close)
        user.login()
        strangers = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
        for stranger in strangers:
            self.addCleanup(stranger.close)
            stranger.settimeout(60)
            self.assertRegex(stranger.recv(100), rb"^(\+OK|-ERR)")
        user.retr(1)
        user.quit()
        self.assertIn("64 open files are allowed, hence 4 of POP3 connections", server.log)
