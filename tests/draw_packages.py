"""Draws ``docs/packages.svg``: who may import whom, by the rules of ``tests/test_boundaries.py``.

``python -m tests.draw_packages > docs/packages.svg``.  A row stands above all that it may import.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from .test_boundaries import GROUND, MAY

#: The public names, which are in ``pop3toy/__init__.py``.
DOOR = "pop3toy"
#: Pixels.
WIDTH, BOX, HEIGHT, GAP, TOP = 1000, 104, 34, 96, 44
COLOURS = ("#1b6ca8", "#a8421b", "#2b8a3e", "#7b3fa0", "#946c00", "#0b7285", "#b0256b", "#495057")


def edges(may: Mapping[str, set[str]]) -> dict[tuple[str, str], bool]:
    """Which package may import which other; whether it is so for all modules of both."""
    found: dict[tuple[str, str], bool] = {}
    for name, others in may.items():
        for other in sorted(others):
            pair = ((name or DOOR).partition(".")[0], other.partition(".")[0])
            if pair[0] != pair[1]:
                whole = "." not in name and "." not in other
                found[pair] = found.get(pair, False) or whole
    return found


def rows(pairs: Mapping[tuple[str, str], bool]) -> list[list[str]]:
    """The packages, the lowest row first: each stands above all that it may import."""
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    level = dict.fromkeys(names, 0)
    for _ in names:
        for upper, lower in pairs:
            level[upper] = max(level[upper], level[lower] + 1)
    assert max(level.values()) < len(names), "packages import each other in a circle"
    return [[name for name in names if level[name] == one] for one in range(max(level.values()) + 1)]


def drawing(may: Mapping[str, set[str]] = MAY) -> str:
    """The drawing, as SVG."""
    return "\n".join(_parts(edges(may))) + "\n"


def _parts(pairs: Mapping[tuple[str, str], bool]) -> Iterator[str]:
    levels = rows(pairs)
    ground = TOP + len(levels) * (HEIGHT + GAP) - GAP // 2
    place: dict[str, tuple[float, float]] = {}
    for level, names in enumerate(reversed(levels)):
        # Aside, so that lines of those above go past it.
        aside = (-0.42, 0.42)[level % 2] if len(names) == 1 else 0
        for at, name in enumerate(names):
            place[name] = (WIDTH * (at + 1 + aside) / (len(names) + 1), TOP + level * (HEIGHT + GAP))
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {ground + 66}"'
        ' font-family="sans-serif" font-size="14">'
    )
    yield "<title>Who may import whom</title>"
    yield f'<rect width="{WIDTH}" height="{ground + 66}" fill="white"/>'
    yield (
        f'<text x="{WIDTH / 2:g}" y="22" text-anchor="middle" fill="#555">A line: what is above may import'
        " what is below; dashed: some modules only.</text>"
    )
    uppers = list(dict.fromkeys(upper for upper, _ in pairs))
    for (upper, lower), whole in sorted(pairs.items()):
        (x, y), (to_x, to_y) = place[upper], place[lower]
        y += HEIGHT
        bend = (to_y - y) * 0.45
        dash = "" if whole else ' stroke-dasharray="5 4"'
        curve = f"C{x:.0f} {y + bend:.0f} {to_x:.0f} {to_y - bend:.0f} {to_x:.0f} {to_y:.0f}"
        yield (
            f'<path d="M{x:.0f} {y:.0f} {curve}"'
            f' fill="none" stroke="{COLOURS[uppers.index(upper) % len(COLOURS)]}" stroke-width="1.4"'
            f' opacity="0.75"{dash}><title>{upper} may import {lower}</title></path>'
        )
    for name, (x, y) in place.items():
        colour = COLOURS[uppers.index(name) % len(COLOURS)] if name in uppers else "#333"
        yield (
            f'<rect x="{x - BOX / 2:.0f}" y="{y}" width="{BOX}" height="{HEIGHT}" rx="5" fill="#f6f8fa"'
            f' stroke="{colour}" stroke-width="1.6"/>'
        )
        yield f'<text x="{x:.0f}" y="{y + 22}" text-anchor="middle">{name}</text>'
    yield (
        f'<rect x="20" y="{ground}" width="{WIDTH - 40}" height="52" rx="5" fill="#f6f8fa" stroke="#999"/>'
        f'<text x="{WIDTH / 2:g}" y="{ground + 21}" text-anchor="middle">at the root, for all:</text>'
        f'<text x="{WIDTH / 2:g}" y="{ground + 41}" text-anchor="middle">{", ".join(sorted(GROUND))}</text>'
    )
    yield "</svg>"


if __name__ == "__main__":
    sys.stdout.write(drawing())
