"""Hints on what to install name a command that works."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import shlex
import subprocess
import sys
from importlib import util
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

import pop3toy
from pop3toy.installation import install_hint

from .realserver import DEADLINE

ROOT = Path(pop3toy.__file__).parent


class HintTests(SynchronousTestCase):
    """One function says what to install."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.package = self.folder / "with space" / "pop3toy"
        self.package.mkdir(parents=True)

    def test_in_a_checkout(self) -> None:
        """A checkout is installed again, with the extra, by the interpreter that runs."""
        for name in ("setup.cfg", "pyproject.toml"):
            (self.package.parent / name).touch()
        words = shlex.split(install_hint("tls", self.package))
        self.assertEqual(words, [sys.executable, "-m", "pip", "install", "-e", f"{self.package.parent}[tls]"])

    def test_installed(self) -> None:
        """Elsewhere the libraries themselves are named, which an index has."""
        requires = [
            "twisted>=24.7",
            'twisted[tls]>=24.7; extra == "tls"',
            "cryptography >=42 ; (python_version >= '3') and extra == 'tls'",
            'click>=8.1; extra == "cli"',
            'x; extra == "tlsx"',
        ]
        with patch.object(importlib.metadata, "requires", lambda name: requires):
            words = shlex.split(install_hint("tls", self.package))
        self.assertEqual(
            words, [sys.executable, "-m", "pip", "install", "twisted[tls]>=24.7", "cryptography >=42"]
        )

    def test_bare_copy(self) -> None:
        """A copy without metadata says where the libraries are named."""

        def unknown(name: str) -> list[str]:
            raise importlib.metadata.PackageNotFoundError(name)

        with patch.object(importlib.metadata, "requires", unknown):
            self.assertIn("setup.cfg", install_hint("tls", self.package))

    def test_the_libraries_of_this_installation(self) -> None:
        """What the metadata of this installation say is what setup.cfg says."""
        setup = configparser.ConfigParser()
        if not setup.read(ROOT.parent / "setup.cfg"):
            self.skipTest("there is no setup.cfg beside the package")
        for extra in ("tls", "accounts", "oauth", "cli"):
            told = shlex.split(install_hint(extra, self.package))[4:]
            self.assertEqual(told, setup["options.extras_require"][extra].split())

    def test_without_pip(self) -> None:
        """In an environment that uv has made, which has no pip, uv is named."""
        find = util.find_spec
        with patch("pop3toy.installation.find_spec", lambda name: None if name == "pip" else find(name)):
            words = shlex.split(install_hint("tls", self.package))
        self.assertEqual(words[:5], ["uv", "pip", "install", "--python", sys.executable])

    def test_the_command_is_there(self) -> None:
        """The command that this installation would be told of can be carried out up to its network."""
        words = shlex.split(install_hint("cli"))
        done = subprocess.run([*words[:3], "--version"], capture_output=True, timeout=DEADLINE, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        if "-e" in words:
            checkout, _, extra = words[-1].partition("[")
            self.assertTrue((Path(checkout) / "setup.cfg").exists())
            self.assertEqual(extra, "cli]")

    def test_no_hint_elsewhere(self) -> None:
        """No other line of the package, of its tests or of its benchmarks tells people to run pip."""
        makers = set()
        for folder in (ROOT, ROOT.parent / "tests", ROOT.parent / "benchmarks"):
            for path in sorted(folder.rglob("*.py")):
                for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                    told = node.value if isinstance(node, ast.Constant) else ""
                    if isinstance(told, str) and ("pop3toy" + "[" in told or "pip install" + " '" in told):
                        makers.add(f"{path.parent.name}/{path.name}: {told[:60]}")
        self.assertEqual(makers, set())
