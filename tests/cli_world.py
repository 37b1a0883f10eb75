"""What the tests of the command line share: a folder, and commands run on it."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from pop3toy.installation import install_hint

try:
    from click.testing import CliRunner

    from pop3toy.cli.group import pop3toy, run
except ImportError:
    raise SkipTest(f"click is not installed: {install_hint('cli')}") from None

__all__ = ["MESSAGE", "CliRunner", "CommandTests", "Outcome", "pop3toy", "run"]

MESSAGE = b"From: Eve <eve@example.org>\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\nMessage-ID: <1@x>\n\nhello\n"


class Outcome(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str


class CommandTests(SynchronousTestCase):
    """A folder with accounts and Maildirs, and commands run on them."""

    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        self.accounts = self.root / "accounts"
        (self.root / "mail").mkdir()
        self.pattern = f"{self.root}/mail/{{user}}"

    def run_command(self, *arguments: str, stdin: bytes = b"") -> Outcome:
        """Run ``pop3toy`` with these arguments; {A} and {M} stand for the options of this folder."""
        options = {"{A}": f"--accounts={self.accounts}", "{M}": f"--maildir={self.pattern}"}
        words = [options.get(word, word) for word in arguments]
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = run(words)
        finally:
            sys.stdin = before
        texts = []
        for stream in (out, err):
            stream.flush()
            buffer = stream.buffer
            assert isinstance(buffer, io.BytesIO)
            texts.append(buffer.getvalue().decode())
        return Outcome(status, *texts)

    def deliver(self, message: bytes = MESSAGE, user: str = "ann", *options: str) -> Outcome:
        """Deliver a message."""
        return self.run_command("deliver", "{M}", "--create", *options, user, stdin=message)

    def import_(self, user: str, *sources: str | Path) -> Outcome:
        """Import into the mailbox of an account, which is made."""
        self.accounts.write_text(f"{user}:{{PLAIN}}x\n")
        return self.run_command("mailbox", "import", "{M}", "{A}", "--create", user, *map(str, sources))

    def files(self, user: str = "ann") -> list[Path]:
        """The user's messages."""
        return sorted((self.root / "mail" / user / "new").iterdir())
