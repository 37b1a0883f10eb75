"""CONTRIBUTING.rst: its recipes are followed in a copy of the checkout, and what it names is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from pop3toy import __version__

from .folders import new_folder
from .mutate import mutants, passes
from .pages import CHECKOUT, page
from .test_docs import exists

RECIPES = CHECKOUT / "docs" / "examples" / "recipes"
#: Pages whose commands and files are looked for.
PAGES = ("CONTRIBUTING.rst", "SECURITY.md", "docs/releasing.rst")
#: Seconds that the recipes' tests may take.
PATIENCE = 120.0


class Edit(NamedTuple):
    """What a recipe changes in a file: lines with ``+``, ``-`` or a blank before them."""

    path: str
    lines: list[str]


def recipes() -> dict[str, str]:
    """The sections of the recipes, by their titles."""
    parts = re.split(
        r"^(.+)\n~+\n", page("CONTRIBUTING.rst").partition("\nRecipes\n-------\n")[2], flags=re.MULTILINE
    )
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def edits(text: str) -> list[Edit]:
    """The edits that a text shows: literal blocks behind the name of a file."""
    found = re.findall(r"``(\S+\.py)``::\n\n((?:    .*\n|\n)+)", text)
    return [Edit(path, [line[4:] for line in block.rstrip().splitlines()]) for path, block in found]


def indent_of(line: str) -> int:
    """Blanks before a line."""
    return len(line) - len(line.lstrip(" "))


def edited(source: str, lines: list[str]) -> str:
    """A source with an edit made in it.  Blank lines do not count in looking for the place.

    :raises ValueError: if a place is not there, or not only once.
    """
    hunks: list[list[str]] = [[]]
    for line in lines:
        if line.startswith("@@"):
            hunks.append([])
        else:
            hunks[-1].append(line or " ")
    result = source.split("\n")
    for hunk in hunks:
        old = [line[1:].strip() for line in hunk if line[0] != "+" and line.strip()]
        found = [places for at in range(len(result)) if (places := _places(result, at, old))]
        if len(found) != 1:
            raise ValueError(f"{len(found)} places for {old}")
        [places] = found
        further = indent_of(result[places[0]]) - min(indent_of(line[1:]) for line in hunk if line.strip())
        new, rest = [], iter(places)
        for line in hunk:
            if line[0] == "+" or not line.strip():
                new.append((" " * further + line[1:]).rstrip())
            elif line[0] == "-":
                next(rest)
            else:
                new.append(result[next(rest)])
        result[places[0] : places[-1] + 1] = new
    return "\n".join(result)


def _places(lines: list[str], at: int, wanted: list[str]) -> list[int]:
    """Where these lines are, from one on, blank lines left out; empty if they are not."""
    places = [place for place in range(at, len(lines)) if lines[place].strip()][: len(wanted)]
    same = [lines[place].strip() for place in places] == wanted
    return places if same and wanted and places[0] == at else []


def run_tests(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """Run tests of a copy in it."""
    return subprocess.run(
        [sys.executable, "-m", "twisted.trial", *names],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


class RecipeTests(SynchronousTestCase):
    """Who follows a recipe has what it promises."""

    def copy(self) -> tuple[Path, dict[str, str]]:
        """A copy of package and tests, with the recipes' tests; these by the recipes that name them."""
        if not RECIPES.exists():
            raise SkipTest("there are no recipes beside the tests")
        folder = Path(self.mktemp()).absolute()
        for name in ("pop3toy", "tests"):
            shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(RECIPES / "tests", folder / "tests", dirs_exist_ok=True)
        tests = {}
        for title, text in recipes().items():
            for path in re.findall(r"``docs/examples/recipes/(tests/\S+)\.py``", text):
                tests[path.replace("/", ".")] = title
        return folder, tests

    def test_followed(self) -> None:
        """The test of each recipe fails before its change, and passes behind it; so do the import rules."""
        folder, tests = self.copy()
        files = (path.relative_to(RECIPES).with_suffix("") for path in (RECIPES / "tests").rglob("*.py"))
        self.assertEqual(set(tests), {".".join(file.parts) for file in files})
        before = run_tests(folder, *tests)
        said = before.stdout + before.stderr
        for name in tests:
            self.assertRegex(said, rf"(?m)^{re.escape(name)}(\.|$)", "it passes without the change")
        shutil.copytree(RECIPES / "pop3toy", folder / "pop3toy", dirs_exist_ok=True)
        for title, text in recipes().items():
            for path, lines in edits(text):
                source = (folder / path).read_text("utf-8")
                try:
                    (folder / path).write_text(edited(source, lines), "utf-8")
                except ValueError as why:
                    self.fail(f"{title}: {path}: {why}")
        after = run_tests(folder, *tests, "tests.test_boundaries")
        self.assertEqual(after.returncode, 0, after.stdout + after.stderr)

    def test_what_they_show(self) -> None:
        """Each recipe changes something, but for the observer, which another page shows."""
        shown = {title: len(edits(text)) for title, text in recipes().items()}
        self.assertEqual({title for title, count in shown.items() if not count}, {"An observer"})
        self.assertEqual(len(shown), 7)


