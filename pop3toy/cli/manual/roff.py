"""Text as roff, for the macros of man(7).  Pure: text in, text out; ASCII alone comes out."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["entry", "escaped", "literal", "paragraph", "section", "subsection", "title"]

#: What roff would print as something else, or take as its own.
_ESCAPES = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq"}


def escaped(text: str) -> str:
    """Text that stands anywhere in a line, as it is."""
    found = "".join(_ESCAPES.get(one, one) for one in text)
    return "".join(one if one.isascii() else f"\\[u{ord(one):04X}]" for one in found)


def title(name: str, section: int, version: str) -> str:
    """The first lines of a page.  Without hyphenation, which would come along with what is copied."""
    return f'.TH {escaped(name.upper())} {section} "" "pop3toy {version}"\n.nh\n.ad l\n'


def section(heading: str) -> str:
    """A heading."""
    return f'.SH "{escaped(heading.upper())}"\n'


def subsection(heading: str) -> str:
    """A heading below another."""
    return f'.SS "{escaped(heading)}"\n'


def paragraph(text: str) -> str:
    """Prose; what stands between backquotes is bold."""
    return f".PP\n{_prose(text)}"


def entry(term: str, text: str, more: Iterable[str] = ()) -> str:
    """An option or the like in bold, and what it is, indented; further lines are paragraphs there."""
    return f".TP\n\\fB{escaped(term)}\\fP\n{_prose(text)}" + "".join(f".IP\n{_prose(one)}" for one in more)


def literal(lines: Iterable[str]) -> str:
    """Lines that stay as they are, indented."""
    return ".PP\n.RS 4\n.nf\n" + "".join(f"{_line(escaped(one))}\n" for one in lines) + ".fi\n.RE\n"


def _prose(text: str) -> str:
    parts = re.split(r"``?([^`]+)``?", " ".join(text.split()))
    marked = "".join(f"\\fB{escaped(one)}\\fP" if at % 2 else escaped(one) for at, one in enumerate(parts))
    # A sentence a line, so that a change of one shows as one.
    return "".join(f"{_line(one)}\n" for one in re.split(r"(?<=[.?!]) (?=[A-Z])", marked))


def _line(text: str) -> str:
    """A dot in the beginning would be a request."""
    return f"\\&{text}" if text.startswith(".") else text
