"""The command line: what it does, what it says, and with which status it ends."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import maybeDeferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.auth.accounts.admin import list_users
from pop3toy.cli import deliver
from pop3toy.cli.mbox import with_line_feeds
from pop3toy.errors import StoreTrouble
from pop3toy.installation import install_hint
from pop3toy.routing.quota import parse_quota, quota_of
from pop3toy.smtp import limits
from tests.cli_world import MESSAGE, CliRunner, CommandTests, Outcome, pop3toy, run
from tests.mail.test_message_start import BOM, DATED, HEADER, MOST, STARTS
from tests.pages import page


class UserTests(CommandTests):
    """``pop3toy user``."""

    def add(self, name: str = "ann", *options: str) -> Outcome:
        """Add a user with the password "secret"."""
        return self.run_command("user", "add", "{A}", "--stdin", *options, name, stdin=b"secret\n")

    def test_life(self) -> None:
        """A user is added, listed, given a new password, and removed."""
        self.assertEqual(self.add("ann", "--quota", "5M", "--scheme", "plain").status, 0)
        self.assertEqual(self.add("bob", "--scheme", "plain").status, 0)
        listed = self.run_command("user", "list", "{A}")
        self.assertEqual((listed.status, listed.err), (0, ""))
        self.assertEqual(
            [line.split() for line in listed.out.splitlines()],
            [["ann", "PLAIN", "quota=5M"], ["bob", "PLAIN"]],
        )
        changed = self.run_command(
            "user", "passwd", "{A}", "--stdin", "--scheme=PLAIN", "ann", stdin=b"n e w"
        )
        self.assertEqual(changed.status, 0)
        self.assertEqual(list_users(self.accounts).by_name["ann"].password.secret, b"n e w")
        self.assertEqual(self.run_command("user", "del", "{A}", "--yes", "ann").status, 0)
        self.assertEqual(list(list_users(self.accounts).by_name), ["bob"])

    def test_asks(self) -> None:
        """The password is asked for twice and not shown; removal is confirmed."""
        runner = CliRunner()
        command = ["user", "add", "-a", str(self.accounts), "-s", "PLAIN", "ann"]
        asked = runner.invoke(pop3toy, command, input="one\ntwo\nsame\nsame\n")
        self.assertEqual(asked.exit_code, 0, asked.output)
        self.assertNotIn("same\n", asked.output)
        self.assertEqual(list_users(self.accounts).by_name["ann"].password.secret, b"same")
        runner.invoke(pop3toy, ["user", "del", "-a", str(self.accounts), "ann"], input="n\n")
        self.assertIn("ann", list_users(self.accounts).by_name)

    def test_quota(self) -> None:
        """A user's quota is set, changed and shown, and all else about the user stays."""
        self.accounts.write_text(
            "\ufeffann:{PLAIN}x:1000:1000::/home:/sh:quota=1M quota=2M allow_nets=::1,10.0.0.0/8:nologin:\n"
            "bob:{PLAIN}y"
        )
        for name, size, shown in (
            ("ann", None, "1M (1,048,576 octets)"), ("bob", None, "none"), ("ann", "0", "0 (no mail fits)"),
            ("ann", "500M", "500M (524,288,000 octets)"), ("bob", "2 GiB", "2GiB (2,147,483,648 octets)"),
            ("ann", "none", "none"),
        ):  # fmt: skip
            if size is not None:
                said = self.run_command("user", "quota", "{A}", name, size)
                self.assertEqual((said.status, said.out), (0, f"User {name} has the quota {shown}.\n"))
            self.assertEqual(self.run_command("user", "quota", "{A}", name).out, f"{shown}\n")
        self.assertEqual(
            self.accounts.read_text(),
            "\ufeffann:{PLAIN}x:1000:1000::/home:/sh:quota=none quota=2M allow_nets=::1,10.0.0.0/8:nologin:\n"
            "bob:{PLAIN}y:quota=2GiB",
        )
        for arguments, status, words in (
            (("nobody", "1M"), os.EX_NOUSER, "no user nobody"), (("nobody",), os.EX_NOUSER, "no user nobody"),
            (("ann", "lots"), os.EX_USAGE, "500M"),
        ):  # fmt: skip
            outcome = self.run_command("user", "quota", "{A}", *arguments)
            self.assertEqual(outcome.status, status)
            self.assertIn(words, outcome.err)
        self.accounts.write_text("ann:{NOPE}x\n")
        outcome = self.run_command("user", "quota", "{A}", "ann", "1M")
        self.assertEqual(outcome.status, os.EX_DATAERR)
        self.assertIn("mended with an editor", outcome.err)
        self.assertEqual(self.accounts.read_text(), "ann:{NOPE}x\n")

    def test_names_in_another_case(self) -> None:
        """A name is found as at login: as it is written, else in any case where it is one user's alone."""
        self.accounts.write_text("Bob:{PLAIN}x\nann:{PLAIN}x\nAnn:{PLAIN}x\ncarl:{NOPE}x\n")
        self.accounts.chmod(0o600)
        for name, found in (("bob", "Bob"), ("Bob", "Bob"), ("ann", "ann"), ("Ann", "Ann")):
            said = self.run_command("user", "quota", "{A}", name, "1K")
            self.assertEqual(said.out, f"User {found} has the quota 1K (1,024 octets).\n", said.err)
            self.assertEqual(self.run_command("user", "quota", "{A}", name).out, "1K (1,024 octets)\n")
            said = self.run_command("user", "passwd", "{A}", "--stdin", name, stdin=b"new\n")
            self.assertEqual(said.out, f"User {found} has a new password.\n", said.err)
        for command in (("quota",), ("passwd", "--stdin"), ("del", "--yes")):
            self.assertEqual(self.run_command("user", *command, "{A}", "ANN").status, os.EX_NOUSER)
        for name, found in (("BOB", "Bob"), ("ann", "ann"), ("ANN", "Ann"), ("CARL", "carl")):
            said = self.run_command("user", "del", "{A}", "--yes", name)
            self.assertEqual(
                said.out,
                f"User {found} is gone; the mail is not: pop3toy mailbox remove {found} takes it away.\n",
                said.err,
            )
        self.assertEqual(self.run_command("user", "list", "{A}").out, "")

    def test_added_beside_another_case(self) -> None:
        """Who makes a second user of a name in another case hears what that changes, and has it."""
        self.assertIn(", with the quota 0 (no mail fits).\n", self.add("ann", "--quota", "0").out)
        added = self.add("Ann")
        self.assertEqual((added.status, added.out), (0, f"User Ann is in {self.accounts}.\n"))
        self.assertRegex(added.err, r"\AWarning: ann and Ann differ in case alone\. .*\n\Z")
        self.assertEqual(list(list_users(self.accounts).by_name), ["ann", "Ann"])
        self.assertEqual(self.add("bob").err, "")

    def test_nobody_to_ask(self) -> None:
        """Without a terminal it asks nothing, and one line says what to do."""
        words = ("user", "add", "-a", str(self.accounts), "ann")
        done = self.run_process(*words, stdin=subprocess.DEVNULL, text=True, start_new_session=True)
        self.assertEqual((done.returncode, done.stdout), (os.EX_DATAERR, ""))
        self.assertRegex(done.stderr, r"\AError: there is no terminal .* --stdin .*\n\Z")
        self.assertFalse(self.accounts.exists())

    def test_options_of_the_server(self) -> None:
        """Who takes this command for the server is told where that is."""
        outcome = self.run_command("--port", "2590")
        self.assertEqual(outcome.status, os.EX_USAGE)
        self.assertIn("twistd -n pop3toy --help", outcome.err)
        self.assertNotIn("twistd", self.run_command("user", "add").err)

    def test_mistakes_of_the_command_line(self) -> None:
        """One line says what is wrong, and one where to read on."""
        for words, wrong, command in (
            (("--port", "2590"), "--port", "pop3toy --help; "),
            (("nonsense",), "nonsense", "pop3toy --help; "),
            (("user", "add"), "NAME", "pop3toy user add --help"),
            (("user", "add", "--nonsense", "x"), "--nonsense", "pop3toy user add --help"),
            (("user", "nonsense"), "nonsense", "pop3toy user --help"),
            (("mailbox", "list", "ann"), "--maildir", "pop3toy mailbox list --help"),
            (("completion", "a\x1b[2Jb\nc"), "is not one of", "pop3toy completion --help"),
        ):
            outcome = self.run_command(*words)
            self.assertEqual((outcome.status, outcome.out), (os.EX_USAGE, ""))
            error, more = outcome.err.splitlines()
            self.assertTrue(error.startswith("Error: "), error)
            self.assertIn(wrong, error)
            self.assertNotIn("\x1b", error)
            self.assertTrue(more.startswith(f"Try: {command}"), more)

    def test_mistakes(self) -> None:
        """A mistake is one line and a status of sysexits.h, and changes nothing."""
        self.add("ann", "--scheme", "plain")
        for arguments, status, words in (
            (("add", "ann"), os.EX_DATAERR, "already"),
            (("add", "a b"), os.EX_DATAERR, "blank"),
            (("add", "--quota", "lots", "cat"), os.EX_USAGE, "500M"),
            (("passwd", "nobody"), os.EX_NOUSER, "no user nobody"),
            (("del", "nobody"), os.EX_NOUSER, "no user nobody"),
            (("add",), os.EX_USAGE, "Missing argument"),
        ):
            with self.subTest(arguments=arguments):
                stdin = ["--stdin"] if arguments[0] in ("add", "passwd") else ["--yes"]
                outcome = self.run_command("user", arguments[0], "{A}", *stdin, *arguments[1:], stdin=b"x\n")
                self.assertEqual(outcome.status, status)
                self.assertIn(words, outcome.err)
                self.assertNotIn("Traceback", outcome.err)
        self.assertEqual(list(list_users(self.accounts).by_name), ["ann"])
        self.accounts.unlink()
        self.assertEqual(self.run_command("user", "list", "{A}").status, os.EX_NOINPUT)

    def test_bad_lines(self) -> None:
        """Lines that are not understood are told, and the others listed."""
        self.accounts.write_text("ann:{PLAIN}x\nnonsense\n")
        listed = self.run_command("user", "list", "{A}")
        self.assertEqual(listed.status, os.EX_DATAERR)
        self.assertIn("ann", listed.out)
        self.assertIn("line 2", listed.err)

    def test_repair(self) -> None:
        """Lines that are not understood get a password, or go, without an editor."""
        text = "ann:{PLAIN}x\nbob\ncarl:{NOPE}x:quota=1M\ndora:secret\n"
        for name, settings in (("bob", {}), ("carl", {"quota": "1M"}), ("dora", {})):
            self.accounts.write_text(text)
            self.assertIn("already", self.add(name).err)
            changed = self.run_command("user", "passwd", "{A}", "--stdin", name, stdin=b"new\n")
            self.assertEqual((changed.status, changed.err), (0, ""))
            account = list_users(self.accounts).by_name[name]
            self.assertTrue(account.password.verify(b"new"))
            self.assertEqual(account.settings, settings)
            self.assertEqual(len(list_users(self.accounts).problems), 2)
            self.accounts.write_text(text)
            self.assertEqual(self.run_command("user", "del", "{A}", "--yes", name).status, 0)
            self.assertEqual(len(list_users(self.accounts).problems), 2)
        self.accounts.write_text("ann:{PLAIN}x:allow_nets=nonsense\n")
        refused = self.run_command("user", "passwd", "{A}", "--stdin", "ann", stdin=b"new\n")
        self.assertEqual(refused.status, os.EX_DATAERR)
        self.assertIn("line of ann has to be mended with an editor: allow_nets", refused.err)

    def test_kinds_stay(self) -> None:
        """A new password is kept as the old one was, unless it is said how."""
        for scheme in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-1"):
            self.add("ann", "--scheme", scheme)
            for options, expected in (((), scheme), (("--scheme", "plain"), "PLAIN")):
                self.run_command("user", "passwd", "{A}", "--stdin", *options, "ann", stdin=b"new\n")
                self.assertEqual(list_users(self.accounts).by_name["ann"].password.scheme, expected)
            self.accounts.unlink()
        self.accounts.write_text("ann:{SSHA}tiNXs/ntNXNVMtN3VKTLs7OFiOmxdMWI\n")
        self.run_command("user", "passwd", "{A}", "--stdin", "ann", stdin=b"new\n")
        self.assertEqual(list_users(self.accounts).by_name["ann"].password.scheme, "ARGON2ID")

    def test_password_not_utf_8(self) -> None:
        """A password in another encoding is refused in these words."""
        refused = self.run_command("user", "add", "{A}", "--stdin", "ann", stdin=b"gr\xfc\xdfe\n")
        self.assertEqual(refused.status, os.EX_DATAERR)
        self.assertTrue(refused.err.endswith("the password is not UTF-8\n"), refused.err)
        self.assertFalse(self.accounts.exists())

    def test_environment(self) -> None:
        """Where the accounts are can stand in the environment."""
        self.add("ann", "--scheme", "plain")
        os.environ["POP3TOY_ACCOUNTS"] = str(self.accounts)
        self.addCleanup(os.environ.pop, "POP3TOY_ACCOUNTS")
        self.assertIn("ann", self.run_command("user", "list").out)

    def test_completion(self) -> None:
        """A shell can complete users, and the script for it can be printed."""
        self.add("ann", "--scheme", "plain")
        environment = {
            "_POP3TOY_COMPLETE": "bash_complete", "COMP_WORDS": "pop3toy user passwd a", "COMP_CWORD": "3",
            "POP3TOY_ACCOUNTS": str(self.accounts),
        }  # fmt: skip
        completed = CliRunner().invoke(pop3toy, env=environment, prog_name="pop3toy")
        self.assertEqual(completed.output, "plain,ann\n")
        # The file that is named comes before the environment's.
        (self.root / "others").write_text("amy:{PLAIN}x\n")
        words = f"pop3toy user passwd --accounts {self.root}/others a"
        environment |= {"COMP_WORDS": words, "COMP_CWORD": "5"}
        completed = CliRunner().invoke(pop3toy, env=environment, prog_name="pop3toy")
        self.assertEqual(completed.output, "plain,amy\n")
        # Where nothing is named nothing is completed, and nothing goes wrong.
        environment |= {
            "COMP_WORDS": "pop3toy user passwd a",
            "COMP_CWORD": "3",
            "POP3TOY_ACCOUNTS": "/missing",
        }
        completed = CliRunner().invoke(pop3toy, env=environment, prog_name="pop3toy")
        self.assertEqual((completed.exit_code, completed.output.strip()), (0, ""))
        for shell in ("bash", "zsh", "fish"):
            self.assertIn("_POP3TOY_COMPLETE", self.run_command("completion", shell).out)


