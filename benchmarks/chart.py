"""The table and the curves as pictures, drawn by matplotlib (extra ``bench``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rounds import Outcome
from benchmarks.workloads import Workload
from pop3toy.installation import install_hint

_COLOURS = ("#8a8a8a", "#1668b8", "#5aa9e6", "#d98b2b", "#3b8a4a")


class NoChart(Exception):
    """Matplotlib is not there."""


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise NoChart(f"a chart needs matplotlib: {install_hint('bench')}") from None
    matplotlib.use("Agg")
    # Text stays text, and the same figures give the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "pop3toy", "font.size": 9})
    from matplotlib import pyplot

    return pyplot


def available() -> None:
    """Say beforehand, not after the run, that no chart can be drawn.

    :raises NoChart: if so.
    """
    _pyplot()


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=144)


def draw_table(outcome: Outcome, workloads: Sequence[Workload], reference: str, path: Path) -> None:
    """Two panels of bars: times the reference's rate (or memory), and times less CPU."""
    pyplot = _pyplot()
    rows = [row for row in workloads if reference in outcome.samples.get(row.name, {})]
    peers = [peer for peer in outcome.peers if peer != reference]
    figure, panels = pyplot.subplots(
        1, 2, sharey=True, figsize=(10, 1.2 + 0.17 * len(rows) * max(len(peers), 1)), layout="constrained"
    )
    thick = 0.82 / max(len(peers), 1)
    titles = (f"rate or memory: times better than {reference}", f"CPU: times less than {reference}")
    for panel, title in zip(panels, titles, strict=True):
        for place, peer in enumerate(peers):
            colour = _COLOURS[1 + place % (len(_COLOURS) - 1)]
            labelled = False
            for row, workload in enumerate(rows):
                value = (
                    outcome.ratio(workload, peer, reference)
                    if panel is panels[0]
                    else outcome.cpu_ratio(workload.name, peer, reference)
                )
                if value is None:
                    continue
                at = row + (place - (len(peers) - 1) / 2) * thick
                label = None if labelled else outcome.peers[peer]
                bar = panel.barh(at, value - 1, thick, left=1, color=colour, label=label)
                panel.bar_label(bar, [f" {value:.1f} "], fontsize=7)
                labelled = True
        panel.set_xscale("log")
        panel.tick_params(left=False)
        panel.margins(x=0.12)
        panel.axvline(1, color=_COLOURS[0], linewidth=1.5)
        panel.set_title(title, fontsize=10)
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set_yticks(range(len(rows)), [row.heading() for row in rows])
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    _save(figure, path)
    pyplot.close(figure)


def draw_curves(curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], path: Path) -> None:
    """A panel for each curve, a line for each peer, both axes logarithmic.

    :param curves: title ("what over what") to peer to points.
    """
    pyplot = _pyplot()
    across = 2
    down = -(-len(curves) // across)
    figure, panels = pyplot.subplots(
        down, across, figsize=(10, 3.2 * down), layout="constrained", squeeze=False
    )
    for panel, (title, lines) in zip(panels.flat, curves.items(), strict=False):
        what, _, over = title.partition(" over ")
        for place, (peer, points) in enumerate(lines.items()):
            kept = [(x, y) for x, y in points if y > 0]
            if kept:
                xs, ys = zip(*kept, strict=True)
                panel.plot(
                    xs, ys, marker="o", markersize=3, label=peer, color=_COLOURS[place % len(_COLOURS)]
                )
        panel.set(xscale="log", yscale="log", xlabel=over, title=what)
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, fontsize=8)
    for panel in panels.flat[len(curves) :]:
        panel.set_visible(False)
    _save(figure, path)
    pyplot.close(figure)
