"""A pop3toy server in a process of its own, as users start it.

Here lives what starts ``twistd pop3toy`` on a free loopback port, finds the
port out, and ends the process again.  Nothing here looks into the server: it
knows the command line, the log file and the exit status.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import pop3toy

__all__ = [
    "DEADLINE",
    "POP3TOY",
    "RealServer",
    "ServerDied",
    "environment",
    "free_port",
    "heed_ctrl_c",
    "listening",
    "maildir_options",
    "run_command",
    "run_python",
    "text_of",
    "twistd",
    "wait_until",
]

#: Seconds after which anything that should have happened never will: generous,
#: because a busy machine is no reason to fail.
DEADLINE = 60.0
#: The server's line about a port that it opened, with what for.
_LISTENING = re.compile(r"\bpop3toy listens for (.+?)(?: \(.*\))? on \S*:(\d+)(?:\n|\",)")
#: Both commands without looking for their scripts: the same from a checkout and from an installation.
POP3TOY = [sys.executable, "-c", "from pop3toy.cli import main; main()"]
_TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]


class ServerDied(AssertionError):
    """The server ended, or never listened; its words are in the text."""


def twistd(*arguments: str) -> list[str]:
    """The command line of twistd for these arguments."""
    return [*_TWISTD, *arguments]


def environment(home: Path) -> dict[str, str]:
    """An environment in which a process finds pop3toy, and its user's files nowhere but in ``home``."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("COVERAGE_", "PATH"))}
    where = str(Path(pop3toy.__file__).parent.parent)
    return {**kept, "HOME": str(home), "LANG": "C.UTF-8", "TZ": "UTC", "PYTHONPATH": where}


def run_command(
    *command: str | Path, folder: Path, stdin: str = "", **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, without a terminal.

    :param folder: its home, and where it runs; made if it is not there.
    :param environ: what its environment has besides :func:`environment`.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        command,
        cwd=folder,
        env={**environment(folder), **environ},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE,
        check=False,
        start_new_session=True,
    )


def run_python(program: str, *arguments: str, folder: Path) -> str:
    """What a program prints that runs in a fresh interpreter, and has no complaint."""
    done = run_command(sys.executable, "-c", program, *arguments, folder=folder)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def heed_ctrl_c() -> None:
    """For ``preexec_fn``: Ctrl-C ends the process, though a shell has it ignored in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def text_of(path: Path) -> str:
    """What a file says that a server writes; nothing as long as it is not there."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return ""


def listening(log: str) -> dict[str, int]:
    """The ports that a server's log tells, by what for: ``POP3``, ``POP3 over TLS``, ``SMTP`` and so on."""
    # Of several ports for the same the first.
    return {what: int(port) for what, port in reversed(_LISTENING.findall(log))}


def wait_until(condition: Callable[[], bool], what: str, *, pause: float = 0.01) -> None:
    """Poll until a condition holds.

    :param pause: seconds between two looks.
    :raises AssertionError: naming ``what`` when :data:`DEADLINE` seconds have passed.
    """
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not after {DEADLINE:.0f} s")
        time.sleep(pause)


class RealServer:
    """``twistd -n pop3toy`` with the options given, listening on a free port of 127.0.0.1.

    A context manager, or end it with :meth:`terminate` or :meth:`kill`; both
    are harmless when it has ended already.

    :param options: of ``twistd pop3toy``; ``--port 0`` is added, and twistd's ``--logfile`` unless there is
        ``--log-file=``.
    :param folder: where its pid file, log and other words go; a new one if not given.
    :param own_options: twistd's own, before ``pop3toy``.
    :param launcher: a command that starts the command line behind it.
    :param inherited: file descriptors that stay open in it.
    :raises ServerDied: if it does not come to listen.
    """

    def __init__(
        self,
        *options: str,
        folder: Path | None = None,
        own_options: Sequence[str] = (),
        launcher: Sequence[str] = (),
        inherited: Sequence[int] = (),
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="pop3toy-") if folder is None else None
        self.folder = Path(self._temporary.name) if self._temporary else folder or Path()
        own = [one.partition("=")[2] for one in options if one.startswith("--log-file=")]
        self.log_file = Path(own[0]) if own else self.folder / "server.log"
        self._words = self.folder / "server.out"
        # A server that was here before must not lend its port to this one.
        if not own:
            self.log_file.unlink(missing_ok=True)
        with self._words.open("wb") as words:
            self.process = subprocess.Popen(
                [
                    *launcher,
                    *twistd(
                        "--nodaemon",
                        f"--pidfile={self.folder / 'server.pid'}",
                        *([] if own else [f"--logfile={self.log_file}"]),
                        *own_options,
                        "pop3toy",
                        "--port=0",
                        *options,
                    ),
                ],
                pass_fds=inherited,
                cwd=self.folder,
                env=environment(self.folder),
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(self._listening, "the server listens")
        except BaseException:
            self.kill()
            self._clean()
            raise

    def _listening(self) -> bool:
        if self.process.poll() is not None:
            raise ServerDied(f"exit status {self.process.returncode}:\n{self.log}\n{self.words}")
        return "POP3" in listening(self.log)

    @property
    def port(self) -> int:
        """The port where it listens for POP3."""
        return listening(self.log)["POP3"]

    def port_for(self, what: str) -> int:
        """The port where it listens for something, as in ``POP3 over TLS``; waits until its log tells it."""
        wait_until(lambda: what in listening(self.log), f"the server listens for {what}")
        return listening(self.log)[what]

    @property
    def log(self) -> str:
        """Its log file so far."""
        return self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""

    @property
    def words(self) -> str:
        """What it wrote on standard output and standard error, the transcript among it."""
        return self._words.read_text("utf-8", "replace")

    def signal_to_end(self) -> None:
        """Send SIGTERM and do not wait."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def terminate(self) -> bool:
        """End it with SIGTERM; whether it ended in order.

        twistd shuts down and then dies of the signal itself, so that its parent
        can see why it ended; a process manager counts that as a clean end.
        """
        self.signal_to_end()
        status = self._wait()
        in_order = status in (0, -signal.SIGTERM) and self.log.endswith("Server Shut Down.\n")
        self._clean()
        return in_order

    def kill(self) -> None:
        """End it in the middle of whatever it does with SIGKILL.

        Its folder and log stay until :meth:`terminate` or the ``with`` ends.
        """
        if self.process.poll() is None:
            self.process.kill()
        self._wait()

    def _wait(self) -> int:
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(DEADLINE)
            raise ServerDied(f"did not end:\n{self.log}\n{self.words}") from None

    def _clean(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            print(f"--- the server's log:\n{self.log}\n--- its words:\n{self.words}", file=sys.stderr)
        try:
            self.terminate()
        finally:
            self._clean()


def maildir_options(root: Path, accounts: Sequence[str] = ("ann:secret",)) -> list[str]:
    """The options that serve the Maildirs below ``root``, one for each user's name."""
    return [f"--maildir={root}/{{user}}", *(f"--user={account}" for account in accounts)]