class DeliverTests(CommandTests):
    """``pop3toy deliver``."""

    def test_other_spelling(self) -> None:
        """A name that is in the accounts in another case is that user's."""
        self.accounts.write_text("ann:{PLAIN}x\n")
        outcome = self.deliver(MESSAGE, "ANN", "--accounts", str(self.accounts), "--create")
        self.assertEqual(outcome, Outcome(0, "", ""))
        self.assertEqual(len(self.files()), 1)

    def test_sender(self) -> None:
        """The sender of the envelope becomes a Return-Path, from an option or from the "From " line."""
        for options, stdin, header in (
            (("--sender", "eve@example.org"), b"", b"Return-Path: <eve@example.org>\r\n"),
            (("--sender", "<>"), b"", b"Return-Path: <>\r\n"),
            ((), b"From bob@example.org Mon Jan  1 00:00:00 2024\n", b"Return-Path: <bob@example.org>\r\n"),
            ((), b"From MAILER-DAEMON Mon Jan  1 00:00:00 2024\n", b"Return-Path: <>\r\n"),
            ((), b'From "john doe"@c.de Mon Jan  1 00:00:00 2024\n', b'Return-Path: <"john doe"@c.de>\r\n'),
            ((), b"From mailer-daemon Mon Jan  1 00:00:00 2024\n", b"Return-Path: <>\r\n"),
            ((), b"From root Mon Jan  1 00:00:00 2024\n", b"Return-Path: <root>\r\n"),
            # Who is not known, or no address.
            ((), b"From - Sat Apr 12 15:59:28 2025\n", b""),
            ((), b"From - Sat Apr 12 2025 15:59:28\n", b""),
            ((), b"From -\n", b""),
            ((), b"From MAILER DAEMON Mon Jan  1 00:00:00 2024\n", b""),
            ((), b"From ???@??? Mon Jan  1 00:00:00 2024\n", b""),
            ((), b"From \xff@x.org Mon Jan  1 00:00:00 2024\n", b""),
            (("--sender", "-"), b"", b""),
            (("--sender", "john doe@x.org"), b"", b'Return-Path: <"john doe"@x.org>\r\n'),
            (("--sender", "first,last@x.org"), b"", b'Return-Path: <"first,last"@x.org>\r\n'),
            (("--sender", "a@b@c"), b"", b'Return-Path: <"a@b"@c>\r\n'),
            (("--sender", 'a"b\\c@d'), b"", b'Return-Path: <"a\\"b\\\\c"@d>\r\n'),
            (("--sender", "not an address"), b"", b""),
            (("--sender", "a\nb@x.org"), b"", b""),
            (("--sender", "\udcff@x.org"), b"", b""),
            (("--sender", "x" * 2000 + "@x.org"), b"", b""),
        ):
            with self.subTest(options=options, stdin=stdin):
                self.assertEqual(self.deliver(stdin + MESSAGE, "ann", *options).status, 0)
                self.assertEqual(self.files()[-1].read_bytes(), header.replace(b"\r\n", b"\n") + MESSAGE)

    def test_no_header(self) -> None:
        """Text without a header does not become part of ours."""
        self.deliver(b"just text\n", "ann", "--sender", "eve@example.org")
        self.assertEqual(self.files()[0].read_bytes(), b"Return-Path: <eve@example.org>\n\njust text\n")

    def test_statuses(self) -> None:
        """What goes wrong is told by the statuses that mail servers know, and nothing is left."""
        self.deliver()
        self.accounts.write_text("ann:{PLAIN}x:quota=100\n")
        for arguments, message, status in (
            (("nobody",), MESSAGE, os.EX_NOUSER),
            (("../ann",), MESSAGE, os.EX_NOUSER),
            # Full now, and too small for ever.
            (("{A}", "ann"), MESSAGE, os.EX_TEMPFAIL),
            (("{A}", "ann"), MESSAGE + b"x" * 200_000, os.EX_UNAVAILABLE),
            (("ann",), b"", os.EX_DATAERR),
            (("ann",), b"From a@b Mon Jan  1 00:00:00 2024\n", os.EX_DATAERR),
            ((), MESSAGE, os.EX_USAGE),
        ):
            with self.subTest(arguments=arguments):
                outcome = self.run_command("deliver", "{M}", *arguments, stdin=message)
                self.assertEqual(outcome.status, status)
                self.assertNotIn("Traceback", outcome.err)
                if status != os.EX_USAGE:
                    self.assertRegex(outcome.err, r"\AError: .*\n\Z")
        self.assertEqual(len(self.files()), 1)
        self.assertEqual(list((self.root / "mail" / "ann" / "tmp").iterdir()), [])

    def test_what_mail_servers_make_of_it(self) -> None:
        """The statuses are those of operating/mail.rst, and all mail servers do the same with each."""
        # Postfix's global/sys_exits.c, Exim's temp_errors, OpenSMTPD's smtpd.c, sendmail's sysexits.c.
        tried_again = {"Postfix": {71, 75}, "Exim": {73, 75}, "OpenSMTPD": {71, 75}, "sendmail": {71, 74, 75}}
        manual = page("docs/operating/mail.rst")
        table = dict(re.findall(r"^(\d+) .* (done|goes back|tried again later)$", manual, re.MULTILINE))
        source = Path(deliver.__file__).read_text(encoding="utf-8")
        given = {str(getattr(os, name)) for name in re.findall(r"os\.(EX_\w+)", source)}
        self.assertEqual(set(table), given | {str(os.EX_USAGE)})
        for status, fate in table.items():
            for server, temporary in tried_again.items():
                self.assertEqual(int(status) in temporary, fate == "tried again later", (status, server))

    def test_what_an_administrator_has_to_mend(self) -> None:
        """What is wrong on the administrator's side returns no mail: try again later, one line says why."""
        self.deliver()
        self.deliver(MESSAGE, "half")
        shutil.rmtree(self.root / "mail" / "half" / "new")
        (self.root / "bad-quota").write_text("ann:{PLAIN}x:quota=lots\n")
        (self.root / "knows-bob").write_text("bob:{PLAIN}x\n")
        for arguments, says in (
            (("--maildir=/nowhere/{user}", "ann"), "/nowhere"),
            (("--maildir=/nowhere/{user}", "--create", "ann"), "/nowhere"),
            (("{M}", f"--accounts={self.root}/missing", "ann"), "missing"),
            (("{M}", f"--accounts={self.root}", "ann"), "directory"),
            (("{M}", f"--accounts={self.root}/bad-quota", "ann"), "'lots' is no quota"),
            (("{M}", f"--accounts={self.root}/knows-bob", "bob"), "bob has no mailbox here"),
            (("--maildir=relative\0/{user}", "ann"), "embedded null"),
            (("{M}", "half"), "half-made"),
        ):
            with self.subTest(arguments=arguments):
                outcome = self.run_command("deliver", *arguments, stdin=MESSAGE)
                self.assertEqual(outcome.status, os.EX_TEMPFAIL, outcome.err)
                self.assertRegex(outcome.err, r"\AError: .*\n\Z")
                self.assertIn(says, outcome.err)
        self.assertEqual(len(self.files()), 1)

    def test_nobody(self) -> None:
        """Where there is a list of users nobody else gets a Maildir made; the mail goes back."""
        accounts = self.root / "knows-bob"
        accounts.write_text("bob:{PLAIN}x\n")
        os.utime(accounts, (0, 0))
        options = ("--create", f"--maildir={self.pattern}", f"--accounts={accounts}")
        outcome = self.run_command("deliver", *options, "bobb", stdin=MESSAGE)
        self.assertEqual((outcome.status, outcome.err.count("\n")), (os.EX_NOUSER, 1))
        self.assertIn("there is no account bobb\n", outcome.err)
        self.assertFalse((self.root / "mail" / "bobb").exists())
        self.assertEqual(self.run_command("deliver", *options, "bob", stdin=MESSAGE).status, os.EX_OK)

    def test_removed(self) -> None:
        """A user who was removed gets no mail, though the mail is still there; a disabled one gets it."""
        self.deliver()
        for user in ("ann", "bob"):
            self.run_command("user", "add", "{A}", "--stdin", user, stdin=b"secret\n")
        self.run_command("user", "disable", "{A}", "ann")
        options = (f"--accounts={self.accounts}", "ann")
        self.assertEqual(self.run_command("deliver", "{M}", *options, stdin=MESSAGE).status, 0)
        self.run_command("user", "remove", "{A}", "--yes", "ann")
        outcome = self.run_command("deliver", "{M}", *options, stdin=MESSAGE)
        self.assertEqual((outcome.status, outcome.err), (os.EX_NOUSER, "Error: there is no account ann\n"))
        self.assertEqual(len(self.files()), 2)
        # The mailbox alone decides where nobody says who the users are.
        self.assertEqual(self.deliver().status, 0)

    def test_accounts_in_doubt(self) -> None:
        """No mail goes back for accounts that are being written, lost or mistyped."""
        self.deliver()
        for text, settled, says in (
            ("bob:{PLAIN}x\n", False, "is being written"),
            ("", True, "there are no users in"),
            ("bob:{PLAIN}x\nann:{NOSUCH}x\n", True, "the line of Ann in the accounts file"),
        ):
            self.accounts.write_text(text)
            if settled:
                os.utime(self.accounts, (0, 0))
            outcome = self.run_command("deliver", "{M}", "{A}", "Ann", stdin=MESSAGE)
            self.assertEqual(outcome.status, os.EX_TEMPFAIL, outcome.err)
            self.assertIn(says, outcome.err)
        self.assertEqual(len(self.files()), 1)

    def test_unforeseen(self) -> None:
        """A bug is one line and another try, for a mail server would return the mail."""

        class Broken(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                raise RuntimeError("out\nof order")

        self.patch(sys, "stdin", io.TextIOWrapper(Broken()))
        err = io.StringIO()
        with contextlib.redirect_stderr(err):
            status = run(["deliver", "--create", f"--maildir={self.pattern}", "ann"])
        self.assertEqual((status, err.getvalue()), (os.EX_TEMPFAIL, "Error: RuntimeError: out\\nof order\n"))
        self.assertEqual(list((self.root / "mail" / "ann" / "tmp").iterdir()), [])

    def test_interrupted(self) -> None:
        """Ctrl-C, or whatever ends it, returns no mail."""

        class Interrupted(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                raise KeyboardInterrupt

        self.patch(sys, "stdin", io.TextIOWrapper(Interrupted()))
        with contextlib.redirect_stderr(io.StringIO()):
            status = run(["deliver", "--create", f"--maildir={self.pattern}", "ann"])
        self.assertEqual(status, os.EX_TEMPFAIL)

    def test_other_commands(self) -> None:
        """They tell what kind of fault it is: nothing there but what may pass by itself is 75."""
        (self.root / "bad.toml").write_text("nonsense\n")
        for words, status in (
            (("mailbox", "list", "--config", f"{self.root}/bad.toml"), os.EX_CONFIG),
            (("mailbox", "list", "--config", f"{self.root}/none.toml"), os.EX_CONFIG),
            (("user", "list", "-a", f"{self.root}/none"), os.EX_NOINPUT),
            (("mailbox", "list", "{M}", "nobody"), os.EX_NOUSER),
            (("mailbox", "list", "--nonsense"), os.EX_USAGE),
            (("queue", "list", "--queue", f"{self.root}/none"), os.EX_NOINPUT),
        ):
            outcome = self.run_command(*words)
            self.assertEqual(outcome.status, status, (words, outcome.err))
        broken = RuntimeError("out of order")

        def fails(*args: object, **options: object) -> None:
            raise broken

        self.patch(os, "scandir", fails)
        self.patch(os, "listdir", fails)
        self.deliver()
        self.assertEqual(self.run_command("mailbox", "list", "{M}").status, os.EX_SOFTWARE)

    def test_standard_input_is_closed(self) -> None:
        """Without a standard input there is one line and another try."""
        done = self.run_process("deliver", "-c", "ann", preexec_fn=lambda: os.close(0), text=True)
        self.assertEqual(
            (done.returncode, done.stderr), (os.EX_TEMPFAIL, "Error: standard input is closed\n")
        )

    def test_as_a_process(self) -> None:
        """It works as the process that a mail server starts."""
        done = self.run_process("deliver", "--create", "ann", input=MESSAGE)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))
        self.assertEqual(self.files()[0].read_bytes(), MESSAGE)

    def test_terminal_of_another_alphabet(self) -> None:
        """Subjects with characters that the terminal has not are listed, with these escaped."""
        subject = "Subject: =?utf-8?q?=C3=BC_=E2=82=AC?=\nFrom: a@example.org\n\nx\n"
        self.deliver(subject.encode(), "ann", "--create")
        for encoding, shown in (
            ("iso-8859-1", "ü \\u20ac"),
            ("iso-8859-15", "ü €"),
            ("koi8-r", "\\xfc \\u20ac"),
        ):
            done = self.run_process("mailbox", "list", "ann", variables={"PYTHONIOENCODING": encoding})
            self.assertEqual((done.returncode, done.stderr), (0, b""))
            self.assertIn(f"a@example.org: {shown}", done.stdout.decode(encoding))

    def test_without_click(self) -> None:
        """Without click there is one line that says what to install."""
        for words, status in (((), os.EX_UNAVAILABLE), (("deliver", "ann"), os.EX_TEMPFAIL)):
            done = self.run_process(*words, before="import sys; sys.modules['click'] = None; ", text=True)
            self.assertEqual(done.returncode, status)
            self.assertEqual(done.stderr, f"pop3toy: the command line needs click: {install_hint('cli')}\n")


