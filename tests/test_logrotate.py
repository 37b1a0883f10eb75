"""The file for logrotate in docs/: the real one turns the log over while people log in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import pop3toy

from .corpus import make_maildir
from .folders import new_folder
from .realserver import DEADLINE, RealServer, maildir_options, text_of, wait_until
from .strictclient import StrictClient

FILE = Path(pop3toy.__file__).parent.parent / "docs" / "logrotate" / "pop3toy"


class RotateTests(SynchronousTestCase):
    """``logrotate --force``."""

    def setUp(self) -> None:
        if shutil.which("logrotate") is None:
            raise SkipTest("logrotate is not installed (Debian package logrotate)")
        self.folder = new_folder(self)
        for user in ("ann", "bob"):
            make_maildir(self.folder / "mail" / user)
        self.path = self.folder / "logs" / "pop3toy.log"
        # logrotate does nothing in a folder that others may write to.
        self.path.parent.mkdir(mode=0o750)

    def configured(self) -> Path:
        """The file, for this server: its log, its pid file, and whoever runs the tests."""
        said = FILE.read_text()
        self.assertIn("systemctl reload", said)
        user = f"{os.geteuid()} {os.getegid()}"
        for ours, theirs in (
            ("/var/log/pop3toy/pop3toy.log", str(self.path)),
            ("/run/pop3toy/pid", str(self.folder / "server.pid")),
            ("pop3toy pop3toy", user),
        ):
            self.assertIn(ours, said)
            said = said.replace(ours, theirs)
        file = self.folder / "logrotate.conf"
        file.write_text(said)
        file.chmod(0o644)
        return file

    def rotate(self, file: Path) -> None:
        """Turn the log over now."""
        done = subprocess.run(
            ["logrotate", "--force", f"--state={self.folder}/state", str(file)],
            capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def turned_over(self, *options: str) -> None:
        """Two rotations while two users log in all the time: no line is lost, none is there twice."""
        file, stop = self.configured(), threading.Event()
        sessions: list[str] = []
        options = (*maildir_options(self.folder / "mail", ["ann:secret", "bob:secret"]), *options)
        server = RealServer(*options, f"--log-file={self.path}", folder=self.folder)
        self.addCleanup(server.terminate)
        port = server.port

        def log_in(user: bytes) -> None:
            while not stop.is_set():
                with StrictClient(port) as client:
                    client.login(user)
                    client.quit()
                sessions.append(user.decode())

        clients = [threading.Thread(target=log_in, args=(user,)) for user in (b"ann", b"bob")]
        for one in clients:
            one.start()
        try:
            for times in (1, 2):
                wait_until(lambda times=times: len(sessions) > 30 * times, "people log in")  # type: ignore[misc]
                before = len(sessions)
                self.rotate(file)
                wait_until(lambda: " end: session=" in text_of(self.path), "the new file has lines")
                wait_until(lambda before=before: len(sessions) > before + 30, "people go on")  # type: ignore[misc]
        finally:
            stop.set()
            for one in clients:
                one.join()
        server.signal_to_end()
        server.process.wait(DEADLINE)
        shown = sorted(self.path.parent.iterdir())
        # The last but one is compressed the next time.
        self.assertEqual([one.name for one in shown], ["pop3toy.log", "pop3toy.log.1", "pop3toy.log.2.gz"])
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o640)
        subprocess.run(["gzip", "-d", str(shown[2])], check=True)
        said = "".join(one.read_text() for one in self.path.parent.iterdir())
        for kind in ("login", "end"):
            numbers = re.findall(rf"\] {kind}: session=(\d+) ", said)
            self.assertEqual((len(numbers), len(set(numbers))), (len(sessions), len(sessions)), kind)
        self.assertIn("Server Shut Down.", self.path.read_text())

    def test_one_process(self) -> None:
        """A server of one process."""
        self.turned_over()

    def test_workers(self) -> None:
        """One with workers, whose lines the supervisor writes."""
        self.turned_over("--workers=2")
