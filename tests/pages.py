"""The project's pages, as tests read them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SkipTest

__all__ = ["CHECKOUT", "literal_blocks", "operating", "page"]

CHECKOUT = Path(__file__).parent.parent


def page(name: str) -> str:
    """The text of a page.

    :param name: its path in the checkout, as in ``docs/rfc.rst``.
    :raises SkipTest: where the tests run without the checkout around them.
    """
    path = CHECKOUT / name
    if not path.exists():
        raise SkipTest(f"there is no {name} beside the tests")
    return path.read_text("utf-8")


def operating() -> str:
    """The text of all pages about operating a server, one behind the other.

    :raises SkipTest: where the tests run without the checkout around them.
    """
    start = page("docs/operating.rst")
    return "\n".join(
        [start, *(one.read_text("utf-8") for one in sorted((CHECKOUT / "docs/operating").glob("*.rst")))]
    )


def literal_blocks(name: str) -> Iterator[list[str]]:
    """The literal blocks of a page, which stand behind two colons, without their indentation."""
    lines = [*page(name).splitlines(), "end"]
    at = 0
    while at < len(lines):
        at += 1
        if lines[at - 1].endswith("::"):
            start = at
            while not lines[at] or lines[at].startswith(" "):
                at += 1
            yield textwrap.dedent("\n".join(lines[start:at])).strip("\n").splitlines()
