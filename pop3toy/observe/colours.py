"""Colours for a terminal: which kind of line has which, by rich where that is installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TextIO, TypeAlias

__all__ = ["Paint", "coloured", "painting", "plain"]

#: Makes text of a kind coloured.  Kinds are those of explanations, and ``client``, ``server``, ``neither``.
Paint: TypeAlias = Callable[[str, str], str]

#: By kind, in colours of the terminal's own palette that can be read on dark and on light; yellow, blue,
#: white and black cannot.
_STYLES = {
    "client": "bold",
    "neither": "dim",
    "note": "cyan",
    "measure": "dim",
    "state": "magenta",
    "hint": "bold green",
    "warning": "bold red",
    "summary": "magenta",
}


def plain(kind: str, text: str) -> str:
    """Without colour."""
    return text


def painting(stream: TextIO) -> Paint:
    """How to colour what is written to a stream.

    :param stream: gets colours only if it is a terminal that has them, and not with ``NO_COLOR`` in the
        environment (https://no-color.org), nor without rich.
    """
    if os.environ.get("NO_COLOR") or not stream.isatty():
        return plain
    try:
        from rich.console import Console
    except ImportError:
        return plain
    return coloured() if Console(file=stream).color_system is not None else plain


def coloured() -> Paint:
    """In colours, wherever it is written to.

    :raises ImportError: without rich.
    """
    from rich.color import ColorSystem
    from rich.style import Style

    styles = {kind: Style.parse(style) for kind, style in _STYLES.items()}

    def paint(kind: str, text: str) -> str:
        style = styles.get(kind)
        return text if style is None else style.render(text, color_system=ColorSystem.STANDARD)

    return paint
