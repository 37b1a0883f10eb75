"""How the cost grows: with messages in a mailbox, octets of a message, sessions at once.

Lives here: the steps and what is measured at each.  A data set is made for one
step and deleted behind it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import chart
from benchmarks.datasets import IDLE, SMALL, DataSet
from benchmarks.load import Job
from benchmarks.measure import Bench, Sample
from benchmarks.peers import DoesNotStart, NotHere, Peer
from benchmarks.processes import memory_octets
from benchmarks.rounds import machine, say
from benchmarks.workloads import Workload

Lines = dict[str, list[tuple[float, float]]]


@dataclass(frozen=True)
class Reach:
    """How far the curves go; each is followed in powers of ten."""

    messages: int
    octets: int
    connections: int

    def at_most(self, connections: int) -> Reach:
        """The same with no more connections than the machine allows open files for."""
        return replace(self, connections=min(self.connections, connections))


FULL = Reach(1_000_000, 1_000_000_000, 10_000)
QUICK = Reach(100, 10_000, 10)


def _powers(first: int, last: int) -> list[int]:
    steps = []
    while first <= last:
        steps.append(first)
        first *= 10
    return steps


@dataclass
class Curves:
    """Follows the three curves for peers that are there; collects points and faults."""

    bench: Bench
    peers: Sequence[Peer]
    lines: dict[str, Lines] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def _point(self, title: str, peer: Peer, x: float, y: float | None) -> None:
        # A curve without points is there as well: what could not be measured shows as such.
        points = self.lines.setdefault(title, {}).setdefault(peer.name, [])
        if y is not None:
            points.append((x, y))

    def _sample(self, peer: Peer, workload: Workload) -> Sample:
        sample = self.bench.sample(peer, workload)
        if sample.failures:
            self.wrong.append(f"{peer.name}, {workload.title}: {sample.failures} wrong\n{sample.complaints}")
            say(self.wrong[-1])
        return sample

    def messages(self, most: int) -> None:
        """Seconds and CPU of a visit (STAT, UIDL) over the number of messages."""
        world = self.bench.setting.world
        for count in _powers(10, most):
            data = DataSet(f"n{count}-", users=1, messages=count, octets=500, bodies=False)
            world.add(data)
            for peer in self.peers:
                say(f"{count:,} messages: {peer.name}")
                first = Workload("first", f"{count} messages, first visit", data.name, "LSUQ", fresh=True)
                again = Workload("again", f"{count} messages, again", data.name, "LSUQ")
                # Dovecot makes its index at the very first visit; what counts is the first after a start.
                for _ in range(2):
                    self.bench.start(peer)
                    visit = self._sample(peer, first)
                self._point("seconds of the first visit over messages", peer, count, visit.p50)
                visit = self._sample(peer, again)
                self._point("seconds of a later visit over messages", peer, count, visit.p50)
                peer.stop()
            world.remove(data)

    def octets(self, most: int) -> None:
        """Octets a second and CPU an octet of RETR over the size of a message."""
        world = self.bench.setting.world
        for octets in _powers(1_000, most):
            # A session moves the same amount at every step, as far as that is possible.
            count = max(min(20_000_000 // octets, 200), 1)
            data = DataSet(f"o{octets}-", users=1, messages=count, octets=octets)
            world.add(data)
            for peer in self.peers:
                say(f"messages of {octets:,} octets: {peer.name}")
                self.bench.start(peer)
                workload = Workload("octets", f"messages of {octets} octets", data.name, "LSRQ")
                self._sample(peer, Workload("warm", workload.title, data.name, "LSRQ", fresh=True))
                sample = self._sample(peer, workload)
                rate, cpu = sample.octets_rate, sample.cpu
                moved = rate / sample.rate if rate and sample.rate else None
                self._point(
                    "MB a second over octets of a message",
                    peer,
                    octets,
                    rate / 1e6 if rate and moved else None,
                )
                self._point(
                    "CPU seconds for a GB over octets of a message",
                    peer,
                    octets,
                    cpu / moved * 1e9 if moved and cpu is not None else None,
                )
                peer.stop()
            world.remove(data)

    def connections(self, most: int) -> None:
        """Memory of an idle session, and CPU of a login beside them, over the number of idle sessions."""
        world = self.bench.setting.world
        idle = DataSet("idle", users=max(most, 1), messages=1, octets=IDLE.octets)
        world.add(SMALL)
        world.add(idle)
        login = Workload("login", "login beside idle sessions", "small", "LSQ", 32)
        for peer in self.peers:
            self.bench.start(peer)
            assert peer.server is not None
            self._sample(peer, login)
            self._sample(peer, login)
            empty = memory_octets(peer.server.pid)
            last = min(most, peer.most_held or most)
            # Where not even the last power of ten is possible, as much as is.
            for count in sorted({*_powers(1, last), last}):
                say(f"{count:,} idle sessions: {peer.name}")
                job = Job(peer.port, world.expected(idle), "LSHQ", 32, sessions=count)
                with self.bench.load.holding(job) as held:
                    memory = memory_octets(peer.server.pid)
                    beside = self._sample(peer, login)
                if held.failures:
                    self.wrong.append(f"{peer.name}, {count} idle: {held.failures} wrong\n{held.complaints}")
                    say(self.wrong[-1])
                title = "KiB more than without, each, over idle sessions"
                self._point(title, peer, count, (memory - empty) / count / 1024)
                title = "CPU ms of a login over idle sessions beside it"
                self._point(title, peer, count, None if beside.cpu is None else beside.cpu * 1e3)
            peer.stop()
        world.remove(idle)
        world.remove(SMALL)


def _as_text(lines: dict[str, Lines]) -> str:
    parts = []
    for title, peers in lines.items():
        steps = sorted({x for points in peers.values() for x, _ in points})
        parts += [title, "  " + " " * 14 + "".join(f"{step:>14,.0f}" for step in steps)]
        for peer, points in peers.items():
            values = dict(points)
            cells = (f"{values[step]:>14,.4g}" if step in values else f"{'-':>14}" for step in steps)
            parts.append(f"  {peer:<14}" + "".join(cells))
        parts.append("")
    return "\n".join(parts)


def run(
    bench: Bench, peers: Sequence[Peer], reach: Reach, json_to: Path | None, chart_to: Path | None
) -> int:
    """Follow all curves; 1 if there were wrong answers, else 0."""
    # How busy it was before, not with what is measured.
    where = machine()
    present = []
    for peer in peers:
        try:
            peer.version()
            present.append(peer)
        except NotHere as why:
            say(f"{peer.name} is left out: {why}")
    if not present:
        say("nobody took part")
        return 2
    curves = Curves(bench, present)
    try:
        curves.messages(reach.messages)
        curves.octets(reach.octets)
        curves.connections(reach.connections)
    except (NotHere, DoesNotStart) as why:
        curves.wrong.append(str(why))
    finally:
        for peer in present:
            peer.stop()
    print(_as_text(curves.lines))
    print("\n".join(curves.wrong) or "every octet was compared; all right")
    if json_to:
        told = {"machine": where, "curves": curves.lines, "wrong": curves.wrong}
        json_to.write_text(json.dumps(told, indent=1) + "\n")
    if chart_to:
        chart.draw_curves(curves.lines, chart_to)
    return 1 if curves.wrong else 0
