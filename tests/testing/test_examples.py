"""The examples of docs/testing.rst, run as they stand in ``docs/examples/testing``."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ..realserver import DEADLINE, environment, run_command, twistd
from .test_pytest_plugin import plugin_options

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples" / "testing"


#: The program that the page tests.
FETCH_MAIL = """
import poplib
from contextlib import closing

def fetch_mail(host, port, user, password):
    with closing(poplib.POP3(host, port, timeout=20)) as client:
        client.user(user)
        client.pass_(password)
        for number in range(1, client.stat()[0] + 1):
            client.retr(number)
            client.dele(number)
        client.quit()

"""


def blocks(page: str, opening: str) -> list[str]:
    """What is indented below lines that end so, without the indentation."""
    found, lines, at = [], [*page.splitlines(), "end"], 0
    while at < len(lines):
        at += 1
        if lines[at - 1].endswith(opening):
            start = at
            while not lines[at] or lines[at].startswith("    "):
                at += 1
            found.append(textwrap.dedent("\n".join(lines[start:at])).strip("\n"))
    return found


class ExampleTests(SynchronousTestCase):
    """Each with what it is for."""

    def run_module(self, *arguments: str) -> str:
        """What ``python -W error -m`` says."""
        if not EXAMPLES.is_dir():
            raise SkipTest("there are no docs beside the tests")
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", *arguments],
            cwd=folder,
            env=environment(folder) | {"PYTHONPATH": f"{DOCS.parent}:{EXAMPLES}"},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, 0, said)
        return said

    def test_pytest(self) -> None:
        """pytest runs them all, also those that are written for others."""
        options = ("-p", "no:cacheprovider", *plugin_options(), f"--rootdir={EXAMPLES}")
        said = self.run_module("pytest", *options, str(EXAMPLES))
        written = "".join(path.read_text("utf-8") for path in EXAMPLES.glob("*.py"))
        count = len(re.findall(r"^ *(?:async )?def test_", written, re.MULTILINE))
        self.assertIn(f"{count} passed", said)

    def test_unittest(self) -> None:
        """unittest runs what is written for it, asyncio's too."""
        self.assertRegex(self.run_module("unittest", "test_with_unittest", "test_with_asyncio"), "(?m)^OK$")

    def test_trial(self) -> None:
        """trial runs what is written for it."""
        self.assertIn("PASSED", self.run_module("twisted.trial", "test_with_trial"))

    def test_ruby(self) -> None:
        """A client in another language, with the server as a program."""
        ruby = shutil.which("ruby")
        probe = ("-rminitest", "-rnet/pop", "-e1")
        if ruby is None or subprocess.run([ruby, *probe], capture_output=True, check=False).returncode:
            raise SkipTest("Ruby with minitest and net/pop is not installed")
        folder = Path(self.mktemp()).absolute()
        (folder / "bin").mkdir(parents=True)
        program = folder / "bin" / "twistd"
        program.write_text(f'#!/bin/sh\nexec {shlex.join(twistd())} "$@"\n')
        program.chmod(0o755)
        done = run_command(
            ruby,
            EXAMPLES / "test_with_ruby.rb",
            folder=folder,
            PATH=f"{program.parent}:{os.environ['PATH']}",
        )
        self.assertIn("2 runs, 8 assertions, 0 failures, 0 errors, 0 skips", done.stdout + done.stderr)
        self.assertEqual(done.returncode, 0)

    def test_page(self) -> None:
        """What the page shows of pytest is a file of tests that pass."""
        options = plugin_options()
        page = (DOCS / "testing.rst").read_text("utf-8")
        shown = [block for block in blocks(page, "::") if re.search(r"^(?:import|from|def|@)", block)]
        program = Path(self.mktemp()).absolute()
        program.mkdir()
        (program / "test_page.py").write_text("\n\n".join([FETCH_MAIL, *shown]))
        said = self.run_module("pytest", "-p", "no:cacheprovider", *options, str(program))
        count = len(re.findall("^def test_", "\n".join(shown), re.MULTILINE))
        self.assertGreater(count, 7)
        self.assertIn(f"{count} passed", said)

    def test_readme(self) -> None:
        """So is what README.rst begins with."""
        options = plugin_options()
        section = (
            (DOCS.parent / "README.rst").read_text("utf-8").partition("\nTest a mail client with it\n")[2]
        )
        program = Path(self.mktemp()).absolute()
        program.mkdir()
        (program / "test_readme.py").write_text(FETCH_MAIL + blocks(section, "::")[0])
        said = self.run_module("pytest", "-p", "no:cacheprovider", *options, str(program))
        self.assertIn("1 passed", said)

    def test_quoted(self) -> None:
        """What the page shows of others stands in an example, line by line."""
        page = (DOCS / "testing.rst").read_text("utf-8")
        written = {
            line.strip() for path in EXAMPLES.glob("test_*") for line in path.read_text("utf-8").splitlines()
        }
        quoted = blocks(page, ".. code-block:: python") + blocks(page, ".. code-block:: ruby")
        self.assertGreater(len(quoted), 3)
        for block in quoted:
            self.assertEqual([line for line in block.splitlines() if line.strip() not in written], [])

    def test_shown(self) -> None:
        """docs/testing.rst leads to each of them, and none uses more than public names."""
        page = (DOCS / "testing.rst").read_text("utf-8")
        for path in EXAMPLES.glob("test_*"):
            self.assertNotRegex(path.read_text("utf-8"), r"(from|import) pop3toy\.(?!testing import)")
            self.assertIn(f"`examples/testing/{path.name} <examples/testing/{path.name}>`_", page)
