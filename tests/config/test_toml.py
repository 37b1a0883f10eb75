"""A file of options: what it says is what the command line would, and each mistake has its place."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.config.cmdline import Options
from pop3toy.config.reference import reference
from pop3toy.config.settings import TLS, Limits, Settings
from pop3toy.config.table import OPTIONS, TABLES, settings_of
from pop3toy.errors import BadSetting, CannotStart
from pop3toy.option import FLAG, Option, options_of
from pop3toy.stores.registry import STORES, Maildirs, Objects, Toy

ROOT = Path(__file__).parent.parent.parent

#: A value for each option that cannot be any text; others take "x".
SAMPLES = {
    "user": "ann:secret",
    "mechanisms": "USER,PLAIN",
    "trusted": "192.0.2.0/24",
    "workers": 2,
    "store": "s3://mail",
    "store-endpoint": "http://127.0.0.1:7480",
    "store-bucket": "more",
    "domain": "example.org",
    "hostname": "mail.example.org",
    "interface": "127.0.0.9",
    "lmtp": "tcp:24",
    "max-message-size": 5000,
}


def sample(one: Option) -> Any:
    """What could be said for an option in a file."""
    if one.kind is FLAG:
        return True
    value = SAMPLES.get(one.name, 7 if one.kind.types == (int,) else "/x" if one.kind.path else "x")
    return [value, value] if one.many and one.name != "user" else [value] if one.many else value


class FileCase(SynchronousTestCase):
    """A folder for files of options."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.file = self.folder / "pop3toy.toml"

    def parsed(self, text: str, *arguments: str) -> Settings:
        """What a file and the command line mean together."""
        self.file.write_text(text)
        options = Options()
        options.parseOptions([f"--config={self.file}", *arguments])
        return options.settings

    def refused(self, text: str, *arguments: str) -> str:
        """The line that tells what is wrong with them, behind the name of the file."""
        error = str(self.assertRaises(UsageError, self.parsed, text, *arguments))
        self.assertEqual(len(error.splitlines()), 1)
        self.assertTrue(error.startswith(f"{self.file}: "), error)
        return error.removeprefix(f"{self.file}: ")


