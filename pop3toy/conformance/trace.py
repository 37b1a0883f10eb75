"""What was said in the sessions of one check, without secrets, and short enough to be read."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence

from ..printable import printable
from .replies import Block, Reply

__all__ = ["Trace"]

#: Octets of a line that are shown, lines of a listing, and lines in all.
_WIDTH, _LISTED, _KEPT = 120, 6, 14


class Trace:
    """The lines of all sessions since :meth:`restart`.

    :param secrets: what is masked wherever it stands, also where a server says it.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._entries: list[tuple[int, str]] = []
        self._sessions = 0
        #: All first lines of answers, ends of multi-line ones, and listings.
        self.replies: list[Reply] = []
        #: Whether nothing is added: what is said for good order's sake shows nothing.
        self.paused = False
        self.ends: list[tuple[str, bytes]] = []
        self.listings: list[tuple[str, Block]] = []
        spellings = {secret.encode("utf-8") for secret in secrets if secret}
        spellings |= {base64.b64encode(one) for one in spellings}
        # A password of one letter is not masked within words: what is left would tell it.
        self._secret = re.compile(
            b"|".join(
                re.escape(one) if len(one) > 5 else rb"(?<![A-Za-z0-9])%b(?![A-Za-z0-9])" % re.escape(one)
                for one in sorted(spellings, key=len, reverse=True)
            )
            or rb"(?!)"
        )

    def restart(self) -> None:
        """Begin a check."""
        self._entries.clear()
        self._sessions = 0
        self.replies.clear()
        self.ends.clear()
        self.listings.clear()

    def begin(self) -> int:
        """Begin a session: its number."""
        self._sessions += 1
        return self._sessions

    def masked(self, text: str) -> str:
        """Text with no secret in it, and nothing that steers a terminal."""
        octets = self._secret.sub(b"****", text.encode("utf-8", "replace"))
        return printable(octets.decode("utf-8", "replace"))

    def add(self, session: int, who: str, said: bytes | str) -> None:
        """Add what was said, by ``C`` or ``S``: octets, or a text that tells of them."""
        if self.paused:
            return
        if isinstance(said, str):
            self._entries.append((session, f"{who}: {self.masked(said)}"))
            return
        said = self._secret.sub(b"****", said)
        pieces = said.removesuffix(b"\n").split(b"\n")
        for at, piece in enumerate(pieces[:_LISTED]):
            whole = at < len(pieces) - 1 or said.endswith(b"\n")
            line = piece.removesuffix(b"\r")
            end = "" if piece.endswith(b"\r") and whole else "  (ends with LF)" if whole else "  (no end)"
            more = f"... ({len(line)} octets)" if len(line) > _WIDTH else ""
            text = printable(line[:_WIDTH].decode("utf-8", "backslashreplace"))
            self._entries.append((session, f"{who}: {text}{more}{end}"))

    def shown(self, asked: str, raw: bytes) -> tuple[str, ...]:
        """A command and a line of its answer, for a report."""
        one = Trace([])
        one._secret = self._secret
        if not asked.startswith("("):
            one.add(1, "C", asked)
        one.add(1, "S", raw)
        return one.lines

    def add_some(self, session: int, lines: Sequence[bytes]) -> None:
        """Add the lines of a listing, of a long one the first and the last."""
        shown = lines if len(lines) <= 2 * _LISTED else [*lines[:_LISTED], *lines[-2:]]
        left = len(lines) - len(shown)
        for at, line in enumerate(shown):
            if left and at == _LISTED:
                self._entries.append((session, f"S: ... ({left} line{'s'[: left != 1]})"))
            self.add(session, "S", line)

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines; with a number before them where there is more than one session."""
        shown = self._entries[-_KEPT:]
        several = len({session for session, _ in shown}) > 1
        return tuple(f"{session} {text}" if several else text for session, text in shown)
