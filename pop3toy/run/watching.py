"""What watches the conversations, as the settings say: the transcript, JSON Lines, the log."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

from ..config.settings import Settings
from ..events import Delivered, Observers
from ..interfaces import IObserver
from ..languages import language_of_the_locale
from ..observe.json_lines import JSONLines, lost
from ..observe.line_writer import LineWriter
from ..observe.log_levels import Levels
from ..observe.session_log import SessionLog
from ..observe.transcript import WriterTranscript

__all__ = ["Watching", "watching_of"]


class Watching(NamedTuple):
    """What watches."""

    #: Of all ports.
    observers: Observers
    #: Each is to be started and stopped, and opened again when the log is.
    writers: Sequence[LineWriter]
    #: Writes to the terminal, if a transcript goes there.
    terminal: LineWriter | None


def watching_of(settings: Settings, given: Sequence[IObserver], levels: Levels) -> Watching:
    """What the settings say, and other observers that are given.

    :param levels: which levels of the log are written.
    """
    writers: list[LineWriter] = []
    observers: list[IObserver] = []
    terminal = None
    where = settings.transcript_to
    if where != "off":
        lines = LineWriter.to_terminal() if where == "-" else LineWriter.to_file(where)
        terminal = lines if where == "-" else None
        writers.append(lines)
        observers.append(_transcript(settings, lines, on_terminal=where == "-"))
    if settings.transcript_json is not None:
        lines = LineWriter.to_file(settings.transcript_json, lost=lost)
        writers.append(lines)
        observers.append(JSONLines(lines))
    # In the toy logins are seen in the conversation, and only where mail went is not.
    observers.append(SessionLog([Delivered] if settings.is_toy else None, levels=levels))
    # Only the built-in account, which is public, is shown with its password unasked.
    secrets = settings.is_toy and (not settings.users or settings.show_secrets)
    return Watching(Observers(*observers, *given, secrets=secrets), writers, terminal)


def _transcript(settings: Settings, lines: LineWriter, *, on_terminal: bool) -> IObserver:
    if not settings.explain:
        return WriterTranscript(lines)
    from ..observe.colours import painting, plain
    from ..observe.explain.explainer import Explainer
    from ..observe.explained import ExplainedTranscript

    explainer = Explainer(settings.language or language_of_the_locale())
    # twistd's log takes the place of sys.stdout.
    terminal = sys.__stdout__ if on_terminal else None
    return ExplainedTranscript(lines, explainer, plain if terminal is None else painting(terminal))
