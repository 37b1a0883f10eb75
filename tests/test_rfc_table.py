"""``docs/rfc.rst`` names tests: they exist, and no rule is left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module

from twisted.trial.unittest import SynchronousTestCase

from .pages import CHECKOUT, page

#: The project's own rules; the gaps leave room for more.
RULES = [
    f"R{number}"
    for part in (range(1, 8), range(10, 15), range(20, 29), range(30, 33), range(40, 43), range(50, 51))
    for number in part
]
RFCS = (1939, 2449, 3206, 2595, 8314, 5034, 6856, 5321, 2033, 3461, 3464)
_TEST = re.compile(r"``(tests(?:\.[a-z]\w+)?\.test_\w+)\.(\w+)\.(test_\w+)``")
_SCRIPT = re.compile(r"``(tests/conversations/[\w-]+\.txt)``")


def rows() -> Iterator[tuple[str, str, str]]:
    """The rows of all tables: section, what it asks, what holds it."""
    for row in re.split(r"^   \* - ", page("docs/rfc.rst"), flags=re.MULTILINE)[1:]:
        # The last row of a table ends where the next title begins.
        cells = re.split(r"^     - ", re.split(r"^(?=\S)", row, flags=re.MULTILINE)[1], flags=re.MULTILINE)
        assert len(cells) == 3, row
        section, asks, held = (cell.strip() for cell in cells)
        if section not in ("Section", "Rule"):
            yield section, asks, held


class RFCTableTests(SynchronousTestCase):
    """The tables of what RFCs and rules ask."""

    def setUp(self) -> None:
        self.page = page("docs/rfc.rst")

    def test_tests_exist(self) -> None:
        """Every test that is named can be run under that name."""
        named = set(_TEST.findall(self.page))
        self.assertGreater(len(named), 200)
        missing = [
            ".".join(name)
            for name in sorted(named)
            if not callable(getattr(getattr(import_module(name[0]), name[1], None), name[2], None))
        ]
        self.assertEqual(missing, [])

    def test_conversations_exist(self) -> None:
        """Every conversation that is named is there."""
        named = set(_SCRIPT.findall(self.page))
        self.assertGreater(len(named), 15)
        self.assertEqual([name for name in sorted(named) if not (CHECKOUT / name).is_file()], [])

    def test_nothing_else_looks_like_a_test(self) -> None:
        """A name with a slip in it is not passed over."""
        looks = re.findall(r"``(tests[./][^`]*)``", self.page)
        whole = {".".join(name) for name in _TEST.findall(self.page)} | set(_SCRIPT.findall(self.page))
        others = {"tests/conversations/", "tests.pop3.test_conversations", "tests/test_rfc_table.py"}
        self.assertEqual(set(looks) - whole - others, set())

    def test_rules(self) -> None:
        """Each rule has its row, and the rows are in order."""
        self.assertEqual([section for section, _, _ in rows() if section.startswith("R")], RULES)

    def test_rfcs(self) -> None:
        """Each RFC has its table."""
        titles = re.findall(r"^RFC (\d+): .*\n-+$", self.page, re.MULTILINE)
        self.assertEqual(tuple(map(int, titles)), RFCS)

    def test_each_row_is_held(self) -> None:
        """A row names a test, or says that it is a departure."""
        for section, asks, held in rows():
            self.assertTrue(asks)
            tested = _TEST.search(held) or _SCRIPT.search(held)
            self.assertTrue(tested or held.startswith("**Departure:**"), (section, asks))
