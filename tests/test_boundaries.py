"""The import rules of docs/DESIGN.rst, read from the code: who may know whom, and who may do what."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

import pop3toy

ROOT = Path(pop3toy.__file__).parent
#: The modules at the root that every package may import.
GROUND = {
    "errors",
    "events",
    "interfaces",
    "limits",
    "masking",
    "option",
    "addresses",
    "clock",
    "files",
    "printable",
    "installation",
    "languages",
    "_version",
}

#: What of ``pop3`` and ``smtp`` is pure: no transport, no reactor, no clock.
PURE = {
    "pop3": {
        "commands", "replies", "session", "authorization", "transaction", "dispatch", "capabilities",
        "maildrop",
    },
    "smtp": {
        "commands", "replies", "session", "policies", "greeting", "authentication", "mail_commands",
        "transaction", "framing", "envelope", "trace", "limits",
    },
}  # fmt: skip

#: What each package may import besides the ground and itself.  The longest name that fits a module counts.
MAY: dict[str, set[str]] = {
    "mail": set(),
    "pop3": {"mail"},
    "pop3.protocol": {"mail", "net", "pop3"},
    "pop3.factory": {"mail", "net", "pop3"},
    "smtp": {"mail"},
    "smtp.protocol": {"mail", "net", "smtp"},
    "smtp.factory": {"mail", "net", "smtp"},
    "auth": {"mail", "net.threads", "net.watched_file"},
    "stores": {"mail", "net.threads"},
    "routing": {"mail", "net.threads", "net.watched_file"},
    "outgoing": {"mail", "net.threads", "net.types"},
    "observe": {"mail"},
    "net": set(),
    "config": {"auth.sasl.names", "auth.throttle.origins", "outgoing.smarthost", "stores.registry"},
    "run.workers": {"net.accepting", "net.types"},
    "run": {"mail", "pop3", "smtp", "net", "auth", "stores", "routing", "observe", "outgoing", "config"},
    "conformance": set(),
    "replay": {"conformance"},
    "moving": {"mail"},
    "moving.fetching": {"mail", "moving", "stores.copying.messages"},
    "tap": {"run", "config", "net", "testing.faults"},
    "cli": {
        "conformance", "replay", "moving", "testing.faults", "mail", "smtp", "net", "auth", "outgoing",
        "stores", "routing", "config", "run",
    },
    "testing": {"mail", "pop3", "smtp", "net", "auth", "stores", "routing", "observe", "config", "run"},
    "": {"auth", "config", "mail", "net", "observe", "pop3", "run", "stores"},
}  # fmt: skip

#: Imports that the rules do not allow and that are there still, each with what will end it.
EXCEPTIONS: set[tuple[str, str]] = set()


class Import(NamedTuple):
    """One import: of which module, of which name in it, and whether it happens when the file is loaded."""

    module: str
    name: str
    at_once: bool
    for_types: bool

    @property
    def room(self) -> str:
        """The module without the package's name: ``stores.memory``; empty for another package's."""
        return self.module.removeprefix("pop3toy").lstrip(".") if self.ours else ""

    @property
    def ours(self) -> bool:
        """Whether it is of this package."""
        return self.module == "pop3toy" or self.module.startswith("pop3toy.")


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its name within it (``stores.memory``; the package itself is ``""``)."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        found[".".join(parts)] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


def is_package(name: str) -> bool:
    """Whether a module is a folder."""
    # Not any folder: a checkout that was updated keeps those of old packages, with compiled files in them.
    return (ROOT / name.replace(".", "/") / "__init__.py").is_file()


@cache
def imports(name: str) -> tuple[Import, ...]:
    """All imports of a module, those within functions too."""
    return tuple(_imports(modules()[name], name, at_once=True, for_types=False))


def _imports(node: ast.AST, name: str, *, at_once: bool, for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, "", at_once, for_types)
        elif isinstance(child, ast.ImportFrom):
            module = child.module or ""
            if child.level:
                above = ["pop3toy", *name.split(".")] if name else ["pop3toy"]
                up = child.level - (1 if is_package(name) else 0)
                module = ".".join([*above[: len(above) - up], *filter(None, [module])])
            for alias in child.names:
                whole = f"{module}.{alias.name}".removeprefix("pop3toy.")
                if module.startswith("pop3toy") and whole in modules():
                    yield Import(f"pop3toy.{whole}", "", at_once, for_types)
                else:
                    yield Import(module, alias.name, at_once, for_types)
        else:
            lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            yield from _imports(child, name, at_once=at_once and not lazy, for_types=for_types or types)


def within(name: str, *rooms: str) -> bool:
    """Whether a module is one of these rooms or in one of them."""
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def at_the_edge(name: str) -> bool:
    """Whether a module is a command, which may fetch the reactor and the time."""
    return within(name, "tap", "cli", "run.as_worker")


def package_of(name: str, packages: Iterable[str]) -> str:
    """The longest of these names that a module is, or is in."""
    return max((one for one in packages if not one or within(name, one)), key=len)


def dotted(node: ast.AST) -> str:
    """``time.time`` for such an expression."""
    return ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""


def strings(tree: ast.Module) -> Iterator[str]:
    """The string and bytes constants of a module, docstrings left out."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    # A string on its own behind an attribute is its documentation as well.
    loose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings | loose:
            if isinstance(node.value, bytes):
                yield node.value.decode("latin-1")
            elif isinstance(node.value, str):
                yield node.value


