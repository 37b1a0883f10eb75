"""The octets behind DATA: finds the end of the text and takes out the dot-stuffing.

See RFC 5321 sections 2.3.8, 4.1.1.4 and 4.5.2.  Pure: no transport, no replies, no store.

Only CR LF . CR LF ends a message.  ``<LF>.<CRLF>``, ``<LF>.<LF>``, ``<CR>.<CR>`` and the like do not: the
server that sends the message may have taken them for data, and what follows would be a second message,
smuggled in under its name ("SMTP smuggling").
"""

from __future__ import annotations

__all__ = ["MessageText"]

END = b"\r\n.\r\n"


class MessageText:
    """The text of one message, chunk by chunk, up to its end."""

    def __init__(self) -> None:
        #: Octets of the text so far, without stuffed dots (RFC 1870 section 5).
        self.octets = 0
        #: LFs so far that no CR precedes.
        self.bare_line_feeds = 0
        #: CRs so far that no LF follows.
        self.bare_carriage_returns = 0
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
        line_ends = text.count(b"\r\n")
        self.bare_line_feeds += text.count(b"\n") - line_ends
        self.bare_carriage_returns += text.count(b"\r") - line_ends
        return text, rest
