"""Where a command ends and where a message ends: SMTP's octets, and nothing of its meaning.

:class:`CommandLines` cuts command lines, :class:`MessageText` finds the end of a
message behind DATA and takes out the dot-stuffing (RFC 5321 sections 2.3.8, 4.1.1.4
and 4.5.2).  Pure: no transport, no replies, no store.

Only CR LF . CR LF ends a message.  ``<LF>.<CRLF>``, ``<LF>.<LF>``, ``<CR>.<CR>`` and
every other relative of it do not: a sender before us may have taken them for data,
and what follows would be a second message smuggled in under the first one's name.
"""

from __future__ import annotations

__all__ = ["CommandLines", "MessageText"]

END = b"\r\n.\r\n"


class CommandLines:
    """Cuts command lines; a bare LF ends one too, for people on netcat.

    That is safe for commands alone: DATA that ends in a bare LF is to be refused,
    because who sends it could never end the message.
    """

    def __init__(self) -> None:
        self._buffer = b""
        # Where there is no LF before.
        self._searched = 0
        # Throwing away the rest of a line that was too long.
        self._skipping = False

    def feed(self, data: bytes) -> None:
        """Take what the client sent."""
        self._buffer += data

    def next(self, limit: int) -> tuple[bytes, bool] | None:
        """The next line without its end and whether that was CRLF, or ``None`` if none is there.

        :param limit: octets of a line with its end.
        :raises ValueError: when a line is longer; its rest is thrown away.
        """
        while True:
            end = self._buffer.find(b"\n", self._searched)
            if end < 0:
                if self._skipping:
                    self._buffer = b""
                elif len(self._buffer) >= limit:
                    self._buffer = b""
                    self._searched = 0
                    self._skipping = True
                    raise ValueError("line too long")
                self._searched = len(self._buffer)
                return None
            line, self._buffer = self._buffer[: end + 1], self._buffer[end + 1 :]
            self._searched = 0
            if self._skipping:
                self._skipping = False
                continue
            if len(line) > limit:
                raise ValueError("line too long")
            if line.endswith(b"\r\n"):
                return line[:-2], True
            return line[:-1], False

    def take(self) -> bytes:
        """Everything that is left: the beginning of a message, or what STARTTLS discards."""
        rest, self._buffer, self._searched, self._skipping = self._buffer, b"", 0, False
        return rest


class MessageText:
    """The text of one message, chunk by chunk, up to its end."""

    def __init__(self) -> None:
        #: Octets of the text so far, without stuffed dots (RFC 1870 section 5).
        self.octets = 0
        #: LFs so far that no CR precedes.
        self.bare_line_feeds = 0
        self.finished = False
        # What may become the end, or a stuffed dot.  The text begins as if behind a
        # CRLF, which is not part of it: a first line "." is the end of an empty message.
        self._held = b"\r\n"
        self._lead = 2

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """The text in ``data``, and what comes behind the end (empty before it)."""
        data = self._held + data
        end = data.find(END)
        if end >= 0:
            self.finished = True
            text, rest = data[: end + 2], data[end + len(END) :]
        else:
            held = next((n for n in (4, 3, 2, 1) if data.endswith(END[:n])), 0)
            text, rest = data[: len(data) - held], b""
            self._held = data[len(data) - held :]
        # A CR at the end of a chunk is held, so no CRLF is ever split between two texts.
        if b"." in text:
            text = text.replace(b"\r\n.", b"\r\n")
        if text and self._lead:
            text = text[self._lead :]
            self._lead = 0
        self.octets += len(text)
        self.bare_line_feeds += text.count(b"\n") - text.count(b"\r\n")
        return text, rest
