"""The list of all options for people, as reStructuredText: ``python -m pop3toy.config.reference``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from ..option import FLAG, Option
from .changes import TAKEN_UP
from .table import OPTIONS, TABLES

__all__ = ["example", "reference"]

_HEAD = """\
Options
=======

Every option of ``twistd pop3toy``, in the tables in which they stand in a file for ``--config``
(TOML). The command line wins over the file. ``pop3toy config check FILE`` looks whether a file is
right, ``pop3toy config show FILE`` says what is in force and from where. A path in a file
that is not named in full is looked for beside the file. What a reload takes up (SIGHUP, ``systemctl
reload``) is said; the rest counts from the next start on.

.. Made from the options themselves: python -m pop3toy.config.reference > docs/reference.rst
"""


def reference() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    for table, title in TABLES.items():
        yield f"[{table}]"
        yield "-" * (len(table) + 2)
        yield ""
        yield f"{title}."
        yield ""
        for one in OPTIONS.values():
            if one.table == table:
                yield from _entry(one)


def _entry(one: Option) -> Iterator[str]:
    short = f"-{one.short}, " if one.short else ""
    yield f"``{short}--{one.name}{' ' * bool(one.kind.metavar)}{one.kind.metavar}``"
    often = " May be given several times." if one.many else ""
    text = one.help.replace("`", "``") + often
    for line in textwrap.wrap(text, 100, break_on_hyphens=False, break_long_words=False):
        yield f"    {line}"
    yield ""
    again = "; taken up by a reload" if one.name in TAKEN_UP else ""
    yield f"    In a file: ``{one.name} = {example(one)}``{again}"
    yield ""


def example(one: Option) -> str:
    """What a file may say for an option."""
    if one.many:
        return "[...]"
    if one.kind is FLAG:
        return "true"
    shown = one.default if isinstance(one.default, int | str) else one.example
    if shown is None:
        return '"..."'
    return str(shown) if isinstance(shown, int) else f'"{shown}"'


if __name__ == "__main__":
    print(reference(), end="")