class CheckTests(SynchronousTestCase):
    """What runs at each commit, and before a release."""

    def test_hooks(self) -> None:
        """The hooks of pre-commit are the linters and mypy as ``.ci/run`` runs them, and fetch nothing."""
        hooks = page(".pre-commit-config.yaml")
        wanted = re.findall(r"^check (\.venv/bin/(?:ruff|mypy).*)$", page(".ci/run"), re.MULTILINE)
        self.assertEqual(len(wanted), 3)
        self.assertEqual(re.findall(r"^ +entry: (.*)$", hooks, re.MULTILINE), wanted)
        self.assertEqual(re.findall(r"repo: (.*)$", hooks, re.MULTILINE), ["local"])
        self.assertEqual(set(re.findall(r"language: (.*)$", hooks, re.MULTILINE)), {"system"})

    def test_news(self) -> None:
        """NEWS.rst begins with this version, unreleased or with its date."""
        title = page("NEWS.rst").splitlines()[3]
        self.assertRegex(title, rf"^{re.escape(__version__)} \((unreleased|\d{{4}}-\d\d-\d\d)\)$")


class EditTests(SynchronousTestCase):
    """This file's own hands."""

    SOURCE = "a = (\n    1,\n\n    2,\n)\n"

    def test_edited(self) -> None:
        """New lines are as far in as those around them; a gap in the source is no matter."""
        self.assertEqual(
            edited(self.SOURCE, [" 1,", "+x(", "+    y),"]),
            "a = (\n    1,\n    x(\n        y),\n\n    2,\n)\n",
        )
        self.assertEqual(edited(self.SOURCE, [" a = (", "@@", "-2,", "+3,"]), "a = (\n    1,\n\n    3,\n)\n")

    def test_no_place(self) -> None:
        """What is not there, or twice, is not guessed."""
        self.assertRaises(ValueError, edited, self.SOURCE, [" 4,", "+x"])
        self.assertRaises(ValueError, edited, "a\na\n", [" a", "+x"])


class NamedTests(SynchronousTestCase):
    """What the pages for who carries on name is there."""

    def test_files(self) -> None:
        """Each file and folder that they name exists."""
        missing = []
        for name in PAGES:
            for path in re.findall(
                r"`((?:\.\w|\w)[\w.-]*(?:/[\w.-]+)+|\w+\.(?:rst|md|toml|cfg))[`/ ]", page(name)
            ):
                if not (CHECKOUT / path).exists():
                    missing.append(f"{name}: {path}")
        self.assertEqual(missing, [])

    def test_names(self) -> None:
        """Functions and classes behind ``X of `` a file are in it."""
        found = re.findall(r"``(\w+)``\s+of\s+``(pop3toy/\S+)\.py``", page("CONTRIBUTING.rst"))
        self.assertGreater(len(found), 1)
        for name, path in found:
            self.assertTrue(hasattr(import_module(path.replace("/", ".")), name), f"{name} in {path}")

    def test_commands(self) -> None:
        """The commands are there: modules, and programs that ``dev`` installs."""
        programs = set()
        for name in PAGES:
            for command in re.findall(r"\.venv/bin/(python -m [\w.]+|[\w-]+)", page(name)):
                if command.startswith("python -m "):
                    module = command.removeprefix("python -m ")
                    if module in ("sphinx", "build", "venv") and find_spec(module) is None:
                        continue
                    self.assertIsNotNone(find_spec(module), command)
                else:
                    programs.add(command)
        self.assertLessEqual(programs, {"pip", "python", "trial", "ruff", "mypy"})

    def test_tests(self) -> None:
        """The tests that they name exist."""
        for name in PAGES:
            for named in re.findall(r"(?<![\w/.])tests(?:\.[a-z_0-9]+)*\.test_\w+(?:\.\w+)*", page(name)):
                self.assertTrue(exists(named), f"{name}: {named}")


class MutateTests(SynchronousTestCase):
    """The mistakes that ``tests.mutate`` makes."""

    SOURCE = '"""Doc."""\ndef f(a):\n    """Doc."""\n    if a < 1 and a:\n        return a\n    g(a)\n'

    def test_made(self) -> None:
        """Conditions, comparisons, numbers and statements are changed, one at a time; docstrings are not."""
        made = list(mutants(self.SOURCE))
        self.assertEqual(
            sorted((line, what) for line, what, _ in made),
            [
                (4, "'and' for 'or' or the other way: a < 1 and a"),
                (4, "2 for 1"),
                (4, "a < 1 with LtE"),
                (4, "not (a < 1 and a)"),
                (5, "dropped: return a"),
                (6, "dropped: g(a)"),
            ],
        )
        sources = {source for _, _, source in made}
        self.assertEqual(len(sources), len(made))
        for source in sources:
            self.assertIn("if ", source)
            compile(source, "mutant", "exec")

    def test_noticed(self) -> None:
        """A module's own tests fail for a mistake, and for one that never ends; they pass without."""
        folder = new_folder(self)
        (folder / "thing.py").write_text("def f(a):\n    while a < 1:\n        a += 1\n    return a\n")
        (folder / "test_thing.py").write_text(
            "from unittest import TestCase\nfrom thing import f\n\n"
            "class T(TestCase):\n    def test_f(self):\n        assert f(0) == 1\n"
        )
        self.assertTrue(passes(folder, ["test_thing"], PATIENCE))
        for mistake in ("return a + 2", "while True: pass"):
            (folder / "thing.py").write_text(f"def f(a):\n    {mistake}\n")
            self.assertFalse(passes(folder, ["test_thing"], 5.0), mistake)
