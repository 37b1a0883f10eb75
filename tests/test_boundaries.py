"""The walls of the house (docs/DESIGN.rst), read from the imports: who may know whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

import pop3toy

ROOT = Path(pop3toy.__file__).parent
#: The rooms that know no transport, no reactor, no clock, no store and no checker.
RIVER = {"commands", "session", "authorization", "transaction", "capabilities", "maildrop", "wire"}
#: What every room may know.
GROUND = {"addresses", "errors", "installation", "interfaces", "limits", "printable", "_version"}


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
    return (ROOT / name.replace(".", "/")).is_dir()


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
    """Whether a module assembles or is a command line."""
    return within(name, "tap") or name.startswith("cli")


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


class RiverTests(SynchronousTestCase):
    """Syntax, states, numbers and bytes are pure."""

    def test_knows_only_itself_and_the_ground(self) -> None:
        """The river's rooms import each other, the ports, the errors and the limits, and no other room."""
        for name in RIVER:
            for one in imports(name):
                if one.ours:
                    self.assertIn(one.room, RIVER | GROUND, f"{name} imports {one.module}")

    def test_no_transport_no_reactor(self) -> None:
        """Of Twisted the river knows Deferred, Failure and the logger."""
        allowed = {"twisted.internet.defer", "twisted.python.failure", "twisted.logger"}
        for name in RIVER:
            for one in imports(name):
                if one.module.startswith("twisted"):
                    self.assertIn(one.module, allowed, name)

    def test_no_outside_world(self) -> None:
        """No file, no socket, no clock and no thread in the river."""
        outside = {
            "os",
            "io",
            "time",
            "datetime",
            "socket",
            "threading",
            "select",
            "pathlib",
            "random",
            "subprocess",
        }
        for name in RIVER:
            self.assertEqual({one.module for one in imports(name)} & outside, set(), name)

    def test_four_rooms_do_not_lean_on_the_session(self) -> None:
        """Syntax, numbering and encoding know neither a state nor each other."""
        for name, may in {
            "commands": {"limits"},
            "maildrop": {"errors", "interfaces"},
            "wire": {"limits", "errors", "interfaces"},
        }.items():
            self.assertLessEqual({one.room for one in imports(name) if one.ours}, may, name)

    def test_chapters_take_the_session_for_types_only(self) -> None:
        """What the commands do is called by the session; it is not called back when files are loaded."""
        for name in ("authorization", "transaction", "capabilities"):
            for one in imports(name):
                if one.room == "session":
                    self.assertTrue(one.for_types, name)


class GroundTests(SynchronousTestCase):
    """The ports stand on nothing."""

    def test_ports(self) -> None:
        """The interfaces import the errors and the limits, which import no room."""
        self.assertEqual({one.room for one in imports("interfaces") if one.ours}, {"errors", "limits"})
        for name in ("addresses", "errors", "installation", "limits", "printable", "_version"):
            self.assertEqual([one for one in imports(name) if one.ours], [], name)


