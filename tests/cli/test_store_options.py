"""How commands are told which store: options, variables and a file, and which of them wins."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
from click.testing import CliRunner

from pop3toy.cli.options import Failed, with_settings
from pop3toy.config.settings import Settings
from pop3toy.stores.registry import Maildirs, Objects

from ..cli_world import CommandTests
from ..stores.objects.fake_s3 import FakeS3

_VARIABLES = ("POP3TOY_CONFIG", "POP3TOY_ACCOUNTS", "POP3TOY_MAILDIR")
_OF_OBJECTS = ("STORE", "STORE_ENDPOINT", "STORE_CREDENTIALS", "STORE_REGION")


class StoreOptionTests(CommandTests):
    """A command that takes a store."""

    def setUp(self) -> None:
        super().setUp()
        ours = {*_VARIABLES, *(f"POP3TOY_{name}" for name in _OF_OBJECTS)}
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in ours and not name.startswith("AWS_")
        }
        self.patch(os, "environ", kept)
        self.found: list[Settings] = []

        @click.command()
        @with_settings(store=True)
        def command(settings: Settings) -> None:
            self.found.append(settings)

        self.command: Callable[..., object] = command

    def store(self, *words: str, **variables: str) -> object:
        """The store that the command is given."""
        os.environ.update({f"POP3TOY_{name}": value for name, value in variables.items()})
        done = CliRunner().invoke(self.command, words)  # type: ignore[arg-type]
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return self.found.pop().store if self.found else done.output

    def file(self, text: str) -> str:
        """A file of options."""
        path = Path(self.root) / "pop3toy.toml"
        path.write_text(text)
        return f"--config={path}"

    def test_options(self) -> None:
        """All that it takes to find an object store is said by options, or by variables."""
        store = Objects("s3://mail", endpoint="http://127.0.0.1:1", credentials="/c", region="eu")
        words = ("--store=s3://mail", "--store-endpoint=http://127.0.0.1:1")
        self.assertEqual(self.store(*words, "--store-credentials=/c", "--store-region=eu"), store)
        values = ("s3://mail", "http://127.0.0.1:1", "/c", "eu")
        self.assertEqual(self.store(**dict(zip(_OF_OBJECTS, values, strict=True))), store)

    def test_option_before_variables(self) -> None:
        """A store that an option chooses takes the place of one that variables choose, whole."""
        variables = {"STORE": "s3://mail", "STORE_ENDPOINT": "http://127.0.0.1:1"}
        self.assertEqual(self.store("--maildir=/x/{user}", **variables), Maildirs("/x/{user}"))
        self.assertEqual(self.store("--store=s3://post"), Objects("s3://post", endpoint="http://127.0.0.1:1"))
        del os.environ["POP3TOY_STORE"], os.environ["POP3TOY_STORE_ENDPOINT"]
        self.assertEqual(self.store("--store=s3://mail", MAILDIR="/x/{user}"), Objects("s3://mail"))

    def test_variables_before_file(self) -> None:
        """A store that variables choose takes the place of the file's."""
        file = self.file('[store]\nmaildir = "/x/{user}"\nmax-listed-size = 1\n')
        self.assertEqual(self.store(file, STORE="s3://mail"), Objects("s3://mail"))

    def test_rest_from_file(self) -> None:
        """What an option does not say of a store the file says, also what no option of commands can."""
        file = self.file('[store]\nstore = "s3://mail"\nstore-bucket = ["more"]\nstore-node = "one"\n')
        store = Objects("s3://mail", endpoint="http://127.0.0.1:1", node="one", buckets=("more",))
        self.assertEqual(self.store(file, "--store-endpoint=http://127.0.0.1:1"), store)

    def test_missing(self) -> None:
        """Without a store the line names both options, and the file."""
        said = " ".join(str(self.store()).split())
        self.assertIn(
            "Missing option '-m' / '--maildir' (env var: 'POP3TOY_MAILDIR')"
            " or '--store' (env var: 'POP3TOY_STORE'). A file for --config can",
            said,
        )
        why = self.assertRaises(Failed, self.store, self.file(""))
        self.assertIn("[store] maildir or [store] store is missing, and no option is given for it", str(why))

    def test_refused(self) -> None:
        """What cannot be is told with the option that says it."""
        for words, says in (
            (["--store=mail"], "--store is an address such as s3://BUCKET"),
            (["--store=memory://x"], "Invalid value for --store: memory:// is in one process alone"),
            (["--store=s3://mail", "--maildir=/x/{user}"], "which --maildir replaces"),
            (["--maildir=/x/{user}", "--store-region=eu"], "for object storage, which --maildir replaces"),
        ):
            self.assertIn(says, " ".join(str(self.store(*words)).split()), words)

    def test_no_credentials(self) -> None:
        """Each command tells that credentials are missing, in one line; nothing is asked on the network."""
        for words, status in (
            (("mailbox", "list"), os.EX_CONFIG),
            (("mailbox", "show", "ann", "1"), os.EX_CONFIG),
            # A mail server tries again.
            (("deliver", "ann"), os.EX_TEMPFAIL),
        ):
            done = self.run_command(*words, "--store=s3://mail", stdin=b"x")
            [line] = [one for one in done.err.splitlines() if one.startswith("Error")]
            self.assertIn("s3:// needs credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", line)
            self.assertIn(done.status, (status, os.EX_USAGE), words)

    def test_config(self) -> None:
        """``config check`` sees that credentials are there, ``config show`` what is in force."""
        lines = '[store]\nstore = "s3://mail"\nstore-credentials = "c"\n[accounts]\nuser = ["ann:x"]\n'
        file = self.file(lines).partition("=")[2]
        done = self.run_command("config", "check", file)
        self.assertEqual(done.status, os.EX_CONFIG)
        self.assertIn(f"{file}: [store] store-credentials", done.err)
        credentials = self.root / "c"
        credentials.touch(0o600)
        credentials.write_text("AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=hunter2\n")
        self.assertEqual(self.run_command("config", "check", file).status, 0)
        shown = self.run_command("config", "show", f"--config={file}").out
        self.assertIn(f'store = "s3://mail"  # {file}\n', shown)
        self.assertIn("create = false  # default\n", shown)
        self.assertIn("# store-node is not set\n", shown)
        self.assertNotIn("maildir", shown)
        self.assertNotIn("hunter2", shown)


class OneLineTests(CommandTests):
    """What a user sees of a store that cannot be used."""

    def test_unfit(self) -> None:
        """One line, though the server would log it as well."""
        fake = FakeS3(clock=time.time)
        self.addCleanup(fake.close)
        credentials = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
        words = ["mailbox", "list", "--store=s3://nobody", f"--store-endpoint={fake.url}"]
        code = "from pop3toy.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, env=os.environ | credentials
        )
        self.assertEqual((done.returncode, done.stdout), (os.EX_TEMPFAIL, ""))
        self.assertEqual(done.stderr, "Error: object storage: there is no such bucket\n")
