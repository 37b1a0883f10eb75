"""What a check can come to, and how it says so: passing is silence, the rest are exceptions."""

from __future__ import annotations

__all__ = ["CannotTry", "Failed", "NotTested", "require"]


class Failed(Exception):
    """The server breaks the rule; the text says how, in one line.

    :ivar lines: those of the conversation that show it, where the last ones do not.
    """

    def __init__(self, text: str, lines: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.lines = lines


class NotTested(Exception):
    """Nothing is known of the rule; the text says why."""


class CannotTry(Exception):
    """There is no server to look at, or not the means; the text says why."""


def require(kept: object, text: str, lines: tuple[str, ...] = ()) -> None:
    """Go on only if a rule is kept.

    :raises Failed: with the text and the lines.
    """
    if not kept:
        raise Failed(text, lines)
