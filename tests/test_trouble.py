"""Each line of trouble that the server can log is in docs/operating/trouble.rst, with what to do about it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .test_boundaries import modules, within

PAGE = Path(__file__).parent.parent / "docs" / "operating" / "trouble.rst"

#: They run in commands and in tests of clients, and tell of it there.
ELSEWHERE = ("cli", "testing", "conformance", "replay", "moving")


def texts() -> set[str]:
    """What is logged as warning, error or critical, with ``...`` in place of what differs.

    A text without words of its own is another error's, which names the option that is wrong.
    """
    found = set()
    for name, module in modules().items():
        if within(name, *ELSEWHERE):
            continue
        for node in ast.walk(module):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("warn", "error", "critical")
                and re.search(r"\b_?log\b", ast.unparse(node.func.value))
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                text = re.sub(r"\{[^{}]*\}", "...", str(node.args[0].value)).replace("`", "'")
                if re.search("[a-z]{3}", text) or text.count("...") > 1:
                    found.add(text)
    return found


class TroubleTests(SynchronousTestCase):
    """The section of the page."""

    def test_each_has_an_answer(self) -> None:
        """The page has an entry for each text in the code, each with a sentence, and no entry of another."""
        page = PAGE.read_text(encoding="utf-8")
        section = page.partition("What to do about an error line\n===")[2].partition(
            "\nA disk that does not answer\n="
        )[0]
        entries = set(re.findall(r"^``(.+)``\n    \S", section, re.MULTILINE))
        self.assertEqual(entries, texts())
