"""The conversation with explanations: behind each line what it means, as ``[1]    | text [RFC 1939]``.

The lines of the conversation are those of any transcript, so that whatever reads one reads this, too.
``|`` is before what happens, ``!`` before what is dangerous, ``?`` before a hint to who is on a wrong track.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from ..events import KINDS, Event
from ..printable import printable
from .colours import Paint, plain
from .explain.explainer import Explainer
from .explain.explanation import Explanation
from .line_writer import LineWriter
from .transcript import WriterTranscript

__all__ = ["ExplainedTranscript"]

_MARKS = {"warning": "!", "hint": "?"}
_SIDES = {"C:": "client", "S:": "server"}


class ExplainedTranscript(WriterTranscript):
    """Writes to a terminal or a file.

    :param writer: may write for others as well.
    :param explainer: of these conversations alone.
    :param paint: colours, for a terminal.
    """

    wants: Collection[type] = KINDS

    def __init__(self, writer: LineWriter, explainer: Explainer, paint: Paint = plain) -> None:
        super().__init__(writer)
        self._explainer = explainer
        self._paint = paint
        # What belongs behind lines of the event that is being written down, by their place in it.
        self._of_lines: dict[int, list[Explanation]] = {}

    def observe(self, event: Event) -> None:
        """Write down what happened, and what it means."""
        self._of_lines = defaultdict(list)
        of_all = []
        for one in self._explainer.explain(event):
            if one.line is None:
                of_all.append(one)
            else:
                self._of_lines[one.line].append(one)
        super().observe(event)
        for one in of_all:
            self._explain(event.session, one)

    def _shown(self, number: int, place: int) -> None:
        for one in self._of_lines.get(place, ()):
            self._explain(number, one)

    def _explain(self, number: int, one: Explanation) -> None:
        where = f" [{one.clause}]" if one.clause else ""
        line = f"[{number}]    {_MARKS.get(one.kind, '|')} {printable(one.text)}{where}"
        self.writer.write(f"{self._paint(one.kind, line)}\n")

    def _write(self, line: str) -> None:
        kind = _SIDES.get(line.partition("] ")[2][:2], "neither")
        self.writer.write(f"{self._paint(kind, line)}\n")
