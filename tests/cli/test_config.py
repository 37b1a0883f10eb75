"""``pop3toy config``, and ``--config`` for the other commands: one file for the server and for them."""

from __future__ import annotations

import json
import os
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pop3toy.config import toml
from pop3toy.config.table import OPTIONS, settings_of
from pop3toy.errors import CannotStart
from pop3toy.option import FLAG, Option, options_of
from pop3toy.stores.registry import STORES
from tests.cli_world import MESSAGE, CliRunner, CommandTests, Outcome, pop3toy

#: What must not be shown.
SECRET = "hunter2"


class FileTests(CommandTests):
    """A file of options beside accounts and Maildirs."""

    def setUp(self) -> None:
        super().setUp()
        self.file = self.root / "pop3toy.toml"
        self.accounts.write_text("ann:{PLAIN}x\n")
        self.accounts.chmod(0o600)
        for name in ("POP3TOY_CONFIG", "POP3TOY_ACCOUNTS", "POP3TOY_MAILDIR"):
            self.patch(os, "environ", {key: value for key, value in os.environ.items() if key != name})

    def write(self, *lines: str, store: str = 'maildir = "mail/{user}"', accounts: str = "accounts") -> None:
        """Write the file: a server of the Maildirs and accounts here, and these lines behind."""
        more = "\n".join(lines)
        self.file.write_text(f'[store]\n{store}\n[accounts]\naccounts = "{accounts}"\n{more}\n')

    def command(self, *words: str, stdin: bytes = b"") -> Outcome:
        """Run a command with the file."""
        *command, last = words
        return self.run_command(*command, f"--config={self.file}", last, stdin=stdin)


class CheckTests(FileTests):
    """``pop3toy config check``."""

    def check(self) -> Outcome:
        """Check the file."""
        return self.run_command("config", "check", str(self.file))

    def refused(self) -> str:
        """The line that a file is refused with."""
        outcome = self.check()
        self.assertEqual((outcome.status, outcome.out), (os.EX_CONFIG, ""))
        self.assertRegex(outcome.err, r"\AError: .*\n\Z")
        return outcome.err.removeprefix("Error: ").removesuffix("\n").replace(str(self.root), "HERE")

    def test_right(self) -> None:
        """A file that a server would start with is right."""
        self.write()
        outcome = self.check()
        self.assertEqual((outcome.status, outcome.err), (0, ""))
        self.assertTrue(outcome.out.endswith(f"\n{self.file} is right\n"), outcome.out)

    def test_mistakes(self) -> None:
        """What is wrong in it, or with a file or folder that it names, is one line with its place."""
        (self.root / "bad-aliases").write_text("nonsense\n")
        (self.root / "certificate.pem").write_text("nonsense\n")
        for lines, says in (
            (
                ["[limits]", "login-dely = 3"],
                "login-dely: there is no such option; did you mean login-delay?",
            ),
            (["[limits]", "login-delay = -1"], "[limits] login-delay is a number from 0 to 86400"),
            (["[pop3]", "tls-port = 995"], "[pop3] tls-port needs [tls] certificate"),
            (["[pop3]", 'listen = ["tcp:x"]'], "[pop3] listen tcp:x: this endpoint cannot be read"),
            (["[mail]", 'lmtp = ["tcp:24"]', 'aliases = "no"'], "[mail] aliases: there is no file HERE/no"),
            (["[mail]", 'lmtp = ["tcp:24"]', 'aliases = "bad-aliases"'], "[mail] aliases HERE/bad-aliases: "),
            (["[mail]", 'lmtp = ["tcp:24"]', 'catch-all = "eve"'], "[mail] catch-all eve: there is no such"),
            (["[tls]", 'certificate = "certificate.pem"'], "HERE/certificate.pem"),
            (['auth = ["nonsense:x"]'], "[accounts] auth nonsense: "),
            (["[pop3]", 'transcript = "missing/t"'], "[pop3] transcript: cannot write to HERE/missing/t"),
        ):
            with self.subTest(lines=lines):
                self.write(*lines)
                self.assertIn(says, self.refused())
        self.write(store='maildir = "missing/{user}"')
        self.assertIn("[store] maildir: there is no folder HERE/missing", self.refused())
        self.write(accounts="missing")
        self.assertIn("[accounts] accounts: there is no file HERE/missing", self.refused())
        self.file.write_text('[store]\nmessage = ["missing.eml"]\n')
        self.assertIn("[store] message: there is no file HERE/missing.eml", self.refused())
        self.file.write_text('[store]\nmaildir = "mail/{user}"\n')
        self.assertIn("who may log in?", self.refused())
        self.file.unlink()
        self.assertIn("no such file or directory", self.refused())

    def test_nothing_is_changed(self) -> None:
        """A certificate of the server's own is not made yet, nor a Maildir, a socket or a transcript."""
        self.write(
            "[tls]", "self-signed = true", "[pop3]", "tls-port = 995", 'transcript = "transcript"',
            f'listen = ["unix:{self.root}/socket", "systemd:domain=INET:index=0"]',
            "[mail]", "smtp-port = 25",
            store='maildir = "mail/{user}"\ncreate = true',
        )  # fmt: skip
        self.patch(os, "environ", {**os.environ, "XDG_DATA_HOME": str(self.root)})
        before = sorted(self.root.rglob("*"))
        outcome = self.check()
        self.assertEqual(outcome.status, 0, outcome.err)
        self.assertEqual(sorted(self.root.rglob("*")), before)

    def test_warnings(self) -> None:
        """What the server would warn of is told, in one line each, and is no mistake."""
        self.accounts.write_text("ann:{PLAIN}x\nbob:{NOPE}y\n")
        self.write()
        outcome = self.check()
        self.assertEqual(outcome.status, 0)
        self.assertRegex(outcome.err, r"\AWarning: [^\n]*line 2[^\n]*\n")
        self.assertNotIn("x", outcome.err.replace(str(self.root), "").partition("line 2")[0])


