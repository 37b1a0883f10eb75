"""The examples of docs/testing.rst, run as they stand in ``docs/examples/testing``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ..realserver import DEADLINE, environment
from .test_pytest_plugin import plugin_options

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples" / "testing"


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

    def test_shown(self) -> None:
        """docs/testing.rst shows each of them, and what it quotes stands there."""
        page = (DOCS / "testing.rst").read_text("utf-8")
        for path in EXAMPLES.glob("test_*.py"):
            self.assertIn(f"`examples/testing/{path.name} <examples/testing/{path.name}>`_", page)
