"""A kind of store is one entry: with it, command line, file, help, server and commands know the store."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.net.threads import NoThreads, Share
from pop3toy.option import options_of
from pop3toy.stores.objects.users import Users
from pop3toy.stores.registry import STORES, Objects, SharedObjects, StoreContext, kind_of

from ..folders import new_folder
from ..objects_world import World, WorldEngines
from ..realserver import RealServer, environment
from ..strictclient import StrictClient

#: A program that has one kind of store more, and runs as the command line behind it says.
PROGRAM = """
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pop3toy.files import check_readable
from pop3toy.option import PATH, REQUIRED, option
from pop3toy.stores import registry
from pop3toy.stores.memory import MemoryStore


@dataclass(frozen=True)
class Tin:
    table: ClassVar[str] = "store"
    for_each_user: ClassVar[bool] = True
    tin: str = option("Everybody has the message of this file.", REQUIRED, kind=PATH)
    create: bool = False


def store(tin, context=None):
    made = MemoryStore(dict.fromkeys(["ann", "bob"], [Path(tin.tin).read_bytes()]), create=tin.create)
    return registry.OpenStore(made, made) if context else made


registry.STORES += (
    registry.StoreKind(Tin, "tin", "tins", store, store, lambda tin: check_readable("tin", tin.tin)),
)

if sys.argv[1] == "pop3toy":
    from pop3toy.cli.group import run

    sys.exit(run(sys.argv[2:]))
# What is behind it is Python with a program of its own.
code, sys.argv[1:] = sys.argv[3], sys.argv[4:]
exec(code)
"""

MESSAGE = b"Subject: tinned\n\nhello\n"


class NewKindTests(SynchronousTestCase):
    """A kind of store that comes with one entry."""

    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.tin = self.folder / "tin"
        self.tin.write_bytes(MESSAGE)
        self.program = self.folder / "program.py"
        self.program.write_text(PROGRAM)
        self.file = self.folder / "pop3toy.toml"
        self.file.write_text('[store]\ntin = "tin"\n[accounts]\nuser = ["ann:secret"]\n')

    def run_program(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a command line with the new kind."""
        return subprocess.run(
            [sys.executable, self.program, *words],
            input=stdin, capture_output=True, check=False, cwd=self.folder, env=environment(self.folder),
        )  # fmt: skip

    def test_served(self) -> None:
        """The server serves it, by an option and by a file."""
        for options in ([f"--tin={self.tin}", "--user=ann:secret"], [f"--config={self.file}"]):
            launcher = (sys.executable, str(self.program))
            with RealServer(*options, launcher=launcher) as server, StrictClient(server.port) as client:
                client.login()
                self.assertEqual(MESSAGE.replace(b"\n", b"\r\n"), client.retr(1))
                client.quit()

    def test_said(self) -> None:
        """The help has its option, and what does not go together with another kind is told."""
        code = "from twisted.scripts.twistd import run; run()"

        def twistd(*words: str) -> subprocess.CompletedProcess[bytes]:
            return self.run_program(sys.executable, "-c", code, "-n", "--pidfile=", "pop3toy", *words)

        shown = b" ".join(twistd("--help").stdout.split())
        self.assertIn(b"--tin PATH Everybody has the message of this file.", shown)
        for words, says in (
            (("--tin=tin", "--maildir=x/{user}"), b"is for tins, which --maildir replaces"),
            (("--tin=missing", "--user=ann:x"), b"pop3toy: --tin: there is no file "),
            (("--tin=tin",), b"who may log in?"),
        ):
            refused = twistd(*words)
            self.assertEqual(refused.returncode, 1)
            self.assertIn(says, refused.stderr)

    def test_administered(self) -> None:
        """The commands ask it as they ask any other, by its option, its variable and a file."""
        for words in ([f"--tin={self.tin}"], [f"--config={self.file}"]):
            for command, more, says in (
                ("list", (), b"ann                        1 message "), ("list", ("bob",), b": tinned"),
                ("show", ("ann", "1"), MESSAGE), ("export", ("ann", "-"), b"\nhello\n"), ("check", (), b""),
                ("remove", ("--yes", "bob"), b"is gone"),
            ):  # fmt: skip
                done = self.run_program("pop3toy", "mailbox", command, *words, *more)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn(says, done.stdout)
            for user, options, status in (
                ("ann", (), os.EX_OK), ("eve", (), os.EX_NOUSER), ("eve", ("--create",), os.EX_OK),
            ):  # fmt: skip
                if user == "eve" and words == [f"--config={self.file}"]:
                    # The file says who there is.
                    status = os.EX_NOUSER
                done = self.run_program("pop3toy", "deliver", *words, *options, user, stdin=MESSAGE)
                self.assertEqual(done.returncode, status, done.stderr)
        self.assertEqual(self.run_program("pop3toy", "config", "check", str(self.file)).returncode, 0)
        shown = self.run_program("pop3toy", "config", "show", f"--config={self.file}").stdout.decode()
        self.assertIn(f'tin = "{self.tin}"  # {self.file}\n', shown)


class _Pool(NoThreads):
    """Takes down which shares its work has."""

    def __init__(self) -> None:
        self.keys: list[object] = []

    def shared(self, shares: Sequence[Share], **how: Any) -> Any:
        self.keys += [key for key, _ in shares]
        return self.run


class BucketTests(SynchronousTestCase):
    """Of several buckets one that hangs must not take the threads of all."""

    def keys(self, *buckets: str) -> list[object]:
        """The shares of sessions and deliveries: of ann, who was looked for before, and of bob."""
        world = World("ann")
        engines = WorldEngines(world, buckets=buckets)
        users = Users(engines)
        users.find("ann")
        pool = _Pool()
        context = StoreContext(
            clock=Clock(), threads=lambda name, size: pool if name == "objects" else NoThreads(),
            quota=lambda user: None, users=(), host="h",
            shared=SharedObjects(engines, users),  # type: ignore[arg-type]
        )  # fmt: skip
        settings = Objects("s3://mail", buckets=buckets)
        opened = kind_of(settings).open(settings, context)
        for user in ("ann", "bob"):
            for asked in (opened.store.open(user), opened.delivery.check(user)):
                assert isinstance(asked, Deferred)
                asked.addErrback(lambda why: None)
        return pool.keys

    def test_several(self) -> None:
        """What is known to be of one bucket counts for that too."""
        found = self.keys("other")
        # Her delivery, her maildrop's opening and, when that is open, its messages.
        self.assertEqual(found.count(("bucket", "")), 3)
        for key in (("user", "ann"), ("mail for", "ann"), ("user", "bob"), ("mail for", "bob")):
            self.assertIn(key, found)

    def test_one(self) -> None:
        """Of one bucket there is nothing to divide."""
        self.assertNotIn("bucket", [key[0] for key in self.keys() if isinstance(key, tuple)])


class EntryTests(SynchronousTestCase):
    """The entries that there are."""

    def test_promises(self) -> None:
        """Each kind has what the registry says of it, and its settings find it."""
        for kind in STORES:
            self.assertTrue(hasattr(kind.settings, "for_each_user"), kind.what)
            options = options_of(kind.settings)
            if kind.key:
                self.assertIn(kind.key, {one.name for one in options})
            if kind.admin is not None:
                self.assertIn("create", {field.name for field in fields(kind.settings)})
        self.assertRaises(TypeError, kind_of, object())