class PackageTests(SynchronousTestCase):
    """Each package imports itself, the ground, and what the table allows."""

    def test_imports(self) -> None:
        """No module imports what its package may not know, in functions and for types neither."""
        for name in modules():
            package = package_of(name, MAY)
            for one in imports(name):
                if not one.ours or one.room in GROUND or (package and within(one.room, package)):
                    continue
                allowed = within(one.room, *MAY[package]) or any(
                    within(name, who) and within(one.room, what) for who, what in EXCEPTIONS
                )
                self.assertTrue(allowed or one.room == name, f"{name or 'pop3toy'} imports {one.module}")

    def test_exceptions_are_needed(self) -> None:
        """What is excepted is really there."""
        for who, what in EXCEPTIONS:
            self.assertTrue(
                any(
                    within(one.room, what) for name in modules() if within(name, who) for one in imports(name)
                ),
                f"{who} does not import {what} any more",
            )

    def test_ground(self) -> None:
        """The modules at the root that all may import stand on each other alone."""
        for name in GROUND & set(modules()):
            self.assertLessEqual({one.room for one in imports(name) if one.ours}, GROUND, name)

    def test_no_cycle(self) -> None:
        """No module reaches itself by its imports, those for types and in functions among them."""
        reaches = {name: {one.room for one in imports(name) if one.ours} - {""} for name in modules()}

        def visit(name: str, path: tuple[str, ...], done: set[str]) -> None:
            self.assertNotIn(name, path, " -> ".join([*path, name]))
            if name not in done:
                for other in sorted(reaches.get(name, ())):
                    visit(other, (*path, name), done)
                done.add(name)

        done: set[str] = set()
        for name in modules():
            if name:
                visit(name, (), done)

    def test_pure(self) -> None:
        """The pure modules know no transport, no reactor, no clock, no file and no thread."""
        outside = {
            "os", "io", "time", "datetime", "socket", "threading", "select", "pathlib", "random",
            "subprocess",
        }  # fmt: skip
        allowed = {"twisted.internet.defer", "twisted.python.failure", "twisted.logger"}
        pure = [f"{package}.{name}" for package, names in PURE.items() for name in names]
        for name in [*pure, *(name for name in modules() if within(name, "mail"))]:
            for one in imports(name):
                self.assertNotIn(one.module, outside, name)
                self.assertFalse(within(one.room, "net"), name)
                if one.module.startswith("twisted"):
                    self.assertIn(one.module, allowed, name)

    def test_nobody_imports_the_commands(self) -> None:
        """Nobody imports tap, cli, testing; deleting observers or ``net.fast`` breaks ``run`` alone."""
        for name in modules():
            for one in imports(name):
                if within(one.room, "tap"):
                    self.assertTrue(within(name, "tap"), name)
                if within(one.room, "cli"):
                    self.assertTrue(within(name, "cli"), name)
                if within(one.room, "net.fast"):
                    self.assertTrue(within(name, "net.fast", "run"), name)
                if within(one.room, "observe"):
                    self.assertTrue(within(name, "observe", "run", "testing") or name == "", name)
                if within(one.room, "testing"):
                    self.assertTrue(
                        within(name, "testing")
                        or (within(one.room, "testing.faults") and within(name, "tap", "cli")),
                        name,
                    )

    def test_web(self) -> None:
        """HTTP is served by the inspector and by the metrics alone, and loaded only where it is wanted."""
        for name in modules():
            if any(one.module.startswith("twisted.web") and not one.for_types for one in imports(name)):
                # Tokens are looked up by HTTP.
                asks = name == "auth.sasl.introspection"
                ours = within(name, "observe.inspector", "observe.metrics", "run.passwords")
                self.assertTrue(asks or ours, name)
            if not within(name, "observe.inspector", "run.inspecting"):
                early = [
                    one for one in imports(name)
                    if one.at_once and within(one.room, "observe.inspector", "run.inspecting")
                ]  # fmt: skip
                self.assertEqual(early, [], name)

    def test_concrete_stores(self) -> None:
        """A kind of store is named by the registry, the toy's part of assembly, and servers for tests."""
        for name in modules():
            if not within(name, "stores"):
                found = {one.room for one in imports(name) if within(one.room, "stores")}
                allowed = {"stores.registry"}
                if within(name, "testing"):
                    allowed |= {"stores.memory", "stores.hello"}
                if within(name, "run"):
                    allowed.add("stores.hello")
                if within(name, "cli.store"):
                    allowed |= {"stores.objects.settings", "stores.objects.qualification.examination"}
                if within(name, "moving.fetching"):
                    allowed.add("stores.copying.messages")
                if within(name, "cli.copying", "cli.moving"):
                    # Which no kind is named in.
                    parts = ("adopting", "counts", "journal", "mailbox", "messages", "verify")
                    allowed |= {f"stores.copying.{one}" for one in parts}
                if within(name, "cli.removed", "run.sharing"):
                    # For any kind.
                    allowed.add("stores.expiring")
                if name == "":
                    allowed |= {"stores.memory", "stores.maildir.store", "stores.maildir.body"}
                    # The settings of the kinds that come with it; not by the registry, which is loaded later.
                    allowed |= {"stores.toy", "stores.maildir.settings"}
                self.assertLessEqual(found, allowed, name)

    def test_named_in_strings(self) -> None:
        """No module is named in a string, but where a process is started and a name is exported."""
        for name, tree in modules().items():
            named = {
                text
                for text in strings(tree)
                if text.removeprefix("pop3toy.") in modules() and text.startswith("pop3toy.")
            }
            if name == "run.supervised":
                named.discard("pop3toy.run.as_worker")
            if name == "auth.login":
                # Loaded when a realm brings such a mailbox: it needs twisted.mail.
                named.discard("pop3toy.auth.twisted_mailbox")
            self.assertEqual(named, set(), name)


