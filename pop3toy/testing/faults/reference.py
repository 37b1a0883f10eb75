"""The list of all faults for people, as reStructuredText: ``python -m pop3toy.testing.faults.reference``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from .kinds import KINDS, Kind
from .rules import CONDITIONS

__all__ = ["fault_reference"]

_HEAD = """\
Faults
======

A server that is wrong on purpose, to see what a mail program makes of it. Faults are put in from Python
(``server.faults.add("drop", command="RETR", nth=2, octets=100)``) or from a file (TOML)::

    twistd -n pop3toy --port 2590 --faults faults.toml

    # faults.toml: the second message that is fetched breaks off, and one login in ten is late
    seed = 7

    [[fault]]
    kind = "drop"
    command = "RETR"
    nth = 2
    octets = 100

    [[fault]]
    kind = "delay"
    command = "PASS"
    seconds = 5
    probability = 0.1

Each fault is told in the transcript in the place where it happened (``[1] -- fault drop ...``). ``seed``
makes what is random the same each time. Several faults may concern one reply; they happen in the order in
which they are written. With ``authority = "authority.pem"`` (a certificate of an authority and its key) bad
certificates are signed by somebody whom a client trusts, so that nothing else is wrong with them. A reply
that a fault concerns is held in memory whole. No pause is longer than a day (86,400 seconds), nothing that a
fault makes up larger than 16 MiB, and a file of faults has 1 MiB at most.

When a fault happens
--------------------
"""

_KINDS = """
What goes wrong
---------------

.. Made from the kinds themselves: python -m pop3toy.testing.faults.reference > docs/faults.rst
"""


def fault_reference() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    for name, doc in CONDITIONS.items():
        yield f"``{name}``"
        yield f"    {doc[0].upper()}{doc[1:]}."
    yield _KINDS
    for name, kind in KINDS.items():
        yield f"``{name}``"
        for line in textwrap.wrap(_entry(kind), 110, break_on_hyphens=False, break_long_words=False):
            yield f"    {line}"
        for key, parameter in kind.parameters.items():
            choices = f" One of {', '.join(parameter.choices)}." if parameter.choices else ""
            default = "" if parameter.default is None else f" ({_toml(parameter.default)} if not given)"
            yield ""
            yield f"    - ``{key}``: {parameter.doc}{default}.{choices}"
        yield ""


def _entry(kind: Kind) -> str:
    text = kind.doc
    if kind.commands:
        text += f" Of {', '.join(kind.commands)}, if ``command`` names no other."
    return f"{text} Seen: {kind.seen}." if kind.seen else text


def _toml(value: object) -> str:
    return f"``{str(value).lower() if isinstance(value, bool) else value}``"


if __name__ == "__main__":
    print(fault_reference(), end="")
