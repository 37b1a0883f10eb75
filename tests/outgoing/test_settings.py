"""Options and files of the mail that goes out: what is right, and the sentences for what is not."""

from __future__ import annotations

import os
import time
from typing import Any

from pop3toy.config.settings import Settings
from pop3toy.config.table import settings_of
from pop3toy.errors import BadSetting, CannotStart
from pop3toy.outgoing.smarthost import Credentials
from pop3toy.run.handing_on.credentials import check_outgoing, credentials_again, credentials_of

from ..cli_world import CommandTests
from .test_parts import mail, put


class OptionTests(CommandTests):
    """Options, and the files that they name."""

    def setUp(self) -> None:
        super().setUp()
        self.credentials = self.root / "smarthost"
        self.credentials.write_text("relay:open sesame\n")
        self.credentials.chmod(0o600)
        self.given: dict[str, Any] = {
            "maildir": self.pattern, "user": ["ann:ann"], "domain": ["example.org"], "submission-port": 587,
            "smarthost": "smtp+starttls://mail.example.net", "queue": str(self.root / "queue"),
            "smarthost-credentials": str(self.credentials),
        }  # fmt: skip

    def settings(self, **changed: Any) -> Settings:
        """The settings, with some changed or, with ``None``, left out."""
        given = {**self.given, **{name.replace("_", "-"): value for name, value in changed.items()}}
        made = settings_of({name: value for name, value in given.items() if value is not None})
        made.check_whole()
        return made

    def refused(self, **changed: Any) -> str:
        """Why these are no settings."""
        return str(self.assertRaises(CannotStart, self.settings, **changed))

    def test_together(self) -> None:
        """What is missing is named."""
        self.assertEqual(Settings.from_json(self.settings().to_json()), self.settings())
        self.assertIn("--smarthost needs --queue FOLDER", self.refused(queue=None))
        self.assertIn("--smarthost needs --domain", self.refused(domain=None))
        self.assertIn("--smarthost needs --submission-port", self.refused(submission_port=None))
        self.assertIn("--queue needs --smarthost", self.refused(smarthost=None))
        self.assertIn("--smarthost needs --maildir", self.refused(maildir=None))
        self.assertIn("is for this machine alone", self.refused(smarthost="smtp://mail.example.net"))
        self.assertIn("number from 1", self.refused(smarthost_limit=0))
        self.assertNotIn("hunter2", self.refused(smarthost="smtps://a:hunter2@mail.example.net"))

    def check(self, **changed: Any) -> str:
        """Why the files cannot be used."""
        return str(self.assertRaises(BadSetting, check_outgoing, self.settings(**changed)))

    def test_files(self) -> None:
        """Credentials that others may read, a certificate that is none, and a folder that cannot be used."""
        check_outgoing(self.settings())
        self.assertFalse((self.root / "queue").exists())
        self.credentials.chmod(0o640)
        self.assertIn("chmod 600", self.check())
        self.credentials.chmod(0o600)
        self.credentials.write_text("secret")
        self.assertIn("user:password", self.check())
        self.assertNotIn("secret", self.check())
        self.credentials.write_text("a\nb\n")
        self.assertIn("there is no file", self.check(smarthost_credentials=f"{self.root}/none"))
        self.assertIn("no certificate (PEM)", self.check(smarthost_ca=str(self.credentials)))
        self.assertIn("there is no folder", self.check(queue=f"{self.root}/a/b"))
        self.assertIn("is no folder", self.check(queue=str(self.credentials)))
        (self.root / "queue").mkdir(mode=0o755)
        os.chmod(self.root / "queue", 0o755)
        self.assertIn("chmod 700", self.check())

    def test_environment(self) -> None:
        """Name and password may be in the environment; half of them is a mistake."""
        settings = self.settings(smarthost_credentials=None)
        user, password = "POP3TOY_SMARTHOST_USER", "POP3TOY_SMARTHOST_PASSWORD"
        self.assertEqual(
            credentials_of(settings, {user: "relay", password: "a:b"}), Credentials("relay", "a:b")
        )
        self.assertIsNone(credentials_of(settings, {}))
        self.assertRaises(BadSetting, credentials_of, settings, {user: "relay"})
        self.assertEqual(credentials_of(self.settings(), {}), Credentials("relay", "open sesame"))

    def test_again(self) -> None:
        """The file is read again when it is whole; what can be read once alone, or is not there, is not."""
        settings, old, new = self.settings(), Credentials("relay", "old"), Credentials("relay", "new")
        self.credentials.write_text("relay:new\n")
        # Written to a moment ago: more may follow.
        self.assertEqual(credentials_again(settings, time.time, old), old)
        self.assertEqual(credentials_again(settings, lambda: time.time() + 3, old), new)
        put_in_place = self.root / "other"
        put_in_place.write_text("relay:newer\n")
        put_in_place.chmod(0o600)
        os.utime(put_in_place, (1, 1))
        put_in_place.rename(self.credentials)
        self.assertEqual(credentials_again(settings, time.time, old), Credentials("relay", "newer"))
        self.credentials.unlink()
        self.assertRaises(BadSetting, credentials_again, settings, time.time, old)
        os.mkfifo(self.credentials, 0o600)
        self.assertEqual(credentials_again(settings, time.time, old), old)
        self.assertEqual(credentials_again(self.settings(smarthost_credentials=None), time.time, old), old)

    def test_config_check(self) -> None:
        """``pop3toy config check`` sees the folder and the credentials."""
        file = self.root / "pop3toy.toml"
        file.write_text(
            f'[store]\nmaildir = "{self.pattern}"\n[accounts]\nuser = ["ann:ann"]\n'
            '[mail]\ndomain = ["example.org"]\nsubmission-port = 0\n'
            '[outgoing]\nsmarthost = "smtps://localhost"\nqueue = "queue"\n'
            'smarthost-credentials = "smarthost"\n'
        )
        self.assertEqual(self.run_command("config", "check", str(file)).status, 0)
        self.credentials.chmod(0o644)
        done = self.run_command("config", "check", str(file))
        self.assertEqual(done.status, 78)
        self.assertIn("smarthost-credentials", done.err)