class LayoutTests(SynchronousTestCase):
    """The packages explain themselves."""

    def test_sizes(self) -> None:
        """A package has 2 to 15 files."""
        for door in ROOT.rglob("__init__.py"):
            files = [path for path in door.parent.glob("*.py") if path.name != "__init__.py"]
            self.assertTrue(2 <= len(files) <= 15, f"{door.parent.relative_to(ROOT)}: {len(files)} files")

    def test_doors(self) -> None:
        """Each package says at its door what lives there, what must not, and where to start reading."""
        for name, tree in modules().items():
            if name and is_package(name) and name != "cli":
                said = ast.get_docstring(tree) or ""
                self.assertGreater(len(said.splitlines()), 2, name)
                if name == "testing":
                    # Public names, like those of the package itself.
                    continue
                self.assertEqual(
                    [node for node in tree.body[1:] if isinstance(node, ast.ImportFrom)], [], name
                )

    def test_names(self) -> None:
        """No module is called after nothing."""
        for name in modules():
            self.assertNotIn(name.rpartition(".")[2], {"utils", "util", "common", "helpers", "base", "misc"})

    def test_each_file_says_what_it_is(self) -> None:
        """Each file begins with what lives in it."""
        for name, tree in modules().items():
            self.assertTrue(ast.get_docstring(tree), name)


