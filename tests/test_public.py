"""What ``pop3toy/__init__.py`` promises: these names alone, documented, typed, loaded when they are used."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface.interface import InterfaceClass, Method

import pop3toy
from pop3toy import (
    BytesBody,
    ConnectionLimiter,
    FileBody,
    LoginThrottle,
    Maildirs,
    MaildirStore,
    errors,
    events,
)

from .folders import new_folder
from .pages import page
from .realserver import DEADLINE, run_python

ROOT = Path(pop3toy.__file__).parent.parent
EXAMPLES = ROOT / "docs" / "examples"
#: The whole of it: a name more is a promise more.
NAMES = [
    "server", "Settings", "TLS", "Maildirs", "Toy", "Limits", "CannotStart",
    "POP3Factory", "PortalAuthenticator", "MailboxRealm", "MemoryAccounts", "LoginThrottle",
    "ConnectionLimiter",
    "IMailStore", "ICancellableStore", "IViewableStore", "IMailbox", "ILeasedMailbox", "IDelivery",
    "IGate", "GateAnswer", "IServerControl", "SessionInfo",
    "IStoreAdmin", "MessageBody", "Entry", "BytesBody", "FileBody",
    "Listing", "MemoryStore", "MaildirStore", "octets", "unique_id_is_valid", "errors",
    "MemoryTranscript", "IObserver", "Observers", "events",
]  # fmt: skip


class NameTests(SynchronousTestCase):
    """The names."""

    def test_list(self) -> None:
        """``__all__`` has exactly these, in alphabetical order, and each is there."""
        self.assertEqual(sorted(pop3toy.__all__), sorted(NAMES))
        for name in NAMES:
            self.assertIsNotNone(getattr(pop3toy, name))
        self.assertLessEqual(set(NAMES), set(dir(pop3toy)))

    def test_star(self) -> None:
        """``from pop3toy import *`` gives these and nothing else."""
        got: dict[str, Any] = {}
        exec("from pop3toy import *", got)
        self.assertEqual(sorted(set(got) - {"__builtins__"}), sorted(NAMES))

    def test_others(self) -> None:
        """A name that is not public is an AttributeError that says whose, though its module may know it."""
        for name in ("POP3Protocol", "WriterTranscript", "nonsense"):
            why = self.assertRaises(AttributeError, getattr, pop3toy, name)
            self.assertEqual(str(why), f"module 'pop3toy' has no attribute {name!r}")

    def test_same_each_time(self) -> None:
        """A name is the same object each time, and that of its module."""
        self.assertIs(pop3toy.MemoryStore, pop3toy.MemoryStore)
        self.assertIs(pop3toy.errors, errors)
        self.assertIs(pop3toy.CannotStart, errors.CannotStart)


class LoadingTests(SynchronousTestCase):
    """What an import costs."""

    def test_import(self) -> None:
        """Importing pop3toy loads its version, and nothing else of ours, of Twisted or of TLS."""
        said = run_python(
            "import sys\n"
            "before = set(sys.modules)\n"
            "import pop3toy\n"
            "new = {name for name in set(sys.modules) - before"
            " if name.split('.')[0] in ('pop3toy', 'twisted', 'zope', 'OpenSSL', 'cryptography')}\n"
            "print(*sorted(new))\n",
            folder=Path(self.mktemp()),
        )
        self.assertEqual(said.split(), ["pop3toy", "pop3toy._version"])

    def test_names(self) -> None:
        """No name installs a reactor or loads our TLS; settings and interfaces load no store either."""
        said = run_python(
            "import os, sys, pop3toy\n"
            f"for name in {NAMES!r}:\n"
            "    if not os.fork():\n"
            "        getattr(pop3toy, name)\n"
            "        heavy = {'twisted.internet.reactor', 'pop3toy.net.tls.contexts', 'twisted.mail.pop3'}\n"
            "        stores = {'pop3toy.stores.memory', 'pop3toy.stores.maildir.store'}\n"
            "        if name in ('Settings', 'Maildirs', 'IMailStore', 'errors', 'POP3Factory', 'octets'):\n"
            "            heavy |= stores\n"
            "        os.write(1, ' '.join([name, *sorted(heavy & set(sys.modules))]).encode() + b'\\n')\n"
            "        os._exit(0)\n"
            "    assert os.wait()[1] == 0\n",
            folder=Path(self.mktemp()),
        )
        self.assertEqual(said.splitlines(), NAMES)


def undocumented(documentation: str | None, names: list[str]) -> list[str]:
    """Those of a function's parameters that its documentation does not tell of."""
    return [name for name in names if not re.search(rf":param {name}: \S", documentation or "")]


