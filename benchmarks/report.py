"""The table as text."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.rounds import CLIENT_BOUND, Outcome
from benchmarks.workloads import Figure, Workload


def _cell(value: float | None, form: str, unit: str = "", scale: float = 1.0) -> str:
    return "-" if value is None else f"{value * scale:{form}}{unit}"


def _line(outcome: Outcome, workload: Workload, peer: str, reference: str) -> str:
    def median(figure: str) -> float | None:
        return outcome.median(workload.name, peer, figure)

    times = _cell(outcome.ratio(workload, peer, reference), ".2f")
    if workload.figure is Figure.MEMORY:
        return f"  {peer:<14}{_cell(median('memory'), ',.1f', ' KiB', 1 / 1024):>13}{'x' + times:>9}"
    busy = median("client_busy")
    cpu_times = _cell(outcome.cpu_ratio(workload.name, peer, reference), ".2f")
    return (
        f"  {peer:<14}{_cell(median('rate'), ',.1f', '/s'):>13}{'x' + times:>9}"
        f"{_cell(median('cpu'), ',.3f', ' ms', 1e3):>14}{'x' + cpu_times:>9}"
        f"{_cell(median('p50'), ',.2f', '', 1e3):>10}{_cell(median('p99'), ',.2f', '', 1e3):>10}"
        f"{_cell(median('octets_rate'), ',.0f', '', 1e-6):>8}"
        f"{_cell(busy, '.0%'):>8}{'*' if busy and busy > CLIENT_BOUND else ''}"
    )


def as_text(outcome: Outcome, workloads: Iterable[Workload], reference: str) -> str:
    """A block for each workload, a line for each peer.

    ``x`` is how many times better than the reference: more sessions a second,
    less CPU, less memory.
    """
    at = outcome.machine
    lines = [f"{at['cpu']}, {at['cores']} cores, {at['system']}; clients and servers on it"]
    lines += [f"load before the run: {at['load']}"]
    lines += [f"{name}: {version}" for name, version in outcome.peers.items()]
    lines += [f"{name}: left out: {why}" for name, why in outcome.left_out.items()]
    head = f"  {'':<14}{'sessions':>13}{'times':>9}{'cpu/session':>14}{'times':>9}"
    head += f"{'p50 ms':>10}{'p99 ms':>10}{'MB/s':>8}{'client':>8}"
    for workload in workloads:
        measured = outcome.samples.get(workload.name)
        if not measured:
            continue
        lines += ["", workload.heading()]
        lines += [f"  {'':<14}{'a session':>13}{'times':>9}" if workload.figure is Figure.MEMORY else head]
        lines += [_line(outcome, workload, peer, reference) for peer in outcome.peers if peer in measured]
    lines += ["", f"times: better than {reference}; medians over the rounds."]
    lines += ["client: share of one core that the load generator used; * it may have been the limit."]
    unclean = sorted(
        {
            peer
            for cells in outcome.samples.values()
            for peer, samples in cells.items()
            if any(sample.unclean for sample in samples)
        }
    )
    if unclean:
        lines.append(f"connections that ended without close_notify or with a reset: {', '.join(unclean)}")
    lines.append(
        "every octet was compared; " + (f"{len(outcome.wrong)} faults:" if outcome.wrong else "all right")
    )
    lines += outcome.wrong
    return "\n".join(lines) + "\n"
