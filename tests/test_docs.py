"""The pages of ``docs/`` as Sphinx makes them, and names of modules and methods in docstrings."""

from __future__ import annotations

import builtins
import re
import subprocess
import sys
import tempfile
import zlib
from functools import cache
from html import unescape
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface.interface import InterfaceClass

import pop3toy
from pop3toy.installation import install_hint

from .draw_packages import drawing
from .test_boundaries import EXCEPTIONS, MAY, is_package, modules

DOCS = Path(__file__).parent.parent / "docs"
SOURCE = Path(pop3toy.__file__).parent

#: Seconds; it takes five.
PATIENCE = 60.0


@cache
def built() -> Path:
    """The folder of the pages, made once for all tests as ``.ci/run`` makes them.

    :raises SkipTest: without Sphinx.
    """
    if find_spec("sphinx") is None:
        raise SkipTest(f"Sphinx is not installed ({install_hint('docs')})")
    folder = Path(tempfile.mkdtemp(dir=".")).absolute()
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS), str(folder)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stdout + done.stderr
    return folder


def index() -> dict[str, str]:
    """What the pages document: names, each with its kind."""
    lines = zlib.decompress((built() / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    return {name: kind for name, kind, *_ in map(str.split, lines)}


def text_of(page: str) -> str:
    """What people read on a page."""
    return unescape(re.sub(r"<[^>]*>", "", (built() / page).read_text("utf-8")))


class PagesTests(SynchronousTestCase):
    """Sphinx makes them without a warning, and they hold what users look for."""

    def test_public_names(self) -> None:
        """Each public name is documented, under that name."""
        names = {f"pop3toy.{name}" for name in pop3toy.__all__ if name != "__version__"}
        self.assertEqual(names - set(index()), set())

    def test_interfaces(self) -> None:
        """Each public interface is there with all its methods and attributes, with their signatures."""
        read = text_of("api.html")
        public = [getattr(pop3toy, name) for name in pop3toy.__all__]
        found = [one for one in public if isinstance(one, InterfaceClass)]
        self.assertGreater(len(found), 3)
        for interface in found:
            for name in interface.names():
                self.assertIn(f"pop3toy.{interface.getName()}.{name}", index())
        for signature in (
            "open(user: str) → MaybeDeferred[object]",
            "read(uid: bytes) → MaybeDeferred[MessageBody]",
            "begin(users: Sequence[str], octets: int = 0) → MaybeDeferred[Incoming]",
            "entries: Sequence[Entry]",
            "read_only: bool",
            "when_lost(call: Callable[[str], object]) → None",
        ):
            self.assertIn(signature, read)

    def test_no_object_in_a_signature(self) -> None:
        """Annotations are names, not what Python calls the objects behind them."""
        self.assertNotIn("<InterfaceClass", text_of("api.html"))
        self.assertNotIn(" object at 0x", text_of("api.html"))

    def test_links(self) -> None:
        """Each link to a page or a file leads to something; endpoints and mail addresses are none."""
        missing = []
        for page in built().rglob("*.html"):
            schemes = set(re.findall(r'href="(\w+):', page.read_text("utf-8")))
            self.assertLessEqual(schemes, {"http", "https"}, page.name)
            for target in re.findall(r'(?:href|src)="([^"#:?]+)["#?]', page.read_text("utf-8")):
                if not (page.parent / unquote(unescape(target))).exists():
                    missing.append(f"{page.name}: {target}")
            # Sections that our own pages lead to.
            for target, section in re.findall(r'href="([^"#:?]*\.html)?#([^"]+)"', page.read_text("utf-8")):
                there = page.parent / (target or page.name)
                if f'id="{section}"' not in there.read_text("utf-8"):
                    missing.append(f"{page.name}: {target}#{section}")
        self.assertEqual(missing, [])


class DesignTests(SynchronousTestCase):
    """``docs/DESIGN.rst`` shows the packages and the import rules as they are."""

    def setUp(self) -> None:
        self.page = (DOCS / "DESIGN.rst").read_text("utf-8")

    def test_tree(self) -> None:
        """Each package and each module at the root has its line, and every line is of one that exists."""
        tree = self.page.partition("    pop3toy/\n")[2].partition("\n    twisted/")[0]
        shown: list[str] = []
        above: list[str] = []
        for indent, name, slash in re.findall(r"^    ((?:  )+)([a-z_0-9]+)(/|\.py) ", tree, re.MULTILINE):
            del above[len(indent) // 2 - 1 :]
            shown.append(".".join([*above, name]))
            if slash == "/":
                above.append(name)
        packages = {name for name in modules() if is_package(name)} | {
            name for name in modules() if "." not in name
        }
        self.assertEqual(set(shown), packages - {"", "__main__"} | {"__init__"})

    def test_modules(self) -> None:
        """The line of each package names the modules in it, behind colons, and no other."""
        tree = self.page.partition("    pop3toy/\n")[2].partition("\n    twisted/")[0]
        entries = re.findall(r"^    ((?:  )+)([a-z_0-9]+)/ (.*(?:\n {20}.*)*)", tree, re.MULTILINE)
        shown: set[str] = set()
        above: list[str] = []
        for indent, name, text in entries:
            above[len(indent) // 2 - 1 :] = [name]
            plain = re.sub(r" \([^)]*\)", "", " ".join(text.split()))
            for names in re.findall(r": ([a-z_0-9]+(?:, [a-z_0-9]+)*)", plain):
                shown |= {".".join([*above, one]) for one in names.split(", ")}
        self.assertEqual(shown, {name for name in modules() if "." in name and not is_package(name)})

    def test_reading_list(self) -> None:
        """What a newcomer is told to read exists, and is as much as the page says."""
        [said] = re.findall(r"^How pop3toy .*?\n\n", self.page, re.MULTILINE | re.DOTALL)
        names, lines = re.findall(r"``([a-z0-9_/]+)``", said), 0
        self.assertGreater(len(names), 3)
        for name in names:
            lines += len((SOURCE / f"{name}.py").read_text("utf-8").splitlines())
        [told] = re.findall(r"some ([\d,]+) lines", said)
        self.assertLess(abs(lines - int(told.replace(",", ""))), 200)

    def test_who_may_import_whom(self) -> None:
        """The table is the one that ``tests/test_boundaries.py`` keeps."""
        rows = re.findall(r"^   \* - ``(.*)``\n     - (.*)$", self.page, re.MULTILINE)
        table = {
            name.replace("__init__", ""): set(re.findall("``(.*?)``", allowed)) for name, allowed in rows
        }
        self.assertEqual(table, MAY)
        self.assertEqual(
            set(re.findall(r"^- ``(.*?)`` imports ``(.*?)``", self.page, re.MULTILINE)), EXCEPTIONS
        )

    def test_drawing(self) -> None:
        """The drawing is made of the rules, and shows each of them."""
        self.assertIn(".. image:: packages.svg", self.page)
        shown = (DOCS / "packages.svg").read_text("utf-8")
        self.assertEqual(shown, drawing(), "python -m tests.draw_packages > docs/packages.svg")
        for name, others in MAY.items():
            for other in others:
                upper, lower = (name or "pop3toy").partition(".")[0], other.partition(".")[0]
                if upper != lower:
                    self.assertIn(f"<title>{upper} may import {lower}</title>", shown)


class NamesTests(SynchronousTestCase):
    """Pages name modules, and what is in them, as they are called."""

    def test_modules(self) -> None:
        """What begins with the name of a package or of a module at the root exists."""
        tops = {name for name in modules() if name and "." not in name}
        missing = []
        for page in (*DOCS.rglob("*.rst"), *DOCS.parent.glob("*.rst")):
            for named in re.findall(r"``(?:pop3toy\.)?([a-z_]+(?:\.\w+)+)``", page.read_text("utf-8")):
                other = named.endswith(
                    (".py", ".rst", ".toml", ".cfg", ".txt", ".example.org", ".example.net")
                )
                if named.partition(".")[0] in tops and not other and not exists(f"pop3toy.{named}"):
                    missing.append(f"{page.name}: {named}")
        self.assertEqual(missing, [])


class DocstringTests(SynchronousTestCase):
    """Docstrings and comments name what is there."""

    def test_roles(self) -> None:
        """What ``:class:`` and its like name exists, in the module, its classes, or where they say."""
        role = re.compile(r":(?:mod|class|func|meth|data|attr|exc):`~?([\w.]+)")
        missing = []
        for path in sorted(SOURCE.rglob("*.py")):
            module = ".".join(("pop3toy", *path.relative_to(SOURCE).with_suffix("").parts))
            module = module.removesuffix(".__init__")
            source = path.read_text("utf-8")
            if module == "pop3toy.__main__":
                continue
            within = re.findall(r"^class (\w+)", source, re.MULTILINE)
            for target in role.findall(source):
                places = [f"{module}.{target}", *(f"{module}.{one}.{target}" for one in within)]
                of_instances = re.search(rf"self\.{re.escape(target)}\b", source)
                if not (hasattr(builtins, target) or of_instances or any(map(exists, [target, *places]))):
                    missing.append(f"{module}: {target}")
        self.assertEqual(missing, [])

    def test_files(self) -> None:
        """A file of the package that a docstring or a comment names is in that folder, or where it says."""
        missing = []
        for path in sorted(SOURCE.rglob("*.py")):
            for named in re.findall(r"(?<![\w./-])((?:\w+/)*\w+\.py)\b", path.read_text("utf-8")):
                if not any((folder / named).exists() for folder in (path.parent, SOURCE)):
                    missing.append(f"{path.relative_to(SOURCE)}: {named}")
        self.assertEqual(missing, [])


@cache
def exists(name: str) -> bool:
    """Whether a dotted name leads to a module, or to something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:length]))
        except (ImportError, TypeError):
            continue
        return has(found, parts[length:])
    return False


def has(thing: object, path: list[str]) -> bool:
    """Whether there is something at the end of a path of attributes; those of instances are annotated."""
    for at, name in enumerate(path):
        if isinstance(thing, InterfaceClass):
            return name in thing and at == len(path) - 1
        if not hasattr(thing, name):
            return name in getattr(thing, "__annotations__", {}) and at == len(path) - 1
        thing = getattr(thing, name)
    return True