class StartTests(CommandTests):
    """``pop3toy deliver``: what stands before a message."""

    def test_starts(self) -> None:
        """Marks, separators and a second Return-Path go, with CRLF and with LF."""
        ours = b"Return-Path: <eve@example.org>\n"
        for text, stored in STARTS:
            # Without its CR the end of such a line is a CRLF.
            for ending in (b"\r\n", b"\n") if b"\r\r\n" not in text else (b"\r\n",):
                with self.subTest(text=text, ending=ending):
                    sent = text.replace(b"\r\n", ending)
                    self.assertEqual(self.deliver(sent, "ann", "-f", "eve@example.org").status, 0)
                    self.assertEqual(self.files()[-1].read_bytes(), ours + with_line_feeds(stored))

    def test_without_a_sender(self) -> None:
        """Where nothing is put before it a message loses marks and separators alone."""
        for text, stored in (
            (BOM + HEADER, HEADER), (b">From x\n" + HEADER, HEADER), (b"From \n" + HEADER, HEADER),
            (b"Just text\n", b"Just text\n"), (b"From now on we meet.\n", b"From now on we meet.\n"),
            (b"Return-Path: <old@example.org>\n" + HEADER, b"Return-Path: <old@example.org>\n" + HEADER),
        ):  # fmt: skip
            self.assertEqual(self.deliver(text).status, 0)
            self.assertEqual(self.files()[-1].read_bytes(), stored.replace(b"\r\n", b"\n"))

    def test_one_return_path(self) -> None:
        """A separator's sender gives way to a Return-Path; one that is given takes its place."""
        old = b"Return-Path: <old@example.org>\n"
        self.deliver(DATED + old + HEADER)
        self.assertEqual(self.files()[-1].read_bytes(), old + HEADER.replace(b"\r\n", b"\n"))
        self.deliver(old + HEADER, "ann", "-f", "<>")
        self.assertEqual(self.files()[-1].read_bytes(), b"Return-Path: <>\n" + HEADER.replace(b"\r\n", b"\n"))
        # A sender that cannot be written takes nothing's place.
        self.deliver(old + HEADER, "ann", "-f", "a\nb@x.org")
        self.assertEqual(self.files()[-1].read_bytes(), old + HEADER.replace(b"\r\n", b"\n"))

    def test_long_header(self) -> None:
        """A Return-Path that is cut where a long header is looked at no further is kept as a whole."""
        old = b"Return-Path: <old@example.org>\n\t(folded)\n"
        for at in range(len(old) + 2):
            before = b"x: " + b"y" * (MOST - at - len(b"x: \n")) + b"\n"
            self.deliver(before + old + HEADER, "ann", "-f", "<>")
            stored = self.files()[-1].read_bytes().removeprefix(b"Return-Path: <>\n" + before)
            self.assertIn(stored.removesuffix(HEADER.replace(b"\r\n", b"\n")), (b"", old))

    def test_longest_sender(self) -> None:
        """A sender of as many octets as an address may have is written, a longer one is not."""
        for octets in (limits.PATH, limits.PATH + 1):
            sender = "x" * (octets - len("@example.org")) + "@example.org"
            self.deliver(HEADER, "ann", "-f", sender)
            there = f"Return-Path: <{sender}>\n".encode() in self.files()[-1].read_bytes()
            self.assertEqual(there, octets == limits.PATH)

    def test_nothing_but_a_separator(self) -> None:
        """A separator alone is no message."""
        for text in (b"", BOM, DATED, BOM + DATED):
            self.assertEqual(self.deliver(text).status, os.EX_DATAERR)


