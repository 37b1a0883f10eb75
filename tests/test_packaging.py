"""The packaging that makes ``twistd`` list the plugin, and ships nothing that is not ours."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SkipTest, SynchronousTestCase

import pop3toy
from pop3toy.tap import Options

from .folders import new_folder

CHECKOUT = Path(__file__).resolve().parent.parent
PLUGIN = "twisted/plugins/pop3toy_plugin.py"
#: What a package is built from.
SOURCES = (
    "pop3toy",
    "twisted",
    "setup.cfg",
    "pyproject.toml",
    "MANIFEST.in",
    "README.rst",
    "LICENSE",
    "NEWS.rst",
)
#: Older ones do not know ``license = MIT``; pyproject.toml asks for it.
NEEDED_SETUPTOOLS = 77


class PluginTests(SynchronousTestCase):
    """``twistd`` finds its command through a plugin."""

    def test_exactly_one_that_loads(self) -> None:
        """There is one pop3toy among the service makers, and its options and service can be had."""
        makers = [maker for maker in getPlugins(IServiceMaker) if maker.tapname == "pop3toy"]
        self.assertEqual(len(makers), 1)
        self.assertIs(makers[0].options, Options)
        self.assertTrue(callable(makers[0].makeService))
        self.assertTrue(makers[0].description)

    def test_nothing_hides_twisted(self) -> None:
        """No ``__init__.py`` in ``twisted/`` or ``twisted/plugins/``: it would hide Twisted's own."""
        found = [path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "twisted").rglob("*.py")]
        self.assertEqual(found, [PLUGIN])

    def test_imports_next_to_nothing(self) -> None:
        """Every command of twistd imports the plugin: it imports ServiceMaker and no module of ours."""
        tree = ast.parse((CHECKOUT / PLUGIN).read_text())
        imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        self.assertEqual(
            [ast.unparse(node) for node in imported], ["from twisted.application.service import ServiceMaker"]
        )
        names = [target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]  # type: ignore[attr-defined]
        self.assertEqual(names, ["pop3toy"], "the name is in caches everywhere and never changes")


class MetadataTests(SynchronousTestCase):
    """One place for each fact."""

    def setUp(self) -> None:
        self.setup = configparser.ConfigParser()
        self.setup.read(CHECKOUT / "setup.cfg")

    def test_version_in_one_place(self) -> None:
        """The version stands in ``_version.py``; setup.cfg reads it there, and no other source writes it."""
        self.assertEqual(self.setup["metadata"]["version"], "attr: pop3toy._version.__version__")
        version = re.escape(pop3toy.__version__)
        writers = [
            path.relative_to(CHECKOUT).as_posix()
            for folder in ("pop3toy", "twisted")
            for path in (CHECKOUT / folder).rglob("*.py")
            if re.search(rf"[\"']{version}[\"']", path.read_text(encoding="utf-8"))
        ]
        self.assertEqual(writers, ["pop3toy/_version.py"])
        self.assertNotRegex((CHECKOUT / "pyproject.toml").read_text(), r"(?m)^version\s*=")

    def test_editable_installs_list_the_plugin(self) -> None:
        """``package_dir = .`` and ``find_namespace:``: without either twistd does not see the plugin."""
        self.assertEqual(self.setup["options"]["package_dir"].split(), ["=", "."])
        self.assertEqual(self.setup["options"]["packages"], "find_namespace:")
        self.assertEqual(
            self.setup["options.packages.find"]["include"].split(),
            ["pop3toy", "pop3toy.*", "twisted.plugins"],
        )

    def test_every_folder_is_a_package(self) -> None:
        """Each folder of the package has an ``__init__.py``, and is shipped on purpose."""
        for path in (CHECKOUT / "pop3toy").rglob("*.py"):
            self.assertTrue((path.parent / "__init__.py").exists(), path)

    def test_all_names_everything(self) -> None:
        """Each extra that a user may want is in ``all``."""
        extras = self.setup["options.extras_require"]
        for name in set(extras) - {"all", "test", "dev", "docs", "bench"}:
            self.assertIn(f"%({name})s", self.setup.get("options.extras_require", "all", raw=True), name)


