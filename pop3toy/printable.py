"""Text that others chose, made harmless for a terminal and for a file of lines."""

from __future__ import annotations

__all__ = ["encodable", "printable"]


def printable(text: str, keep: str = "") -> str:
    r"""Text in which everything that could steer a terminal or begin a line is escaped, as in ``\x1b``.

    :param keep: characters that stay although they are not printable.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def encodable(text: str, encoding: str | None) -> str:
    r"""Text in which what an encoding has no octets for is escaped, as in ``\u20ac``.

    :param encoding: a name that Python knows; ``None`` stands for one that has everything.
    """
    return text.encode(encoding, "backslashreplace").decode(encoding) if encoding is not None else text