class EdgeTests(SynchronousTestCase):
    """One file assembles."""

    def test_nobody_imports_tap(self) -> None:
        """tap imports from every room, and no room imports tap."""
        for name in modules():
            if not within(name, "tap"):
                self.assertFalse([one for one in imports(name) if within(one.room, "tap")], name)

    def test_nobody_imports_the_command_line(self) -> None:
        """Deleting the command line breaks nothing else."""
        for name in modules():
            if not name.startswith("cli"):
                self.assertFalse([one for one in imports(name) if one.room.startswith("cli")], name)

    def test_stores_are_ports_to_everybody_else(self) -> None:
        """Only tap and the command line import a concrete store; the options know where Maildirs are."""
        for name in modules():
            if at_the_edge(name) or within(name, "stores"):
                continue
            for one in imports(name):
                if within(one.room, "stores"):
                    self.assertTrue(
                        within(name, "options") and one.room == "stores.maildir_paths",
                        f"{name} imports {one.module}",
                    )

    def test_the_adapter_is_loaded_by_name_when_it_is_needed(self) -> None:
        """Only the authenticator names a store's module: the adapter for other programs' realms."""
        for name, tree in modules().items():
            named = {text for text in strings(tree) if text.startswith("pop3toy.stores.")}
            self.assertLessEqual(
                named, {"pop3toy.auth.twisted_mailbox"} if name == "auth.authenticator" else set(), name
            )

    def test_reactor(self) -> None:
        """The reactor is passed in; tap and the command line may fetch it, within a function."""
        for name in modules():
            for one in imports(name):
                if one.module == "twisted.internet.reactor" or (
                    one.module == "twisted.internet" and one.name == "reactor"
                ):
                    self.assertTrue(at_the_edge(name), f"{name} imports the reactor")
                    self.assertFalse(one.at_once, f"{name} imports the reactor when it is loaded")

    def test_clock(self) -> None:
        """The time is passed in; only the edge asks the system for it, and nobody sleeps."""
        for name, tree in modules().items():
            called = {dotted(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
            self.assertNotIn("time.sleep", called, name)
            if not at_the_edge(name):
                self.assertNotIn("time.time", called, name)
            for one in imports(name):
                self.assertNotIn((one.module, one.name), {("time", "time"), ("time", "sleep")}, name)


class RoomTests(SynchronousTestCase):
    """Each of the other rooms knows the ports and little else."""

    def allow(self, room: str, *others: str) -> None:
        """Modules in this room import only the ground, themselves and these others."""
        for name in modules():
            if within(name, room):
                for one in imports(name):
                    if one.ours:
                        self.assertTrue(
                            one.room in GROUND or within(one.room, room, *others),
                            f"{name} imports {one.module}",
                        )

    def test_stores(self) -> None:
        """A store knows octets, listings and threads; it never sees a command, a session or a secret."""
        self.allow("stores", "clock", "wire", "maildrop", "threads")

    def test_stores_know_no_numbers(self) -> None:
        """Of the maildrop a store knows the listing that it hands over, not the marks and numbers."""
        for name in modules():
            if within(name, "stores"):
                self.assertLessEqual(
                    {one.name for one in imports(name) if one.room == "maildrop"}, {"Listing"}, name
                )

    def test_auth(self) -> None:
        """Who comes in is decided without knowing a session, a store or a wire."""
        self.allow("auth", "clock", "file_changes", "threads")

    def test_workers(self) -> None:
        """What starts processes and hands sockets on does not know what they serve."""
        self.allow("workers", "clock", "unix_sockets")

    def test_delivery(self) -> None:
        """Delivery knows no POP3: of the river just what a transcript masks by, and base64."""
        self.allow("delivery", "channel", "clock", "commands", "direct", "file_changes", "threads", "wire")
        for name in modules():
            if within(name, "delivery"):
                taken = {one.name for one in imports(name) if one.room in RIVER}
                masking = {"Malformed", "Public", "Response", "mechanism_alone", "name_alone"}
                self.assertLessEqual(taken, {*masking, "decode_base64"}, name)

    def test_delivery_is_unknown(self) -> None:
        """The river and the shore know no SMTP."""
        for name in [*RIVER, "protocol", "outflow", "factory", "transcript", "channel", "meters", ""]:
            self.assertFalse([one for one in imports(name) if within(one.room, "delivery")], name)

    def test_shore(self) -> None:
        """The protocol, the way out and the factory know no store, no checker and no options."""
        for name in ("protocol", "outflow", "factory", "transcript", "channel", "meters", "direct"):
            for one in imports(name):
                self.assertFalse(
                    within(one.room, "stores", "auth", "options", "tap"), f"{name}: {one.module}"
                )

    def test_transcript_and_meters_can_go(self) -> None:
        """The session knows the ports of those who watch, never who they are."""
        for name in RIVER:
            self.assertFalse({one.room for one in imports(name)} & {"transcript", "meters"}, name)


class WordTests(SynchronousTestCase):
    """One place for each thing."""

    def test_status_words(self) -> None:
        """Only the wire makes ``+OK`` and ``-ERR``."""
        for name, tree in modules().items():
            makers = [text for text in strings(tree) if "+OK" in text or "-ERR" in text]
            self.assertEqual(bool(makers), name == "wire", f"{name}: {makers}")

    def test_no_handlers_by_name(self) -> None:
        """No method is looked up by a name that was put together."""
        for name, tree in modules().items():
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and ast.unparse(node).startswith("getattr(self, "):
                    self.assertIsInstance(node.args[1], ast.Constant, f"{name}, line {node.lineno}")
            methods = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
            # In delivery/ they are Twisted's: its SMTP server calls them so.
            if not within(name, "delivery"):
                self.assertFalse([method for method in methods if method.startswith("do_")], name)

    def test_one_place_writes(self) -> None:
        """In the POP3 rooms only the way out writes to a transport."""
        for name in [*RIVER, "protocol", "factory", "channel"]:
            for node in ast.walk(modules()[name]):
                if isinstance(node, ast.Attribute):
                    self.assertNotIn(
                        node.attr, {"write", "writeSequence", "sendLine"}, f"{name}, line {node.lineno}"
                    )

    def test_no_store_of_everything(self) -> None:
        """No room is called after nothing."""
        for name in modules():
            self.assertNotIn(name.rpartition(".")[2], {"utils", "util", "common", "helpers", "base", "misc"})

    def test_each_file_says_what_it_is(self) -> None:
        """Each file begins with what lives in it."""
        for name, tree in modules().items():
            self.assertTrue(ast.get_docstring(tree), name)

    def test_nothing_happens_at_import(self) -> None:
        """No module opens a file, starts a thread or listens when it is loaded."""
        busy = {"open", "os.open", "print", "threading.Thread", "socket.socket"}
        for name, tree in modules().items():
            for node in tree.body:
                if isinstance(node, ast.Expr | ast.Assign | ast.AnnAssign):
                    called = {dotted(one.func) for one in ast.walk(node) if isinstance(one, ast.Call)}
                    self.assertFalse(called & busy, name)

    def test_the_reader_of_imports_reads(self) -> None:
        """This file's own eyes: known imports are seen, relative, within functions and for types."""
        self.assertIn(Import("pop3toy.pop3.commands", "", True, False), imports("session"))
        self.assertIn(Import("pop3toy.pop3.session", "Session", True, True), imports("transaction"))
        self.assertIn(Import("pop3toy.pop3.maildrop", "Listing", True, False), imports("stores.memory"))
        self.assertTrue([one for one in imports("cli.deliver") if one.name == "reactor" and not one.at_once])
        self.assertIn(Import("pop3toy.auth.realm", "MailboxRealm", True, False), imports(""))
        self.assertGreater(len(modules()), 40)