class ShowTests(FileTests):
    """``pop3toy config show``."""

    def show(self) -> str:
        """What is shown of the file."""
        outcome = self.run_command("config", "show", f"--config={self.file}")
        self.assertEqual((outcome.status, outcome.err), (0, ""))
        return outcome.out

    def test_origins(self) -> None:
        """Each option of the server is there, with its value and where that comes from."""
        self.write("[limits]", "login-delay = 0")
        lines = self.show().splitlines()
        for line in (
            f'maildir = "{self.pattern}"  # {self.file}', f'accounts = "{self.accounts}"  # {self.file}',
            f"login-delay = 0  # {self.file}", "port = 2590  # default", "lock-wait = 5  # default",
            "create = false  # default", "# tls-port is not set", "listen = []  # default",
            "# max-connections is not set; the default is 4096",
            "# max-per-address is not set; the default is 64, and any number from loopback",
            "# max-per-user is not set; the default is 10",
            "# max-message-size is not set; the default is 52428800",
        ):  # fmt: skip
            self.assertIn(line, lines)
        shown = {line.removeprefix("# ").split(" ")[0] for line in lines if line and line[0] != "["}
        # Those of the other kinds of store are in force nowhere.
        others = {one.name for kind in STORES if kind.key != "maildir" for one in options_of(kind.settings)}
        self.assertEqual(shown, {name for name in OPTIONS if name == "create" or name not in others})

    def test_toy(self) -> None:
        """Without a file the toy's options are shown, and they are a file of the toy."""
        outcome = self.run_command("config", "show")
        self.assertEqual((outcome.status, outcome.err), (0, ""))
        self.file.write_text(outcome.out)
        self.assertEqual(settings_of(toml.read(str(self.file))), settings_of({}))
        self.assertEqual(self.run_command("config", "check", str(self.file)).status, 0)

    def test_what_the_server_does(self) -> None:
        """It is told what the server does where nothing is set, and what is set for nothing."""
        toy = self.run_command("config", "show").out.splitlines()
        self.write("[pop3]", 'listen = ["tcp:2590"]', "port = 995")
        real = self.show().splitlines()
        self.write("[pop3]", 'listen = ["tcp:2590"]', "[mail]", "smtp-port = 25", 'domain = ["x.org"]')
        mail = self.show().splitlines()
        for lines, line in (
            (toy, "# transcript is not set; the default is -"),
            (toy, "# domain is not set; the default is localhost; mail for any domain is taken"),
            (toy, "# user is not set; the default is the built-in one, which everybody knows"),
            (toy, "port = 2590  # default"),
            (real, "# transcript is not set; the default is off"),
            (real, "# domain is not set; the default is localhost"),
            (real, "user = []  # default"),
            (real, f"port = 995  # {self.file}; not used: listen is set"),
            (real, 'interface = "127.0.0.1"  # default; not used: listen is set'),
            (mail, 'interface = "127.0.0.1"  # default'),
            (mail, f'domain = ["x.org"]  # {self.file}'),
        ):
            self.assertIn(line, lines)

    def test_accepted_again(self) -> None:
        """What is shown means the same and is right, wherever it lies; passwords are masked."""
        (self.root / "passwords").write_text(f"dan:{SECRET}\n")
        (self.root / 'quote" back\\slash \u00fc \u007f\t').write_text("")
        self.write(
            f'user = ["bob:{SECRET}", "eve:{SECRET}:{SECRET}"]',
            f'auth = ["memory:cat:{SECRET}:fay:{SECRET}", "file:{self.root}/passwords"]',
            'mechanisms = "USER,apop,scram-sha-256"', "[limits]", 'trusted = ["192.0.2.0/24"]',
            "[mail]", "smtp-port = 25", r'aliases = "quote\" back\\slash \u00fc \u007f\t"',
            'lmtp = ["tcp:24"]', "[workers]", 'workers = "auto"', "[tls]", "self-signed = true",
        )  # fmt: skip
        shown = self.show()
        self.assertNotIn(SECRET, shown)
        self.assertNotIn("\x7f", shown)
        for masked in (
            '"bob:****", "eve:****"', f'"memory:cat:****:fay:****", "file:{self.root}/passwords"',
        ):  # fmt: skip
            self.assertIn(masked, shown)
        elsewhere = self.root / "elsewhere"
        elsewhere.mkdir()
        again = elsewhere / "again.toml"
        again.write_text(shown)
        outcome = self.run_command("config", "check", str(again))
        self.assertEqual(outcome.status, 0, outcome.err)
        masked_before = {
            **toml.read(str(self.file)),
            "user": ["bob:****", "eve:****"],
            "auth": ["memory:cat:****:fay:****", f"file:{self.root}/passwords"],
        }
        self.assertEqual(settings_of(toml.read(str(again))), settings_of(masked_before))

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_any_options(self, data: st.DataObject) -> None:
        """Whatever options a file has, what is shown of it means the same."""
        base = {"maildir": "/srv/{user}", "accounts": "/etc/a"} if data.draw(st.booleans()) else {}
        chosen = data.draw(st.sets(st.sampled_from(sorted(set(OPTIONS) - {"user", "auth", *base}))))
        values = {**{name: data.draw(_value(OPTIONS[name])) for name in chosen}, **base}
        with tempfile.TemporaryDirectory() as folder:
            file, again = Path(folder) / "one.toml", Path(folder) / "two.toml"
            file.write_text(_as_toml(values))
            try:
                meant = settings_of(toml.read(str(file)))
                meant.check_whole()
            except CannotStart:
                return
            outcome = self.run_command("config", "show", f"--config={file}")
            self.assertEqual((outcome.status, outcome.err), (0, ""))
            again.write_text(outcome.out)
            self.assertEqual(settings_of(toml.read(str(again))), meant)

    def test_other_secrets(self) -> None:
        """What describes a checker that nobody knows is masked, and so is a password in a URL."""
        self.write(
            f'auth = ["ldap:host=x:password={SECRET}"]', f'introspection = "https://me:{SECRET}@x.org/a"'
        )
        shown = self.show()
        self.assertNotIn(SECRET, shown)
        self.assertIn('auth = ["ldap:****"]', shown)
        self.assertIn('introspection = "https://****@x.org/a"', shown)

    def test_mistake(self) -> None:
        """A file that is wrong is not shown; one line says what is wrong, and holds no password."""
        self.write(f'user = ["{SECRET}"]')
        outcome = self.run_command("config", "show", f"--config={self.file}")
        self.assertEqual((outcome.status, outcome.out), (os.EX_CONFIG, ""))
        self.assertIn("[accounts] user: an account is written NAME:PASSWORD", outcome.err)
        self.assertNotIn(SECRET, outcome.err)

    def test_environment(self) -> None:
        """The file can stand in the environment."""
        self.write()
        self.patch(os, "environ", {**os.environ, "POP3TOY_CONFIG": str(self.file)})
        self.assertIn(f"# {self.file}", self.run_command("config", "show").out)


