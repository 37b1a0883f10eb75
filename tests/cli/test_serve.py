"""``pop3toy serve`` and ``python -m pop3toy``: the same server as ``twistd -n pop3toy``."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.cli_world import CommandTests  # noqa: F401  (skips where click is missing)

from ..folders import new_folder
from ..realserver import DEADLINE, POP3TOY, environment, listening, run_command, twistd, wait_until
from ..strictclient import StrictClient

SERVE = [*POP3TOY, "serve"]
MODULE = [sys.executable, "-m", "pop3toy"]
#: What each calls itself.
NAMES = ((SERVE, "pop3toy serve"), (MODULE, "python -m pop3toy"))
TWISTD = twistd("-n", "--pidfile=", "pop3toy")


class ServeTests(SynchronousTestCase):
    """Each of the three ways, and that they are one."""

    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.file = self.folder / "pop3toy.toml"
        (self.folder / "mail").mkdir()
        self.write()

    def write(self, limits: str = "") -> None:
        """A server on any free port."""
        self.file.write_text(
            "[pop3]\nport = 0\n[store]\nmaildir = 'mail/{user}'\ncreate = true\n"
            f"[accounts]\nuser = ['ann:secret']\n[limits]\n{limits}\n"
        )

    def start(self, command: Sequence[str], **environ: str) -> tuple[subprocess.Popen[bytes], Path]:
        """Start it; gives the process when it listens, and the file of what it writes."""
        words = self.folder / f"words{len(list(self.folder.iterdir()))}"
        with words.open("wb") as out:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**environment(self.folder), **environ},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        wait_until(lambda: process.poll() is not None or "POP3" in listening(words.read_text()), "it listens")
        self.assertIsNone(process.poll(), words.read_text())
        return process, words

    def run_once(self, command: Sequence[str], end: signal.Signals) -> tuple[int, list[str]]:
        """A session, SIGHUP with a change and a signal to end: the status, and the lines of the log."""
        self.write()
        process, words = self.start(command)
        with StrictClient(listening(words.read_text())["POP3"]) as client:
            client.login()
            client.quit()
        self.write("login-delay = 4")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "taken: login-delay" in words.read_text(), "SIGHUP was heard")
        process.send_signal(end)
        status = process.wait(DEADLINE)
        return status, [_without_numbers(line) for line in words.read_text().splitlines()]

    def test_alike(self) -> None:
        """Log lines, signals and exit statuses are the same, whichever way it was started."""
        option = f"--config={self.file}"
        for end in (signal.SIGTERM, signal.SIGINT):
            expected = self.run_once([*TWISTD, option], end)
            self.assertIn("taken: login-delay", "\n".join(expected[1]))
            for command in (SERVE, MODULE):
                self.assertEqual(self.run_once([*command, option], end), expected, command)

    def test_mistakes(self) -> None:
        """A mistake is one line and status 1, in the file and on the command line."""
        self.write("login-delay = -1")
        for options in ([f"--config={self.file}"], ["--nonsense"], ["--port=x"], [str(self.file)]):
            expected = run_command(*TWISTD, *options, folder=self.folder)
            self.assertEqual(expected.returncode, 1)
            self.assertTrue(
                expected.stderr.endswith(" (twistd pop3toy --help tells more)\n"), expected.stderr
            )
            for command, name in NAMES:
                done = run_command(*command, *options, folder=self.folder)
                says = expected.stderr.replace("(twistd pop3toy --help", f"({name} --help")
                self.assertEqual((done.returncode, done.stderr), (1, says))
        self.assertIn("; a file of them is --config FILE (", expected.stderr)

    def test_help(self) -> None:
        """``--help`` shows the options of the server, behind the command that was given."""
        for command, name in NAMES:
            done = run_command(*command, "--help", folder=self.folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("--submission-tls-port", done.stdout)
            self.assertEqual(done.stdout.splitlines()[0], f"Usage: {name} [options]")

    def test_config_elsewhere(self) -> None:
        """The file may be named before the command, or by the environment, as for other commands."""
        for command, environ in (
            ([*POP3TOY, f"--config={self.file}", "serve"], {}),
            (SERVE, {"POP3TOY_CONFIG": str(self.file)}),
        ):
            _, words = self.start(command, **environ)
            with StrictClient(listening(words.read_text())["POP3"]) as client:
                client.login(b"ann", b"secret")

    def test_other_options(self) -> None:
        """Options of the server go with it, and win over the file."""
        _, words = self.start([*SERVE, "--config", str(self.file), "--user=bob:secret", "--login-delay", "9"])
        with StrictClient(listening(words.read_text())["POP3"]) as client:
            self.assertEqual(client.capa()[b"LOGIN-DELAY"], [b"9"])
            client.login(b"bob", b"secret")
        self.assertFalse((self.folder / "twistd.pid").exists())


def _without_numbers(line: str) -> str:
    """A line without what differs from one run to the next: times, ports, programs."""
    line = re.sub(r"\(/\S+ [\d.]+\)|\d+\.\d+s?\b", "N", line)
    return re.sub(r"\d+", "N", line)