class QueueCommandTests(CommandTests):
    """``pop3toy queue`` where no server runs."""

    def setUp(self) -> None:
        super().setUp()
        from pop3toy.outgoing.queue_files import Folder

        self.folder = Folder(self.root / "queue")
        self.folder.make()
        put(self.folder)
        put(self.folder, envelope=mail(sender="")._replace(queue_id="def456"))
        self.folder.add("abc123", {"tried": 1.0, "next": 9e9, "why": "busy\x1b[2J"})

    def queue(self, *words: str) -> Any:
        """Run it."""
        return self.run_command("queue", words[0], "--queue", str(self.root / "queue"), *words[1:])

    def test_list(self) -> None:
        """What waits, for people and for programs."""
        done = self.queue("list")
        self.assertEqual(done.status, 0, done.err)
        self.assertIn("abc123", done.out)
        self.assertIn("ann@example.org -> eve@elsewhere.example", done.out)
        self.assertIn(r"1 try, next try in", done.out)
        self.assertNotIn("\x1b", done.out)
        self.assertIn("2 messages", done.err)
        import json

        found = json.loads(self.queue("list", "--json").out)
        self.assertEqual([one["id"] for one in found], ["abc123", "def456"])
        self.assertEqual(found[0]["recipients"][0]["status"], "waiting")

    def test_show(self) -> None:
        """All that is known of one, or its text."""
        self.assertIn("to: <eve@elsewhere.example> waiting", self.queue("show", "abc123").out)
        self.assertEqual(self.queue("show", "nobody").status, 66)
        self.assertEqual(self.queue("show", "../x").status, 66)

    def test_retry_and_remove(self) -> None:
        """Without a server it is done at once; with one it is asked."""
        self.assertEqual(self.queue("retry", "abc123").status, 0)
        self.assertEqual(self.folder.read("abc123").next, 0.0)
        self.assertEqual(self.queue("remove", "--yes", "abc123").status, 0)
        self.assertEqual(self.folder.look().messages, ["def456"])
        self.assertEqual(self.queue("remove", "--yes", "abc123").status, 66)
        lock = self.folder.lock()
        assert lock is not None
        self.addCleanup(os.close, lock)
        self.queue("remove", "--yes", "--all")
        self.queue("retry", "--all")
        self.assertEqual(self.folder.look(), (["def456"], [("remove", "def456"), ("retry", "def456")]))

    def test_no_folder(self) -> None:
        """Without a folder there is a sentence."""
        done = self.run_command("queue", "list", "--queue", f"{self.root}/none")
        self.assertEqual(done.status, 66)
        self.assertEqual(self.run_command("queue", "list").status, 64)