class WhichFileTests(FileTests):
    """Commands that look at a file take it in each way in which the others take one."""

    def test_ways(self) -> None:
        """As an argument, by --config there or before, and by the environment, before which the others go."""
        self.write()
        other = self.root / "other.toml"
        other.write_text("[pop3]\nport = -1\n")
        file, option = str(self.file), f"--config={self.file}"
        for command in ("check", "show"):
            for words in (
                ["config", command, file],
                ["config", command, option],
                [option, "config", command],
                [option, "config", command, file, option],
            ):
                with self.subTest(words=words):
                    self.patch(os, "environ", {**os.environ, "POP3TOY_CONFIG": str(other)})
                    outcome = self.run_command(*words)
                    self.assertEqual((outcome.status, outcome.err), (0, ""))
                    self.assertIn(file, outcome.out)
            self.patch(os, "environ", {**os.environ, "POP3TOY_CONFIG": file})
            outcome = self.run_command("config", command)
            self.assertEqual((outcome.status, outcome.err), (0, ""))
            self.assertIn(file, outcome.out)

    def test_two(self) -> None:
        """Two different ones are a mistake, and so is none where there has to be one."""
        self.write()
        other = str(self.root / "other.toml")
        for command in ("check", "show"):
            for words in (
                ["config", command, str(self.file), "--config", other],
                ["--config", other, "config", command, str(self.file)],
            ):
                outcome = self.run_command(*words)
                self.assertEqual((outcome.status, outcome.out), (os.EX_USAGE, ""))
                self.assertEqual(
                    outcome.err.splitlines()[0],
                    f"Error: FILE is {self.file} and --config is {other}: which one?",
                )
        outcome = self.run_command("config", "check")
        self.assertEqual((outcome.status, outcome.out), (os.EX_USAGE, ""))
        self.assertIn("Error: Which file? FILE, --config FILE or POP3TOY_CONFIG says it.\n", outcome.err)