class ReactorTests(SynchronousTestCase):
    """Reactor and time are passed in, and nothing blocks."""

    def test_reactor(self) -> None:
        """Commands alone fetch the reactor, within a function."""
        for name in modules():
            for one in imports(name):
                if one.module == "twisted.internet.reactor" or (
                    one.module == "twisted.internet" and one.name == "reactor"
                ):
                    self.assertTrue(at_the_edge(name), f"{name} imports the reactor")
                    self.assertFalse(one.at_once, f"{name} imports the reactor when it is loaded")

    def test_clock(self) -> None:
        """Commands alone ask the system for the time."""
        for name, tree in modules().items():
            called = {dotted(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
            if not within(name, "tap", "cli", "run", "stores.maildir.admin"):
                self.assertFalse(called & {"time.time", "time.monotonic"}, name)
            for one in imports(name):
                self.assertNotIn((one.module, one.name), {("time", "time"), ("time", "sleep")}, name)

    def test_nothing_waits(self) -> None:
        """Nobody sleeps, and only threads of their own wait for an event."""
        for name, tree in modules().items():
            for node in ast.walk(tree):
                if isinstance(node, ast.Call):
                    self.assertNotEqual(dotted(node.func), "time.sleep", name)
                    if isinstance(node.func, ast.Attribute) and node.func.attr in {"wait", "join"}:
                        plain = isinstance(node.func.value, ast.Constant | ast.JoinedStr)
                        joins_text = node.func.attr == "join" and (plain or node.args)
                        self.assertTrue(
                            joins_text
                            or name
                            in {
                                "net.threads",
                                "observe.line_writer",
                                "clock",
                                "cli.moving.servers",
                                "stores.maildir.incoming.usage",
                                "stores.objects.qualification.contest",
                                "testing.reactor_thread",
                            },
                            f"{name}, line {node.lineno}: {ast.unparse(node)}",
                        )

    def test_nothing_happens_at_import(self) -> None:
        """No module opens a file, starts a thread or listens when it is loaded."""
        busy = {"open", "os.open", "print", "threading.Thread", "socket.socket"}
        for name, tree in modules().items():
            for node in tree.body:
                if isinstance(node, ast.Expr | ast.Assign | ast.AnnAssign):
                    called = {dotted(one.func) for one in ast.walk(node) if isinstance(one, ast.Call)}
                    self.assertFalse(called & busy, name)

    def test_who_exits(self) -> None:
        """Only commands end the process."""
        for name, tree in modules().items():
            if not at_the_edge(name) and name != "config.cmdline":
                raised = [
                    node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "SystemExit"
                ]
                called = {dotted(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
                self.assertFalse(called & {"sys.exit", "os._exit"}, name)
                self.assertEqual(raised, [], name)


class OnePlaceTests(SynchronousTestCase):
    """One place for each thing."""

    def test_status_words(self) -> None:
        """Only ``replies`` makes ``+OK`` and ``-ERR``; whoever plays a client's part looks for them."""
        for name, tree in modules().items():
            if within(name, "testing.conversation", "testing.faults", "replay", "observe.explain", "moving"):
                continue
            makers = [text for text in strings(tree) if "+OK" in text or "-ERR" in text]
            if not within(name, "conformance"):
                # Which reads them, and says in its report what it has read.
                self.assertEqual(bool(makers), name == "pop3.replies", f"{name}: {makers}")

    def test_no_handlers_by_name(self) -> None:
        """No method is looked up by a name that was put together."""
        for name, tree in modules().items():
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and ast.unparse(node).startswith("getattr(self, "):
                    self.assertIsInstance(node.args[1], ast.Constant, f"{name}, line {node.lineno}")
            methods = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
            self.assertFalse(
                [method for method in methods if method.startswith("do_") and method != "do_handshake"], name
            )

    def test_one_place_writes(self) -> None:
        """Of POP3 and SMTP only the writer writes to a transport."""
        for name in modules():
            # A message is written to the store.
            if within(name, "pop3", "smtp") and name != "smtp.transaction":
                for node in ast.walk(modules()[name]):
                    if isinstance(node, ast.Attribute):
                        self.assertNotIn(
                            node.attr, {"write", "writeSequence", "sendLine"}, f"{name}, line {node.lineno}"
                        )

    def test_no_option_by_its_name(self) -> None:
        """Behind ``config`` nobody reads an option by a string."""
        for name, tree in modules().items():
            if within(name, "run", "tap"):
                read = [
                    node
                    for node in ast.walk(tree)
                    if isinstance(node, ast.Subscript) and dotted(node.value).endswith("options")
                ]
                self.assertEqual(read, [], name)

    def test_stores_know_no_numbers(self) -> None:
        """A store knows the listing that it hands over, not the marks and numbers."""
        for name in modules():
            if within(name, "stores"):
                self.assertFalse([one for one in imports(name) if within(one.room, "pop3")], name)

    def test_the_reader_of_imports_reads(self) -> None:
        """This file's own eyes: known imports are seen, relative, within functions and for types."""
        self.assertIn(Import("pop3toy.pop3.commands", "", True, False), imports("pop3.session"))
        self.assertIn(Import("pop3toy.mail.listing", "Listing", True, False), imports("stores.memory"))
        self.assertTrue([one for one in imports("tap") if one.name == "reactor" and not one.at_once])
        self.assertTrue([one for one in imports("run.tls") if one.for_types])
        self.assertGreater(len(modules()), 100)
