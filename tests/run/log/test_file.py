"""``--log-file``: who may read it, whose it is, and what goes with it; files that are opened again."""

from __future__ import annotations

import os
import stat
from typing import Unpack

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from pop3toy import Settings
from pop3toy.errors import BadSetting
from pop3toy.observe.log_levels import Levels
from pop3toy.run.assembly import server
from pop3toy.run.checks import check_files
from pop3toy.run.log.choosing import check_log, chosen_log
from pop3toy.run.log.file import Reopening, log_writer
from pop3toy.run.process import TwistdOptions

from ...folders import new_folder
from ...realserver import DEADLINE, wait_until

NOBODY = 65534


def lost(lines: int) -> str:
    """In place of lines that could not be written."""
    return f"{lines} lost"


class FileCase(SynchronousTestCase):
    """A folder for a log."""

    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.path = self.folder / "log"


class FileTests(FileCase):
    """What root, and others, make of the file."""

    def test_mode(self) -> None:
        """A new file can be read by its group, whatever the umask; one that is there stays as it is."""
        for umask in (0o077, 0o000):
            before = os.umask(umask)
            try:
                writer = log_writer(str(self.path), None, lost)
                writer.write("x\n")
                writer.stop()
            finally:
                os.umask(before)
            self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640)
            self.path.unlink()
        self.path.touch(0o600)
        log_writer(str(self.path), None, lost).write("x\n")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_owner(self) -> None:
        """Root makes it for the user that it will be, and follows no link of that user's."""
        if os.geteuid() != 0:
            raise SkipTest("only root gives files away")
        log_writer(str(self.path), (NOBODY, NOBODY), lost).write("x\n")
        self.assertEqual((self.path.stat().st_uid, self.path.stat().st_gid), (NOBODY, NOBODY))
        kept = self.folder / "root's"
        kept.write_text("kept\n")
        self.path.unlink()
        self.path.symlink_to(kept)
        with self.assertRaises(OSError):
            log_writer(str(self.path), (NOBODY, NOBODY), lost).write("x\n")
        self.assertEqual((kept.read_text(), kept.stat().st_uid), ("kept\n", 0))
        # Without somebody to become, it is the administrator's own.
        log_writer(str(self.path), None, lost).write("x\n")
        self.assertEqual(kept.read_text(), "kept\nx\n")


class CheckTests(FileCase):
    """What is wrong is one line before the start."""

    def refused(self, settings: Settings, **twistd: Unpack[TwistdOptions]) -> str:
        """Why it is."""
        with self.assertRaises(BadSetting) as raised:
            check_files(settings)
            check_log(settings, twistd)
        return str(raised.exception)

    def test_twistd(self) -> None:
        """twistd's own options for a log do not go with ours, as far as they contradict them."""
        log_file = Settings(log_file=str(self.path))
        self.assertEqual(
            self.refused(log_file, logfile="x"), "--log-file and twistd's --logfile do not go together"
        )
        self.assertIn("--syslog", self.refused(log_file, syslog=True))
        self.assertIn("--logger", self.refused(log_file, logger=print))
        json = Settings(log_format="json")
        self.assertIn("--log-format json and twistd's --syslog", self.refused(json, syslog=True))
        warn = Settings(log_level="warn")
        self.assertIn("--log-level and twistd's --logger", self.refused(warn, logger=print))
        check_log(Settings(log_format="json", log_level="warn"), {"logfile": "x"})
        check_log(Settings(log_level="warn"), {"syslog": True})
        check_log(log_file, {"nodaemon": True, "logfile": None})

    def test_places(self) -> None:
        """A folder that is missing, a folder in its place, and a pipe, which would wait for its reader."""
        self.assertIn("cannot write to", self.refused(Settings(log_file=str(self.folder / "no" / "log"))))
        self.assertIn("cannot write to", self.refused(Settings(log_file=str(self.folder))))
        os.mkfifo(self.path)
        self.assertIn("is a pipe", self.refused(Settings(log_file=str(self.path))))

    def test_whose(self) -> None:
        """A file that the user of --uid could not open again, and a link that root would follow."""
        if os.geteuid() != 0:
            raise SkipTest("only root becomes somebody else")
        settings = Settings(log_file=str(self.path))
        check_log(settings, {"uid": NOBODY, "gid": NOBODY})
        self.path.touch()
        self.assertIn("belongs to another user", self.refused(settings, uid=NOBODY))
        os.chown(self.path, NOBODY, NOBODY)
        check_log(settings, {"uid": NOBODY, "gid": NOBODY})
        self.path.rename(self.folder / "other")
        self.path.symlink_to(self.folder / "other")
        self.assertIn("is a link", self.refused(settings, uid=NOBODY))
        check_log(settings, {})

    def test_words(self) -> None:
        """A format or a level that there is not."""
        for wrong, says in (
            ({"log_format": "xml"}, ": there are text, json"),
            ({"log_level": "loud"}, ": there are debug, info, warn, error, critical"),
        ):
            with self.assertRaisesRegex(BadSetting, says):
                Settings(**wrong)  # type: ignore[arg-type]

    def test_of_another_program(self) -> None:
        """Another program has a log of its own."""
        reactor = MemoryReactorClock()
        for settings in (Settings(log_file=str(self.path)), Settings(log_format="json")):
            with self.assertRaisesRegex(BadSetting, "another program has a log of its own"):
                server(reactor, settings)


class ReopeningTests(FileCase):
    """A file that was renamed."""

    def test_renamed(self) -> None:
        """With its thread or without it, what comes behind goes to the new file, and nothing is lost."""
        for started in (False, True):
            writer = log_writer(str(self.path), None, lost)
            if started:
                writer.start()
            others: list[bool] = []
            files = Reopening([writer], lambda others=others: others.append(True))  # type: ignore[misc]
            files.reload_if_changed()
            writer.write("before\n")
            self.path_written("before\n")
            self.path.rename(self.folder / "old")
            files.reload()
            writer.write("behind\n")
            self.assertTrue(writer.stop(patience=DEADLINE))
            self.assertEqual((self.folder / "old").read_text(), "before\n")
            self.assertEqual(self.path.read_text(), "behind\n")
            self.assertEqual(others, [True])
            self.path.unlink()

    def path_written(self, text: str) -> None:
        """Wait until the file has this."""
        wait_until(lambda: self.path.exists() and self.path.read_text() == text, text)

    def test_of_the_settings(self) -> None:
        """Only a process of twistd's has the file; its lost lines are lines of the log."""
        settings = Settings(log_file=str(self.path), log_format="json", log_level="warn")
        levels = Levels()
        self.assertIsNone(chosen_log(settings, {}, levels).writer)
        chosen = chosen_log(settings, {"nodaemon": True}, levels)
        assert chosen.writer is not None
        self.assertEqual(chosen.writer.path, str(self.path))
        self.assertIn('"message":"3 lines of the log are lost', chosen.writer._lost_line(3))
        self.assertEqual(sorted(one.name for one in levels.shown), ["critical", "error", "warn"])  # type: ignore[attr-defined]