def _value(one: Option) -> st.SearchStrategy[Any]:
    """Values for an option, right and wrong ones; text with all that has to be escaped."""
    text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
    single = st.just(True) if one.kind is FLAG else st.integers(0, 2000) if int in one.kind.types else text
    if one.name in ("domain", "hostname"):
        single = st.sampled_from(["example.org", "mail.example.org"])
    return st.lists(single, max_size=2) if one.many else single


def _as_toml(values: dict[str, Any]) -> str:
    """A file in which each option has a table of its own, so to speak."""
    lines = []
    for table in dict.fromkeys(OPTIONS[name].table for name in values):
        lines.append(f"[{table}]")
        for name in values:
            if OPTIONS[name].table == table:
                lines.append(
                    f"{name} = {json.dumps(values[name], ensure_ascii=False)}".replace("\x7f", "\\u007f")
                )
    text = "\n".join(lines) + "\n"
    tomllib.loads(text)
    return text


class CommandsTests(FileTests):
    """The other commands read the file that the server reads."""

    def test_all_commands(self) -> None:
        """With the file no command needs to be told where accounts and mail are."""
        self.write()
        (self.root / "a.eml").write_bytes(MESSAGE)
        for words, stdin, says in (
            (("user", "add", "--stdin", "bob"), b"x\n", "User bob is in"),
            (("user", "quota", "bob"), b"", "none"),
            (("user", "passwd", "--stdin", "bob"), b"y\n", "has a new password"),
            (("deliver", "--create", "bob"), MESSAGE, ""),
            (("mailbox", "import", "--create", "ann", f"{self.root}/a.eml"), b"", "1 imported"),
            (("mailbox", "list", "bob"), b"", "Eve <eve@example.org>"),
            (("mailbox", "show", "bob", "1"), b"", "hello"),
            (("mailbox", "check", "bob"), b"", ""),
            (("mailbox", "export", "bob", "-"), b"", "From eve@example.org"),
            (("mailbox", "remove", "--yes", "bob"), b"", "is gone"),
            (("user", "del", "--yes", "bob"), b"", "is gone"),
        ):
            with self.subTest(words=words):
                outcome = self.command(*words, stdin=stdin)
                self.assertEqual(outcome.status, 0, outcome.err)
                self.assertIn(says, outcome.out)
        self.assertNotIn("bob", self.accounts.read_text())
        self.assertEqual(len(self.files("ann")), 1)

    def test_command_line_wins(self) -> None:
        """An option, or its variable, goes before the file, also where the file has another kind of store."""
        self.deliver()
        (self.root / "other").write_text("zoe:{PLAIN}x\n")
        for store in ('maildir = "elsewhere/{user}"', "message = []"):
            self.file.write_text(f'[store]\n{store}\n[accounts]\naccounts = "accounts"\n')
            listed = self.command("mailbox", "list", "{M}", "ann")
            self.assertEqual(listed.status, 0, listed.err)
        self.assertIn("zoe", self.command("user", "list", f"--accounts={self.root}/other").out)
        self.patch(os, "environ", {**os.environ, "POP3TOY_MAILDIR": self.pattern})
        self.assertEqual(self.command("mailbox", "list", "ann").status, 0)

    def test_where_it_is_said(self) -> None:
        """The file is named behind a command or before it, or by the environment, in that order."""
        self.write()
        wrong = str(self.root / "missing.toml")
        for before, behind, variable, status in (
            (None, None, self.file, 0), (self.file, None, wrong, 0), (wrong, self.file, wrong, 0),
            (self.file, wrong, self.file, os.EX_CONFIG), (None, self.file, wrong, 0),
            (wrong, None, self.file, os.EX_CONFIG),
        ):  # fmt: skip
            self.patch(os, "environ", {**os.environ, "POP3TOY_CONFIG": str(variable)})
            words = [f"--config={before}"] * bool(before) + ["user", "list"]
            done = self.run_command(*words, *([f"--config={behind}"] * bool(behind)))
            self.assertEqual(done.status, status, (before, behind, variable, done.err))

    def test_missing(self) -> None:
        """What neither the command line nor the file says is told with how to say it."""
        for words, option, missing in (
            (("mailbox", "list"), "--maildir", r"\[store\] maildir or \[store\] store"),
            (("user", "list"), "--accounts", r"\[accounts\] accounts"),
        ):
            done = self.run_command(*words)
            self.assertEqual(done.status, os.EX_USAGE)
            self.assertIn(option, done.err)
            self.assertIn("--config", done.err)
            self.file.write_text("[limits]\nlogin-delay = 3\n")
            done = self.run_command(*words, f"--config={self.file}")
            self.assertEqual(done.status, os.EX_CONFIG)
            self.assertRegex(done.err, rf"\AError: {self.file}: {missing} is missing.*\n\Z")

    def test_mistakes(self) -> None:
        """A mistake in the file is one line with its place, and status 78; of ``deliver`` 75: mail waits."""
        (self.root / "latin").write_bytes(b"\xff")
        for text, says in (
            ("[store]\nmaildr = 1\n", "[store] maildr: there is no such option; did you mean maildir?"),
            ("[store]\nmaildir = 'm/{usr}'\n", "[store] maildir needs {user} in its path"),
            ("[store\n", "this is not TOML"), ("[limits]\nlogin-delay = -1\n", "[limits] login-delay is a"),
            ("", "[store] maildir or [store] store is missing"),
            ('[store]\n"a\\nb\\u001b" = 1\n', "[store] a\\nb\\x1b: there is no"),
        ):  # fmt: skip
            self.file.write_text(text)
            for words, status in (
                (("mailbox", "list", "ann"), os.EX_CONFIG), (("mailbox", "remove", "ann"), os.EX_CONFIG),
                (("deliver", "ann"), os.EX_TEMPFAIL),
            ):  # fmt: skip
                done = self.command(*words, stdin=MESSAGE)
                self.assertEqual(done.status, status, done.err)
                self.assertRegex(done.err, rf"\AError: {self.file}: .*\n\Z")
                self.assertIn(says, done.err)
        for path in ("latin", "missing", "."):
            done = self.run_command("deliver", f"--config={self.root}/{path}", "ann", stdin=MESSAGE)
            self.assertEqual((done.status, done.err.count("\n")), (os.EX_TEMPFAIL, 1), done.err)
        # A path that cannot be is the administrator's to mend, also on the command line.
        done = self.run_command("deliver", "--maildir=/srv/{usr}", "ann", stdin=MESSAGE)
        self.assertEqual(done.status, os.EX_TEMPFAIL)
        self.assertEqual(self.run_command("mailbox", "list", "--maildir=/srv/{usr}").status, os.EX_USAGE)

    def test_create_as_the_server_does(self) -> None:
        """Where the server makes missing Maildirs so do ``deliver`` and ``import``, and for users alone."""
        (self.root / "a.eml").write_bytes(MESSAGE)
        for create, status in (("false", os.EX_TEMPFAIL), ("true", os.EX_OK)):
            self.write('user = ["bob:x"]', store=f'maildir = "mail/{{user}}"\ncreate = {create}')
            for user in ("ann", "bob"):
                self.assertEqual(self.command("deliver", user, stdin=MESSAGE).status, status)
            os.utime(self.accounts, (0, 0))
            self.assertEqual(self.command("deliver", "eve", stdin=MESSAGE).status, os.EX_NOUSER)
        self.accounts.write_text("ann:{PLAIN}x\ncat:{PLAIN}x\n")
        for user, status in (("cat", os.EX_OK), ("eve", os.EX_NOUSER)):
            done = self.command("mailbox", "import", user, f"{self.root}/a.eml")
            self.assertEqual(done.status, status, done.err)
        self.assertEqual(sorted(os.listdir(self.root / "mail")), ["ann", "bob", "cat"])

    def test_users_of_the_file(self) -> None:
        """A user whom the file names itself may have a mailbox made, however the name is spelled."""
        self.write('user = ["Bob:x"]')
        self.assertEqual(self.command("deliver", "--create", "bob", stdin=MESSAGE).status, 0)
        self.assertEqual(len(self.files("Bob")), 1)
        os.utime(self.accounts, (0, 0))
        self.assertEqual(self.command("deliver", "--create", "bobb", stdin=MESSAGE).status, os.EX_NOUSER)

    def test_quota(self) -> None:
        """Quotas of the file's accounts hold for deliver, and are shown."""
        self.accounts.write_text("ann:{PLAIN}x:quota=200\n")
        self.write()
        self.assertEqual(self.command("deliver", "--create", "ann", stdin=MESSAGE).status, 0)
        self.assertEqual(self.command("deliver", "ann", stdin=MESSAGE + b"x" * 150).status, os.EX_UNAVAILABLE)
        self.assertIn("% of 200 used", self.command("mailbox", "list", "ann").out)

    def test_completion(self) -> None:
        """Users are completed from the file's accounts."""
        self.write()
        environment = {
            "_POP3TOY_COMPLETE": "bash_complete", "COMP_WORDS": "pop3toy mailbox show a", "COMP_CWORD": "3",
            "POP3TOY_CONFIG": str(self.file),
        }  # fmt: skip
        completed = CliRunner().invoke(pop3toy, env=environment, prog_name="pop3toy")
        self.assertEqual(completed.output, "plain,ann\n")
        self.file.write_text("nonsense")
        completed = CliRunner().invoke(pop3toy, env=environment, prog_name="pop3toy")
        self.assertEqual((completed.exit_code, completed.output.strip()), (0, ""))