def parameters(function: Callable[..., Any]) -> list[str]:
    """The names of a function's parameters, but for the object itself."""
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def methods(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that are ours."""
    for name in dir(kind):
        found = inspect.getattr_static(kind, name)
        function = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
        if not name.startswith("_") and getattr(function, "__module__", "").startswith("pop3toy"):
            yield name, function


class DocumentationTests(SynchronousTestCase):
    """Each name is documented, so that it can be used without reading the code."""

    def public(self) -> dict[str, Any]:
        """The names, with the classes of ``errors`` and ``events`` besides."""
        found = {name: getattr(pop3toy, name) for name in NAMES}
        found |= {name: getattr(errors, name) for name in errors.__all__}
        return {**found, **{kind.__name__: kind for kind in events.KINDS}}

    def test_each(self) -> None:
        """Each name and each public method says what it is; functions and classes, of each parameter too."""
        for name, what in self.public().items():
            if isinstance(what, InterfaceClass):
                continue
            with self.subTest(name):
                self.assertTrue((what.__doc__ or "").strip())
                if inspect.isclass(what):
                    for method, function in methods(what):
                        self.assertTrue((function.__doc__ or "").strip(), method)
                    values = dataclasses.is_dataclass(what) or issubclass(what, Exception | tuple)
                    if not values and what is not pop3toy.MessageBody:
                        self.assertEqual(undocumented(what.__doc__, parameters(what.__init__)), [])
                elif inspect.isfunction(what):
                    self.assertEqual(undocumented(what.__doc__, parameters(what)), [])

    def test_settings(self) -> None:
        """Each field of the settings has the help of its option, or is told of where it stands."""
        for kind in (pop3toy.Settings, pop3toy.TLS, pop3toy.Maildirs, pop3toy.Toy, pop3toy.Limits):
            for field in dataclasses.fields(kind):
                if field.name not in ("store", "tls", "limits"):
                    self.assertGreater(len(field.metadata["option"]["help"]), 20, field.name)

    def test_interfaces(self) -> None:
        """Interfaces tell of each parameter, of what may be a Deferred, and of what may be raised."""
        for name, what in self.public().items():
            if not isinstance(what, InterfaceClass):
                continue
            self.assertTrue(what.getDoc().strip(), name)
            for method in what:
                said, where = what[method].getDoc(), f"{name}.{method}"
                self.assertTrue(said.strip(), where)
                if not isinstance(what[method], Method):
                    continue
                self.assertEqual(undocumented(said, list(what[method].positional)), [], where)
                if name not in ("IStoreAdmin", "IGate", "IServerControl"):
                    self.assertIn("Deferred", said, where)
                    self.assertIn("rais", said, where)
        # What travels through them.
        for part in (pop3toy.MessageBody.pull, pop3toy.MessageBody.close):
            self.assertEqual(undocumented(part.__doc__, parameters(part)), [])

    def test_page(self) -> None:
        """docs/embedding.rst tells of each name."""
        text = page("docs/embedding.rst")
        self.assertEqual([name for name in NAMES if not re.search(rf"\b{name}\b", text)], [])


class PartTests(SynchronousTestCase):
    """The parts can be made of public names alone."""

    def test_limits(self) -> None:
        """Throttle and limiter have the type of their limits."""
        limits = ConnectionLimiter.Limits(connections=7)
        self.assertEqual(ConnectionLimiter(limits).limits.connections, 7)
        throttle = LoginThrottle(Clock(), LoginThrottle.Limits(login_delay=60))
        self.assertEqual(throttle.limits.login_delay, 60)

    def in_turn(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """In the place of a thread."""
        return succeed(function(*args))

    def test_maildir_store(self) -> None:
        """A store of Maildirs is made of ``Maildirs``, with its limit and what it may make."""
        root = new_folder(self)
        closed = MaildirStore(Maildirs(f"{root}/{{user}}"), self.in_turn)
        self.failureResultOf(closed.open("ann"), errors.NoSuchMailbox)  # type: ignore[arg-type]
        store = MaildirStore(Maildirs(f"{root}/{{user}}", create=True, max_listed_size=3), self.in_turn)
        self.successResultOf(store.open("ann")).release()  # type: ignore[arg-type]
        (root / "ann" / "new" / "1.mail").write_bytes(b"a\nb\nc\n")
        mailbox: Any = self.successResultOf(store.open("ann"))  # type: ignore[arg-type]
        self.assertEqual([entry.octets for entry in mailbox.entries], [6])
        mailbox.release()

    def test_file_body(self) -> None:
        """A body of a file needs a descriptor and a thread, and no more."""
        path = Path(self.mktemp())
        path.write_bytes(b"Subject: x\n\nx\n")
        body = FileBody(os.open(path, os.O_RDONLY), self.in_turn)
        got = b""
        while not body.done:
            chunk = body.pull()
            got += chunk if isinstance(chunk, bytes) else self.successResultOf(chunk)
        body.close(len(got) + 3)
        self.assertEqual(got, path.read_bytes())

    def test_bytes_body(self) -> None:
        """A body of bytes is pulled in pieces that are no larger than asked for, and says when it is done."""
        body = BytesBody(b"abcde")
        self.assertEqual([body.pull(2), body.pull(2), body.done], [b"ab", b"cd", False])
        self.assertEqual([body.pull(2), body.done], [b"e", True])


class TypingTests(SynchronousTestCase):
    """mypy knows the names."""

    def mypy(self, *arguments: str) -> str:
        """What mypy says with this project's settings: strict, but for Twisted's functions without types."""
        for name in ("mypy", "mypy_zope"):
            if importlib.util.find_spec(name) is None:
                raise SkipTest(f"{name} is not installed (pip install -e '.[dev]')")
        if not EXAMPLES.is_dir():
            raise SkipTest("there are no docs beside the tests")
        done = subprocess.run(
            [sys.executable, "-m", "mypy", f"--config-file={ROOT / 'pyproject.toml'}", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=10 * DEADLINE,
            check=False,
        )
        return done.stdout + done.stderr

    def test_names(self) -> None:
        """A program that mypy looks at strictly may import each name, and none of them is Any."""
        program = Path(self.mktemp()).absolute().with_suffix(".py")
        lines = [f"from pop3toy import {', '.join([*NAMES, '__version__'])}"]
        lines += [f"reveal_type({name})" for name in [*NAMES, "__version__"]]
        program.write_text("\n".join(lines) + "\n")
        said = self.mypy(str(program))
        self.assertEqual(said.count("Revealed type is"), len(NAMES) + 1, said)
        self.assertIn("Success", said)
        self.assertNotRegex(said, r'Revealed type is "Any"')

    def test_examples(self) -> None:
        """mypy, strict, has nothing against any of docs/examples."""
        examples = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".py", ".tac"))
        self.assertGreater(len(examples), 3)
        self.assertIn("Success", self.mypy(*map(str, examples)))

    def test_examples_use_public_names(self) -> None:
        """Examples import from ``pop3toy`` and none of its modules."""
        for path in EXAMPLES.iterdir():
            if path.suffix in (".py", ".tac"):
                text = path.read_text("utf-8")
                self.assertNotRegex(text, r"(?m)^\s*(from|import) pop3toy\.", path.name)
                self.assertRegex(text, r"(?m)^from pop3toy import ", path.name)
