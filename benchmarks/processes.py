"""What a server's processes cost: CPU time and memory of a whole process tree, from /proc.

Lives here: reading /proc, starting and stopping a process.  Knows no server.

A master that waits for its children adopts their CPU time when they end
(``cutime``, ``cstime``), so the sum over the living tree, own and adopted,
misses no process that came and went.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

_TICKS = os.sysconf("SC_CLK_TCK")
#: Seconds that a server may take to stop before it is killed.
STOP_PATIENCE = 10.0


def _stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, which may hold blanks."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree(root: int) -> list[int]:
    """The process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(_stat_fields(int(entry))[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(entry))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of the tree so far, with that of children already waited for."""
    ticks = 0
    for pid in tree(root):
        try:
            ticks += sum(int(field) for field in _stat_fields(pid)[11:15])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return ticks / _TICKS


def memory_octets(root: int) -> int:
    """Proportional set size of the tree: shared pages are divided by those who share them."""
    total = 0
    for pid in tree(root):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for line in text.splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


#: The signals that end a run.
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Server:
    """One started server process in a process group of its own."""

    #: Those that were not stopped yet, however their start was interrupted.
    started: ClassVar[list[Server]] = []

    def __init__(
        self, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=out,
                env=dict(os.environ, **(environment or {})),
                start_new_session=True,
                preexec_fn=partial(signal.pthread_sigmask, signal.SIG_SETMASK, before),
            )
        self.started.append(self)
        # A signal that came meanwhile interrupts here.
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def pid(self) -> int:
        """The process whose tree is measured."""
        return self.process.pid

    def first_line(self) -> str:
        """The first line the server prints: its port."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def complaint(self) -> str:
        """The end of what it logged, for an error message."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])

    def stop(self) -> None:
        """Ask it to end, wait, and kill what is left of its group."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_PATIENCE)
            except subprocess.TimeoutExpired:
                pass
        # The group is ours alone (start_new_session), so nobody else is hit.
        deadline = time.monotonic() + STOP_PATIENCE
        while time.monotonic() < deadline:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                break
            if self.process.poll() is None:
                self.process.wait()
            time.sleep(0.02)
        if self.process.stdout:
            self.process.stdout.close()
        if self in self.started:
            self.started.remove(self)
