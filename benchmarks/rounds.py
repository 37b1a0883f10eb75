"""The whole run: peers in turn, several rounds, medians, ratios.

Lives here: the order of things, and what is said of them afterwards in plain
values.  How it is printed or drawn is told in ``report`` and ``chart``.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import Bench, Sample
from benchmarks.peers import DoesNotStart, NotHere, Peer
from benchmarks.workloads import Figure, Workload

_FIGURES = ("rate", "octets_rate", "cpu", "p50", "p99", "memory", "client_busy")
#: Above this share of a core the load generator, not the server, may be the limit.
CLIENT_BOUND = 0.85


def machine() -> dict[str, object]:
    """Where it ran."""
    model = platform.processor()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 2),
    }


@dataclass
class Outcome:
    """All that a run found out."""

    #: Names and versions of those who took part, in the order of the table.
    peers: dict[str, str] = field(default_factory=dict)
    #: Who did not, and why.
    left_out: dict[str, str] = field(default_factory=dict)
    #: Samples by workload and peer.
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    #: Where it ran, and how busy that was before.
    machine: dict[str, object] = field(default_factory=machine)
    #: Sentences about wrong answers; an empty list is a good run.
    wrong: list[str] = field(default_factory=list)

    def median(self, workload: str, peer: str, figure: str) -> float | None:
        """The median of one figure over the rounds."""
        samples = self.samples.get(workload, {}).get(peer, [])
        values = [value for sample in samples if (value := getattr(sample, figure)) is not None]
        return statistics.median(values) if values else None

    def ratio(self, workload: Workload, peer: str, reference: str) -> float | None:
        """How many times better than the reference peer, by the row's own figure."""
        figure = "memory" if workload.figure is Figure.MEMORY else "rate"
        ours, theirs = (self.median(workload.name, name, figure) for name in (peer, reference))
        if not ours or not theirs or ours < 0 or theirs < 0:
            return None
        return theirs / ours if workload.figure is Figure.MEMORY else ours / theirs

    def cpu_ratio(self, workload: str, peer: str, reference: str) -> float | None:
        """How many times less CPU than the reference peer a session takes."""
        ours, theirs = (self.median(workload, name, "cpu") for name in (peer, reference))
        return theirs / ours if ours and theirs else None

    def as_json(self, workloads: Iterable[Workload], reference: str) -> dict[str, object]:
        """Plain values; seconds, octets, sessions."""
        rows = {}
        for workload in workloads:
            rows[workload.name] = {
                "title": workload.heading(),
                "peers": {
                    peer: {
                        "median": {
                            figure: value
                            for figure in _FIGURES
                            if (value := self.median(workload.name, peer, figure)) is not None
                        },
                        "times_better": self.ratio(workload, peer, reference),
                        "times_less_cpu": self.cpu_ratio(workload.name, peer, reference),
                        "rounds": [sample.as_json() for sample in samples],
                    }
                    for peer, samples in self.samples.get(workload.name, {}).items()
                },
            }
        return {
            "machine": self.machine,
            "reference": reference,
            "peers": self.peers,
            "left_out": self.left_out,
            "wrong": self.wrong,
            "workloads": rows,
        }


def say(text: str) -> None:
    """Tell what is going on, beside the table."""
    print(text, file=sys.stderr, flush=True)


def _take_part(bench: Bench, peers: Sequence[Peer], outcome: Outcome) -> list[Peer]:
    """Who is installed, starts, and answers: each mailbox is read once and compared."""
    present = []
    for peer in peers:
        try:
            version = peer.version()
            bench.start(peer)
        except NotHere as why:
            outcome.left_out[peer.name] = str(why)
            say(f"{peer.name} is left out: {why}")
            continue
        except DoesNotStart as why:
            outcome.left_out[peer.name] = str(why)
            outcome.wrong.append(f"{peer.name} does not start: {why}")
            say(outcome.wrong[-1])
            continue
        say(f"{peer.name} ({version}): every message is read and compared")
        result = bench.check(peer)
        if result.failures:
            outcome.wrong.append(f"{peer.name}, check: {result.failures} wrong\n{result.complaints}")
            say(outcome.wrong[-1])
        outcome.peers[peer.name] = version
        present.append(peer)
    return present


def _suits(peer: Peer, workload: Workload) -> bool:
    if workload.tls and not (peer.has_tls and peer.tls_port):
        return False
    return peer.most_held is None or workload.held <= peer.most_held


def run(bench: Bench, peers: Sequence[Peer], workloads: Sequence[Workload], rounds: int) -> Outcome:
    """Measure; always stops what it started."""
    outcome = Outcome()
    load = os.getloadavg()[0]
    if load > 0.5 * (os.cpu_count() or 1):
        say(f"others use this machine (load {load:.1f}): trust CPU a little, rates and latencies not at all")
    try:
        present = _take_part(bench, peers, outcome)
        for turn in range(rounds):
            for workload in workloads:
                say(f"round {turn + 1} of {rounds}: {workload.heading()}")
                # Nobody is always the first or always behind the same neighbour.
                shift = turn % len(present) if present else 0
                for peer in present[shift:] + present[:shift]:
                    if not _suits(peer, workload):
                        continue
                    try:
                        if workload.fresh or workload.figure is Figure.MEMORY or peer.server is None:
                            bench.start(peer)
                    except DoesNotStart as why:
                        outcome.wrong.append(f"{peer.name}, {workload.name}: does not start again: {why}")
                        say(outcome.wrong[-1])
                        continue
                    sample = bench.sample(peer, workload)
                    outcome.samples.setdefault(workload.name, {}).setdefault(peer.name, []).append(sample)
                    if sample.failures:
                        few = "\n".join(sample.complaints.splitlines()[:3])
                        outcome.wrong.append(f"{peer.name}, {workload.name}: {sample.failures} wrong\n{few}")
                        say(outcome.wrong[-1])
    finally:
        for peer in peers:
            peer.stop()
    return outcome
