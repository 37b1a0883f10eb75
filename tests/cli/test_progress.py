"""Bars of progress: on a terminal alone, whole at the end, and out of the way of what is told."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from pop3toy.cli.copying.users import Work
from pop3toy.stores.copying.maildirs import MaildirMailboxes
from pop3toy.stores.maildir.admin import MaildirAdmin
from pop3toy.stores.objects.qualification import examination

from ..cli_world import MESSAGE, CommandTests, run

#: What a bar ends with: the cursor is shown again, on a line of its own.
END = "\x1b[?25h\n"


class Terminal(io.TextIOWrapper):
    """What is written to a terminal."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode()


class ProgressTests(CommandTests):
    """Commands that take their time."""

    def setUp(self) -> None:
        super().setUp()
        for user in ("ann", "bob"):
            for _ in range(3):
                self.deliver(MESSAGE, user)
        self.accounts.write_text("ann:{PLAIN}x\nbob:{PLAIN}x\n")
        self.box = self.root / "box"
        self.assertEqual(self.run_command("mailbox", "export", "{M}", "ann", str(self.box)).status, 0)

    def commands(self) -> list[tuple[str, tuple[str, ...]]]:
        """What each is called, and its words."""
        maildirs = f"--maildir={self.pattern}"
        other = f"{self.root}/other/{{user}}"
        (self.root / "other").mkdir(exist_ok=True)
        return [
            ("Importing for ann", ("mailbox", "import", maildirs, "ann", str(self.box))),
            ("Exporting ann", ("mailbox", "export", maildirs, "ann", f"{self.box}{os.urandom(4).hex()}")),
            ("Copying", ("store", "copy", self.pattern, other)),
        ]

    def on_terminal(self, *words: str) -> tuple[int, str]:
        """Run it with a terminal for its trouble: the exit status, and what is to be seen."""
        terminal = Terminal()
        with redirect_stderr(terminal), redirect_stdout(io.StringIO()):
            status = run(words)
        return status, terminal.text()

    def test_on_a_terminal(self) -> None:
        """The bar goes on to its end, hides the cursor meanwhile, and leaves a whole line."""
        for label, words in self.commands():
            status, seen = self.on_terminal(*words)
            self.assertEqual(status, 0, seen)
            bar, end, _ = seen.partition(END)
            self.assertEqual(end, END)
            self.assertEqual(seen.count(END), 1)
            last = bar.rpartition("\r\x1b[?25l")[2]
            self.assertRegex(last, rf"\A{label}  \[#+\]  ([0-9])/\1\Z")

    def test_nowhere_else(self) -> None:
        """Into a file nothing of it goes."""
        for label, words in self.commands():
            done = self.run_command(*words)
            self.assertEqual(done.status, 0, done)
            for sign in (label, "\r", "\x1b", "#"):
                self.assertNotIn(sign, done.out + done.err)

    def test_interrupted(self) -> None:
        """Ctrl-C ends the bar's line before anything else is written; the cursor is back."""
        self.patch(MaildirAdmin, "read", self.interrupts)
        self.patch(MaildirMailboxes, "mailbox", self.interrupts)
        self.patch(sys.modules["pop3toy.cli.transfer"], "_deliver", self.interrupts)
        for label, words in self.commands():
            status, seen = self.on_terminal(*words)
            self.assertEqual(status, 1, seen)
            bar, end, after = seen.partition(END)
            self.assertIn(label, bar)
            self.assertEqual((end, after.strip()), (END, "Stopped."))

    def interrupts(self, *words: object, **named: object) -> Any:
        raise KeyboardInterrupt

    def test_told_meanwhile(self) -> None:
        """A sentence takes the place of the bar, which goes on below; with the next user it is not full."""
        terminal = Terminal()
        with redirect_stderr(terminal), Work("Copying") as work:
            work.progress(2, 0)
            work.progress(0, 2)
            work.tell("ann: \x1b[31mtrouble")
            work.progress(2, 0)
            work.progress(0, 1)
        before, told, after = terminal.text().partition("\r\x1b[Kann: \\x1b[31mtrouble\n")
        self.assertRegex(before, r"\[#+\]  2/2\Z")
        self.assertTrue(told, terminal.text())
        self.assertRegex(after, r"\A\r\x1b\[\?25lCopying  \[#+-+\]  3/4\x1b\[\?25h\n\Z")

    def test_store_check(self) -> None:
        """What is tried just now stands on one line, which is empty before the report, and after Ctrl-C."""
        module = sys.modules["pop3toy.cli.store"]
        self.patch(os, "environ", {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"})
        for end in (KeyboardInterrupt, None):

            def examined(
                settings: object, *, say: Any, end: type[BaseException] | None = end, **more: object
            ) -> examination.Report:
                say("conditions")
                if end is not None:
                    raise end
                return examination.Report("s3://mail", True, "fit", [], [])

            self.patch(module, "examined", examined)
            _, seen = self.on_terminal("store", "check", "s3://mail")
            self.assertTrue(seen.startswith("\r\x1b[Kconditions\r\x1b[K"), seen)
            self.assertEqual("Stopped." in seen, end is not None)
            self.assertEqual(
                self.run_command("store", "check", "s3://mail").err.strip(), "Stopped." if end else ""
            )