class ReadTests(FileCase):
    """What stands in the file is what is meant."""

    def test_every_option(self) -> None:
        """Each option means the same in a file and on the command line."""
        for name, one in OPTIONS.items():
            value = sample(one)
            words = [f"--{name}"] if value is True else [f"--{name}={each}" for each in _list(value)]
            # What does not go together is told in the same words; else the settings are the same.
            outcomes: list[object] = []
            for text, arguments in ((f"[{one.table}]\n{name} = {json.dumps(value)}\n", []), ("", words)):
                try:
                    outcomes.append(self.parsed(text, *arguments))
                except UsageError as error:
                    # Each names options as it has them.
                    said = str(error).replace(f"{self.file}: ", "")
                    outcomes.append(re.sub(r'--|\[\w+\] |(?<=[a-z]) (?:[A-Z]{2,}\b|-(?!-)|= "-")', "", said))
            self.assertEqual(outcomes[0], outcomes[1], name)
            self.assertNotEqual(outcomes[0], Settings(), name)

    def test_command_line_wins(self) -> None:
        """What the command line says takes the place of what the file says, lists and flags too."""
        text = '[pop3]\nport = 1\nlisten = ["tcp:1"]\n[accounts]\nallow-cleartext = true\n'
        settings = self.parsed(text, "--port=2", "--listen=tcp:3", "--no-allow-cleartext")
        self.assertEqual((settings.port, settings.listen, settings.allow_cleartext), (2, ("tcp:3",), False))
        settings = self.parsed(text)
        self.assertEqual((settings.port, settings.listen, settings.allow_cleartext), (1, ("tcp:1",), True))

    def test_command_line_store_wins(self) -> None:
        """A store that the command line chooses takes the place of the file's, with all that it says."""
        settings = self.parsed('[store]\nmessage = ["x.eml"]\n', "--maildir=/x/{user}", "--user=ann:x")
        self.assertEqual(settings.store, Maildirs("/x/{user}"))
        settings = self.parsed(
            '[store]\nmaildir = "/x/{user}"\ncreate = true\n', "--maildir=/y/{user}", "--user=ann:x"
        )
        self.assertEqual(settings.store, Maildirs("/y/{user}", create=True))

    def test_option_of_two_kinds(self) -> None:
        """``create`` is said of the store that is chosen, and goes with the one that is replaced."""
        accounts = '[accounts]\nuser = ["ann:x"]\n'
        objects = f'[store]\nstore = "s3://mail"\ncreate = true\n{accounts}'
        maildirs = f'[store]\nmaildir = "/x/{{user}}"\ncreate = true\nmax-listed-size = 1\n{accounts}'
        self.assertEqual(self.parsed(objects).store, Objects("s3://mail", create=True))
        for text, words, store in (
            (objects, ["--maildir=/x/{user}"], Maildirs("/x/{user}")),
            (objects, ["--store=s3://post"], Objects("s3://post", create=True)),
            (maildirs, ["--store=s3://mail"], Objects("s3://mail")),
            (maildirs, ["--store=s3://mail", "--create"], Objects("s3://mail", create=True)),
            (f"[store]\ncreate = true\n{accounts}", ["--store=s3://mail"], Objects("s3://mail", create=True)),
        ):
            self.assertEqual(self.parsed(text, *words).store, store, (text, words))

    def test_paths(self) -> None:
        """A relative path is taken from the file's folder; ``-``, ``off`` and a home are no such paths."""
        settings = self.parsed(
            '[store]\nmaildir = "mail/{user}"\n[accounts]\naccounts = "a"\n[pop3]\ntranscript = "t"\n'
        )
        self.assertEqual(settings.store, Maildirs(f"{self.folder}/mail/{{user}}"))
        self.assertEqual(settings.accounts, str(self.folder / "a"))
        self.assertEqual(settings.transcript, str(self.folder / "t"))
        self.assertEqual(self.parsed('[pop3]\ntranscript = "off"\n').transcript, "off")
        home = self.parsed('[store]\nmaildir = "~/Maildir"\n[accounts]\nuser = ["ann:x"]\n')
        self.assertEqual(home.store, Maildirs("~/Maildir"))

    def test_empty(self) -> None:
        """An empty file is the toy."""
        self.assertEqual(self.parsed(""), Settings())


