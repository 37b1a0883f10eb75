"""Running the load generator and adding up what it says.

Lives here: its options, its processes, its results.  What is measured with it
is told in ``workloads``.
"""

from __future__ import annotations

import json
import subprocess
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

#: Seconds behind its own time limit until a generator is given up.
PATIENCE = 180.0


@dataclass(frozen=True)
class Job:
    """One load on one server.

    :param script: letters of ``native/replies.h``, without the greeting.
    :param connections: sessions at once.
    :param seconds: how long new sessions are started; 0 for as many as ``sessions``.
    :param sessions: at most so many; 0 for no limit.
    :param pace: new sessions a second; 0 for as soon as one has ended.
    :param known: a file of unique-id listings that may not change.
    """

    port: int
    expected: Path
    script: str
    connections: int = 1
    seconds: float = 0.0
    sessions: int = 0
    pace: float = 0.0
    pipelined: bool = False
    tls: bool = False
    known: Path | None = None
    learn: Path | None = None


@dataclass
class Result:
    """What the clients saw.  Times in seconds, latencies sorted."""

    sessions: int = 0
    failures: int = 0
    unclean: int = 0
    octets: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    latencies: list[float] = field(default_factory=list)
    complaints: str = ""

    @property
    def rate(self) -> float:
        """Sessions a second."""
        return self.sessions / self.seconds if self.seconds else 0.0

    def latency(self, part: float) -> float | None:
        """The latency that ``part`` (0 to 1) of the sessions did not exceed, if there were any."""
        if not self.latencies:
            return None
        return self.latencies[min(int(len(self.latencies) * part), len(self.latencies) - 1)]


class LoadGenerator:
    """The compiled generator; it makes about 20,000 sessions a second."""

    def __init__(self, program: Path, scratch: Path) -> None:
        self.program = program
        self.scratch = scratch

    def _start(self, job: Job) -> subprocess.Popen[str]:
        users = sum(1 for _ in (job.expected / "users.txt").open())
        command = [
            str(self.program),
            f"--port={job.port}",
            f"--expected={job.expected}",
            f"--script=g{job.script.replace('L', 'up')}",
            f"--connections={min(job.connections, users)}",
            f"--seconds={job.seconds}",
            f"--sessions={job.sessions}",
            f"--pace={job.pace}",
            f"--users={users}",
            f"--latencies={self.scratch / 'latencies'}",
        ]
        command += ["--pipelined"] * job.pipelined + ["--tls"] * job.tls
        command += [f"--known={job.known}"] * (job.known is not None)
        command += [f"--learn={job.learn}"] * (job.learn is not None)
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def run(self, job: Job) -> Result:
        """Give the load to the server and wait for the end."""
        total = Result()
        process = self._start(job)
        try:
            out, complaints = process.communicate(timeout=job.seconds + PATIENCE)
            self._add(total, process.returncode, out, complaints)
        except subprocess.TimeoutExpired:
            total.failures += 1
            total.complaints += "the load generator does not come to an end\n"
        finally:
            _end(process)
        return total

    def _add(self, total: Result, code: int, out: str, complaints: str) -> None:
        total.complaints += complaints
        if code not in (0, 1):
            total.failures += 1
            total.complaints += f"the load generator ended with {code}\n"
            return
        told = json.loads(out.splitlines()[-1])
        total.sessions += told["sessions"]
        total.failures += told["failures"]
        total.unclean += told["unclean"]
        total.octets += told["octets"]
        total.cpu += told["cpu"]
        total.seconds = max(total.seconds, told["seconds"])
        latencies = array("Q")
        latencies.frombytes((self.scratch / "latencies").read_bytes())
        total.latencies.extend(sorted(ns / 1e9 for ns in latencies))

    @contextmanager
    def holding(self, job: Job) -> Iterator[Result]:
        """Keep ``job.sessions`` sessions logged in and idle while the body runs.

        The result that is given fills in its failures when the body is over.
        """
        process = self._start(job)
        total = Result()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if line == "held\n":
                yield total
                out, complaints = process.communicate("\n", timeout=PATIENCE)
            else:
                rest, complaints = process.communicate(timeout=PATIENCE)
                out = line + rest
                yield total
            self._add(total, process.returncode, out, complaints)
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
