"""Each line of trouble that the server can write is in docs/operating/trouble.rst, with what to do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .test_boundaries import modules, within

PAGE = Path(__file__).parent.parent / "docs" / "operating" / "trouble.rst"

#: They run in commands and in tests of clients, and tell of it there.
ELSEWHERE = ("cli", "testing", "conformance", "replay", "moving")


def logged() -> set[str]:
    """What is logged as warning, error or critical, with ``...`` in place of what differs.

    A text without words of its own is another error's, which names the option that is wrong.
    """
    found = set()
    for _, call, _ in calls():
        if (
            isinstance(call.func, ast.Attribute)
            and call.func.attr in ("warn", "error", "critical")
            and re.search(r"\b_?log\b", ast.unparse(call.func.value))
            and call.args
            and isinstance(call.args[0], ast.Constant)
        ):
            text = re.sub(r"\{[^{}]*\}", "...", str(call.args[0].value)).replace("`", "'")
            if re.search("[a-z]{3}", text) or text.count("...") > 1:
                found.add(text)
    return found


def ending_a_start() -> set[str]:
    """What a start can end with, in the same way; ``--...`` where any of several options is named.

    Some come as the reason behind another: those of certificates, and of values, read behind a name.
    """
    found = set()
    for name, call, constants in calls():
        texts = [text_of(one, constants) for one in call.args]
        match name, texts:
            case "BadSetting", [option, text]:
                found.add(f"--{option}{text}")
            case (("CannotStart" | "UsageError" | "BadCertificate"), [text]):
                found.add(text)
            case "ValueError", [text] if text.startswith((" ", ":")):
                found.add(f"--...{text}")
    return {text for text in found if re.search("[a-z]{2}", text)}


def calls() -> Iterator[tuple[str, ast.Call, Mapping[str, str]]]:
    """Each call in the server: what is called, the call, and the texts that names at its module stand for."""
    for name, module in modules().items():
        if within(name, *ELSEWHERE):
            continue
        constants = {}
        for line in module.body:
            if isinstance(line, ast.Assign | ast.AnnAssign) and isinstance(line.value, ast.Constant):
                target = line.targets[0] if isinstance(line, ast.Assign) else line.target
                constants[ast.unparse(target)] = str(line.value.value)
        for node in ast.walk(module):
            if isinstance(node, ast.Call):
                yield ast.unparse(node.func).rpartition(".")[2], node, constants


def text_of(node: ast.expr, constants: Mapping[str, str]) -> str:
    """A text with ``...`` in place of what differs."""
    match node:
        case ast.Constant():
            return str(node.value)
        case ast.JoinedStr():
            return "".join(text_of(one, constants) for one in node.values)
        case ast.FormattedValue():
            return text_of(node.value, constants)
        case ast.Name(id=name) if name.isupper() or name.startswith("_"):
            return constants.get(name, "...")
    return "..."


class TroubleTests(SynchronousTestCase):
    """The page has an entry for each text in the code, each with a sentence, and no entry of another."""

    def entries(self, section: str) -> set[str]:
        """The texts that a section answers."""
        page = PAGE.read_text(encoding="utf-8")
        [found] = re.findall(rf"^{section}\n=+\n(.*?)(?=^[^\n]+\n==+\n|\Z)", page, re.MULTILINE | re.DOTALL)
        entries = re.findall(r"^``(.+)``\n    \S", found, re.MULTILINE)
        self.assertEqual(len(entries), len(set(entries)), "one of them twice")
        return set(entries)

    def test_log(self) -> None:
        """Lines of the log."""
        self.assertEqual(self.entries("What to do about an error line"), logged())

    def test_start(self) -> None:
        """Lines that end a start."""
        self.assertEqual(self.entries("What to do about a start that fails"), ending_a_start())