class MistakeTests(FileCase):
    """Each mistake is one line: the file, the table, the key, and the nearest right one."""

    def test_unknown(self) -> None:
        """Tables and keys that do not exist, with what may have been meant."""
        self.assertEqual(
            self.refused("[pop]\nport = 1\n"),
            f"there is no table [pop]; did you mean pop3?; there are {', '.join(TABLES)}",
        )
        self.assertEqual(
            self.refused("[limits]\nlogin_dely = 1\n"),
            "[limits] login_dely: there is no such option; did you mean login-delay?",
        )
        self.assertEqual(
            self.refused("[pop3]\nmaildir = '/x'\n"), "[pop3] maildir: this belongs into the table [store]"
        )
        self.assertEqual(self.refused("port = 1\n"), "port belongs into the table [pop3]")
        self.assertEqual(self.refused("pop3 = 1\n"), "pop3 is a table: write [pop3] and its options below")

    def test_types(self) -> None:
        """A value of another type is told with the type that is wanted, for every option."""
        self.assertEqual(self.refused("[pop3]\nport = '1'\n"), "[pop3] port is a number")
        self.assertEqual(self.refused("[pop3]\nport = true\n"), "[pop3] port is a number")
        self.assertEqual(self.refused("[store]\ncreate = 1\n"), "[store] create is true or false")
        self.assertEqual(
            self.refused("[pop3]\nlisten = 'x'\n"), "[pop3] listen is a list, as in listen = [...]"
        )
        for name, one in OPTIONS.items():
            for wrong in ("1.5", "1979-05-27", "{}", "[1.5]"):
                said = self.refused(f"[{one.table}]\n{name} = {wrong}\n")
                self.assertTrue(said.startswith(f"[{one.table}] {name} is "), said)

    def test_values(self) -> None:
        """A value that cannot be is told in the command line's own words."""
        self.assertEqual(
            self.refused("[limits]\nlogin-delay = -1\n"), "[limits] login-delay is a number from 0 to 86400"
        )
        said = self.refused("[accounts]\nuser = ['hunter2']\n")
        self.assertEqual(said, "[accounts] user: an account is written NAME:PASSWORD")
        self.assertEqual(
            self.refused("[store]\ncreate = true\n"),
            "[store] create needs [store] maildir or [store] store",
        )
        self.assertEqual(self.refused("[workers]\nworkers = 'few'\n")[:31], "[workers] workers is a number f")

    def test_as_they_are_written(self) -> None:
        """What is wrong names other options as the file does too; the command line's stay as they are."""
        for text, says in (
            ("[store]\nstore-endpoint = 'https://s3'\n", "[store] store-endpoint needs [store] store"),
            (
                "[pop3]\ntls-port = 995\n",
                "[pop3] tls-port needs [tls] certificate, or [tls] self-signed",
            ),
            (
                "[pop3]\nexplain = true\ntranscript = 'off'\n",
                '[pop3] explain needs a transcript to write into: [pop3] transcript = "-", or a file',
            ),
            (
                "[mail]\nsubmission-port = 1\n[store]\nmaildir = 'm/{user}'\n"
                "[outgoing]\nsmarthost = 'smtps://x'\n",
                "[outgoing] smarthost needs [outgoing] queue, where mail waits",
            ),
        ):
            self.assertTrue(self.refused(text).startswith(says), self.refused(text))
        # Each as its writer did: these are of the command line.
        self.file.write_text("[pop3]\nport = 1\n")
        for words, says in (
            (["--create"], "--create needs --maildir or --store"),
            (
                ["--explain", "--transcript=off"],
                "--explain needs a transcript to write into: --transcript -, or a file",
            ),
        ):
            error = self.assertRaises(UsageError, Options().parseOptions, [f"--config={self.file}", *words])
            self.assertEqual(str(error), says)
        # And one of both, of which the file has what does not go with it.
        self.file.write_text("[inspector]\ninspector-port = 1\n")
        words = [f"--config={self.file}", "--inspector=tcp:2"]
        error = self.assertRaises(UsageError, Options().parseOptions, words)
        self.assertIn("[inspector] inspector-port and --inspector do not go together", str(error))

    def test_whose_mistake(self) -> None:
        """A mistake of the command line is not blamed on the file."""
        self.file.write_text("[pop3]\nport = 1\n")
        error = self.assertRaises(UsageError, Options().parseOptions, [f"--config={self.file}", "--port=x"])
        self.assertEqual(str(error), "--port is a number from 0 to 65535")

    def test_no_file(self) -> None:
        """A file that is not there, not TOML, or not text."""
        error = self.assertRaises(UsageError, Options().parseOptions, [f"--config={self.file}"])
        self.assertEqual(str(error), f"--config {self.file}: no such file or directory")
        self.assertIn("this is not TOML: ", self.refused("[pop3\n"))
        for text in (f"[pop3]\nport = {'1' * 5000}\n", f"[pop3]\nport = {'[' * 5000}\n"):
            self.assertIn("this is not TOML: ", self.refused(text))
        self.file.write_bytes("[pop3]\n# größer\n".encode("latin-1"))
        error = self.assertRaises(UsageError, Options().parseOptions, [f"--config={self.file}"])
        self.assertEqual(str(error), f"{self.file}: line 2 is not UTF-8: save the file in that encoding")
        self.file.write_bytes(b"\xef\xbb\xbf[pop3]\r\nport = 25\r\n")
        options = Options()
        options.parseOptions([f"--config={self.file}"])
        self.assertRaises(UsageError, Options().parseOptions, ["--config="])