class QuotaTests(SynchronousTestCase):
    """What a quota means."""

    def test_quota(self) -> None:
        """Quotas are octets with K, M, G or T, or none."""
        for text, octets in (
            ("0", 0), ("1000", 1000), ("2K", 2048), ("3m", 3 << 20), ("4G", 4 << 30), ("5 TiB", 5 << 40),
            ("6MB", 6 << 20), ("none", None),
        ):  # fmt: skip
            self.assertEqual(parse_quota(text), octets)
        for text in ("", "-1", "1.5G", "lots", "5X", "K"):
            self.assertRaises(ValueError, parse_quota, text)

    def test_of_accounts(self) -> None:
        """An account says its quota, or has the default; what is no quota keeps mail waiting."""

        class Account(NamedTuple):
            settings: dict[str, str]

        accounts = {"ann": Account({"quota": "1K"}), "bob": Account({}), "cat": Account({"quota": "lots"})}
        for later in (False, True):
            find: Any = (lambda user: succeed(accounts.get(user))) if later else accounts.get
            quota = quota_of(find, default=7)
            for user, octets in (("ann", 1024), ("bob", 7), ("nobody", 7)):
                self.assertEqual(self.successResultOf(maybeDeferred(quota, user)), octets)
            self.failureResultOf(maybeDeferred(quota, "cat"), StoreTrouble)