class WheelTests(SynchronousTestCase):
    """Slow: what is built, installed in an empty environment, is found by ``twistd``."""

    def test_built_and_installed(self) -> None:
        """The wheel's ``twisted/`` holds just the plugin, and twistd lists it from another folder."""
        self.folder = new_folder(self)
        sdist, wheel = self.build()
        self.look_into_sdist(sdist)
        self.look_into_wheel(wheel)
        self.run_installed(wheel)

    def build(self) -> tuple[Path, Path]:
        """A source distribution, and the wheel that is made from it."""
        if importlib.util.find_spec("build") is None:
            raise SkipTest("the build module is not installed")
        source = self.folder / "source"
        source.mkdir()
        for name in SOURCES:
            path = CHECKOUT / name
            if path.is_dir():
                shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif path.exists():
                shutil.copy(path, source)
        # A cache that somebody's twistd has left there must not be shipped.
        (source / "twisted/plugins/dropin.cache").write_bytes(b"stale")
        try:
            version = importlib.metadata.version("setuptools")
        except importlib.metadata.PackageNotFoundError:
            # Python 3.12 and later make virtual environments without it.
            version = "0"
        here = int(version.partition(".")[0]) >= NEEDED_SETUPTOOLS
        isolation = ["--no-isolation"] if here else []
        command = [sys.executable, "-m", "build", *isolation, "--outdir", "dist", "source"]
        done = self.run_in(self.folder, *command)
        unreachable = re.search("Could not find a version|connection", done.stderr + done.stdout)
        if done.returncode and not here and unreachable:
            raise SkipTest(f"setuptools {NEEDED_SETUPTOOLS} is neither installed nor can it be fetched")
        self.assertEqual(done.returncode, 0, done.stdout[-3000:] + done.stderr[-3000:])
        [sdist] = (self.folder / "dist").glob("*.tar.gz")
        [wheel] = (self.folder / "dist").glob("*.whl")
        self.assertTrue(wheel.name.startswith(f"pop3toy-{pop3toy.__version__}-py3-none-any"), wheel.name)
        return sdist, wheel

    def look_into_sdist(self, sdist: Path) -> None:
        """The plugin is in it, its cache is not."""
        with tarfile.open(sdist) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        self.assertIn(PLUGIN, names)
        self.assertNotIn("twisted/plugins/dropin.cache", names)

    def look_into_wheel(self, wheel: Path) -> None:
        """All of ours is in it, and nothing else."""
        with zipfile.ZipFile(wheel) as archive:
            names = {name for name in archive.namelist() if not name.endswith("/")}
            [metadata] = [name for name in names if name.endswith(".dist-info/METADATA")]
            facts = archive.read(metadata).decode()
        self.assertEqual({name for name in names if name.startswith("twisted/")}, {PLUGIN})
        ours = {
            path.relative_to(CHECKOUT).as_posix()
            for path in (CHECKOUT / "pop3toy").rglob("*")
            if path.suffix in (".py", ".mo") or path.name == "py.typed" or path.parent.name == "page"
        }
        self.assertEqual({name for name in names if name.startswith("pop3toy/")}, ours)
        tops = {name.partition("/")[0] for name in names}
        self.assertEqual({top for top in tops if not top.endswith(".dist-info")}, {"pop3toy", "twisted"})
        self.assertRegex(facts, r"\nLicense(-Expression)?: MIT\n")
        self.assertIn(f"\nVersion: {pop3toy.__version__}\n", facts)

    def run_installed(self, wheel: Path) -> None:
        """In an environment of its own, with this one's Twisted, twistd lists the command and runs it."""
        home = self.folder / "venv"
        venv.create(home, with_pip=False)
        python = home / "bin" / "python"
        done = self.run_in(
            self.folder,
            *(sys.executable, "-m", "pip", "--python", str(python)),
            *("install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)),
        )
        if "No module named pip" in done.stderr:
            raise SkipTest("pip is not installed")
        self.assertEqual(done.returncode, 0, done.stderr)
        [packages] = home.glob("lib/python*/site-packages")
        # What pop3toy needs comes from here; what is installed there comes first.
        (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        twistd = (str(python), "-c", "from twisted.scripts.twistd import run; run()")
        done = self.run_in(elsewhere, str(python), "-c", "import pop3toy; print(pop3toy.__file__)")
        self.assertTrue(done.stdout.startswith(str(home)), done.stdout + done.stderr)
        done = self.run_in(elsewhere, *twistd, "--help")
        self.assertRegex(done.stdout, r"(?m)^\s+pop3toy\s+A POP3 server", done.stderr)
        done = self.run_in(elsewhere, *twistd, "pop3toy", "--version")
        self.assertEqual(done.stdout, f"pop3toy {pop3toy.__version__}\n", done.stderr)

    def run_in(self, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in a folder, without this process's way to find modules."""
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            command, cwd=folder, env=kept, capture_output=True, text=True, timeout=300, check=False
        )
