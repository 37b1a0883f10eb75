"""One cell of the table: one workload on one server, once.

Lives here: what is read before and after, and the arithmetic.  Knows neither
rounds nor medians.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.load import Job, LoadGenerator, Result
from benchmarks.peers import Peer, Setting
from benchmarks.processes import cpu_seconds, memory_octets
from benchmarks.workloads import Figure, Workload

#: Seconds; /proc counts in ticks of 10 ms, so less than this says nothing.
CPU_LEAST = 0.05


@dataclass
class Sample:
    """What one measurement gave; ``None`` where the workload has no such figure."""

    sessions: int
    failures: int
    #: TLS connections that ended without close_notify, or plain ones that ended with a reset.
    unclean: int = 0
    #: Sessions a second.
    rate: float | None = None
    #: Octets that arrived a second.
    octets_rate: float | None = None
    #: Seconds of user and system time of all the server's processes, a session.
    cpu: float | None = None
    #: Seconds from connect to the reply to QUIT.
    p50: float | None = None
    p99: float | None = None
    #: Octets of memory of all the server's processes, a session.
    memory: float | None = None
    #: How much of one core the busiest the load generator's processes used, 0 to 1.
    client_busy: float | None = None
    complaints: str = ""

    def as_json(self) -> dict[str, object]:
        """Without what is not there."""
        return {key: value for key, value in asdict(self).items() if value not in (None, "")}


class Bench:
    """Measures peers in one setting.

    :param seconds: how long a load lasts.
    """

    def __init__(self, setting: Setting, load: LoadGenerator, seconds: float) -> None:
        self.setting = setting
        self.load = load
        self.seconds = seconds

    def _own(self, peer: Peer) -> Setting:
        setting = self.setting
        return Setting(setting.world, setting.scratch / peer.name, setting.certificate, setting.key)

    def start(self, peer: Peer) -> None:
        """Start a peer in its own directory, anew if it runs."""
        peer.stop()
        peer.start(self._own(peer))

    def _known(self, peer: Peer, data: str) -> Path:
        return self.setting.scratch / peer.name / f"{data}.listings"

    def check(self, peer: Peer) -> Result:
        """Read every message of every mailbox once; learn the unique-ids, which may not change from here on.

        It also brings the mail into the page cache and lets a server make its indexes.
        """
        total = Result()
        world = self.setting.world
        for data in world.sets:
            if data.name == "idle":
                continue
            job = Job(
                peer.port,
                world.expected(data),
                "LSTURQ" if data.bodies else "LSTUQ",
                connections=min(4, data.users),
                sessions=data.users,
                learn=self._known(peer, data.name),
            )
            result = self.load.run(job)
            total.sessions += result.sessions
            total.failures += result.failures
            total.complaints += result.complaints
        return total

    def sample(self, peer: Peer, workload: Workload) -> Sample:
        """Measure a peer that runs."""
        assert peer.server is not None
        job = Job(
            peer.tls_port if workload.tls else peer.port,
            self.setting.world.root / "expected" / workload.data,
            workload.script,
            workload.connections,
            pipelined=workload.pipelined,
            tls=workload.tls,
            seconds=0.0 if workload.fresh else self.seconds,
            sessions=1 if workload.fresh else 0,
            known=self._known(peer, workload.data),
        )
        if workload.figure is Figure.MEMORY:
            return self._memory(peer, job, workload.held)
        before = cpu_seconds(peer.server.pid)
        result = self.load.run(job)
        cpu = cpu_seconds(peer.server.pid) - before
        return Sample(
            result.sessions,
            result.failures,
            result.unclean,
            rate=result.rate,
            octets_rate=result.octets / result.seconds if result.seconds else 0.0,
            cpu=cpu / result.sessions if result.sessions and cpu >= CPU_LEAST else None,
            p50=result.latency(0.5),
            p99=result.latency(0.99),
            client_busy=None if workload.fresh else result.cpu / max(result.seconds, 1e-9),
            complaints=result.complaints,
        )

    def _memory(self, peer: Peer, job: Job, held: int) -> Sample:
        """The slope between few and many sessions: what a server keeps ready beforehand does not count."""
        assert peer.server is not None
        failures, complaints = 0, ""
        sizes: list[int] = []
        counts = (max(held // 5, 1), held)
        for count in counts:
            hold = Job(job.port, job.expected, job.script, job.connections, sessions=count)
            with self.load.holding(hold) as result:
                sizes.append(memory_octets(peer.server.pid))
            failures += result.failures
            complaints += result.complaints
        # Sessions that were refused use no memory, which must not look like a merit.
        told = not failures and counts[1] > counts[0]
        slope = (sizes[1] - sizes[0]) / (counts[1] - counts[0]) if told else None
        return Sample(sum(counts), failures, memory=slope, complaints=complaints)