class SettingsTests(SynchronousTestCase):
    """The value that all of them make."""

    def test_checked_for_programs(self) -> None:
        """What a program gives is checked as what a command line gives."""
        for wrong in (
            lambda: Settings(port=99999),
            lambda: Settings(port=True),
            lambda: Settings(listen="tcp:1"),  # type: ignore[arg-type]
            lambda: Settings(users=(("ann", "x"), ("ann", "y"))),
            lambda: Settings(tls_port=995),
            lambda: TLS(certificate="x", self_signed=True),
            lambda: TLS(self_signed="yes"),  # type: ignore[arg-type]
            lambda: Limits(trusted=("webmail",)),
            lambda: Maildirs("/srv/{usr}"),
            lambda: Settings(hostname="a b"),
            lambda: Objects("mail"),
            lambda: Objects("s3://key:secret@mail"),
            lambda: Objects("memory://x", endpoint="http://127.0.0.1:1"),
        ):
            self.assertRaises(BadSetting, wrong)

    def test_whole(self) -> None:
        """Whether somebody can log in is asked when it is known who checks."""
        alone = Settings(store=Maildirs("/srv/{user}"))
        self.assertRaises(CannotStart, alone.check_whole)
        alone.check_whole(other_checkers=True)
        one = Settings(store=Maildirs("/srv/ann"), users=(("ann", "x"),))
        one.check_whole()
        self.assertRaises(CannotStart, one.check_whole, other_checkers=True)
        shared = Settings(store=Objects("s3://mail"), users=(("ann", "x"),), workers=2)
        shared.check_whole()
        why = self.assertRaises(BadSetting, replace(shared, store=Objects("memory://x")).check_whole)
        self.assertEqual(str(why), "--workers: memory:// is in one process alone")

    def test_no_secret_in_repr(self) -> None:
        """Passwords do not show."""
        settings = Settings(users=(("ann", "hunter2"),), auth=("memory:bob:hunter2",))
        self.assertNotIn("hunter2", repr(settings))

    @given(st.data())
    def test_to_workers(self, data: st.DataObject) -> None:
        """Through JSON they come out as they went in."""
        chosen = data.draw(st.sets(st.sampled_from(sorted(OPTIONS))))
        try:
            settings = settings_of({name: sample(OPTIONS[name]) for name in chosen})
        except BadSetting:
            return
        self.assertEqual(Settings.from_json(settings.to_json()), settings)

    def test_defaults_are_right(self) -> None:
        """Each default would be taken if it were given."""
        self.assertEqual(settings_of({}), Settings())
        for name, one in OPTIONS.items():
            if isinstance(one.default, int | str) and not isinstance(one.default, bool):
                self.assertEqual(one.kind.parse(str(one.default)), one.default, name)

    def test_one_table(self) -> None:
        """No option stands in two tables; several kinds of store may have the same one, and nothing else."""
        types = (Settings, TLS, Limits, *(kind.settings for kind in STORES))
        found = [one for settings in types for one in options_of(settings)]
        self.assertEqual({one.name for one in found}, set(OPTIONS))
        stores = {kind.settings.__name__ for kind in STORES}
        for one in found:
            alike = [other for other in found if other.name == one.name]
            for other in alike:
                self.assertEqual(replace(other, owner="", field=""), replace(one, owner="", field=""))
            self.assertTrue(len(alike) == 1 or {other.owner for other in alike} <= stores, one.name)
        self.assertIs(STORES[0].settings, Toy)

    def test_examples(self) -> None:
        """Each number has an example that may be said: the default, where the help tells one."""
        for name, one in OPTIONS.items():
            if int in one.kind.types and not one.many:
                shown = one.default if isinstance(one.default, int) else one.example
                self.assertIsNotNone(one.kind.parse(str(shown)), name)
            if one.example is not None and "(default " in one.help:
                self.assertRegex(one.help, rf"\(default {one.example}\b")

    def test_reference(self) -> None:
        """docs/reference.rst is made from the options as they are now."""
        self.assertEqual((ROOT / "docs" / "reference.rst").read_text(encoding="utf-8"), reference())


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
