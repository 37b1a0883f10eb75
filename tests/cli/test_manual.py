"""The manual pages: made from the options as they are, and without a word of complaint from groff."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from pop3toy.cli.group import pop3toy
from pop3toy.cli.manual.pages import pages
from pop3toy.cli.manual.roff import entry, literal, paragraph
from pop3toy.config.table import OPTIONS

from ..realserver import DEADLINE

FOLDER = Path(__file__).parent.parent.parent / "docs" / "man"


class PagesTests(SynchronousTestCase):
    """The files of ``docs/man``."""

    def test_as_made(self) -> None:
        """They are what ``python -m pop3toy.cli.manual.pages docs/man`` writes."""
        there = {path.name: path.read_text(encoding="ascii") for path in FOLDER.iterdir()}
        made = pages()
        self.assertEqual(set(there), set(made))
        for name, text in made.items():
            self.assertEqual(there[name], text, name)

    def shown(self, name: str) -> str:
        """A page as a terminal shows it; warnings fail the test."""
        if shutil.which("groff") is None:
            raise SkipTest("groff is not installed (Debian package groff-base)")
        done = subprocess.run(
            ["groff", "-ww", "-mandoc", "-Tascii", "-P-cbou", "-rLL=200n", str(FOLDER / name)],
            capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        self.assertEqual((done.returncode, done.stderr), (0, ""), name)
        return " ".join(done.stdout.split())

    def test_right(self) -> None:
        """Groff has nothing to complain of, and each page begins as whatis(1) wants it."""
        for name in pages():
            self.assertRegex(self.shown(name), rf"NAME {re.escape(name[:-2])} - [a-z]")

    def test_options(self) -> None:
        """Each option of the server is on both its pages, with all of its help."""
        pages_of_options = (self.shown("twistd-pop3toy.1"), self.shown("pop3toy.toml.5"))
        for name, one in OPTIONS.items():
            for page, written in zip(pages_of_options, (f"--{name}", f"{name} = "), strict=True):
                self.assertIn(written, page)
                self.assertIn(" ".join(one.help.replace("`", "").split()), page)

    def test_commands(self) -> None:
        """Each command is on the page of commands."""
        page = self.shown("pop3toy.1")
        waiting: list[tuple[str, click.Command]] = [("pop3toy", pop3toy)]
        while waiting:
            path, command = waiting.pop()
            if isinstance(command, click.Group):
                inner = command.commands.items()
                waiting += [(f"{path} {name}", one) for name, one in inner if not one.hidden]
            else:
                # Its heading and how it is used.
                self.assertIn(f" {path} {path} ", page)


class RoffTests(SynchronousTestCase):
    """Text stays what it was."""

    def test_nothing_is_a_request(self) -> None:
        """Dots and quotes in the beginning, backslashes and hyphens are text."""
        self.assertEqual(paragraph(".forward \\ it"), ".PP\n\\&.forward \\e it\n")
        self.assertEqual(literal(["'x'", ".y"]), ".PP\n.RS 4\n.nf\n\\(aqx\\(aq\n\\&.y\n.fi\n.RE\n")
        self.assertEqual(entry("-x", "see `--y`"), ".TP\n\\fB\\-x\\fP\nsee \\fB\\-\\-y\\fP\n")
