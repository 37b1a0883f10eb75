"""``pop3toy mailbox undo``: what POP3 has deleted comes back; and whose the files are that root writes."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from unittest import SkipTest

from pop3toy.stores.maildir.removed.folder import FOLDER

from ..cli_world import MESSAGE, CommandTests


class UndoCase(CommandTests):
    """ann's Maildir, in which messages are kept."""

    def setUp(self) -> None:
        super().setUp()
        self.maildir = self.root / "mail" / "ann"
        for part in ("new", "cur", "tmp"):
            (self.maildir / part).mkdir(parents=True)

    def kept(self, at: int, hours: float, flags: str = "") -> str:
        """A message that was deleted so many hours ago; its unique-id."""
        when = time.strftime("%Y%m%dT%H%M%S.000000Z", time.gmtime(time.time() - hours * 3600))
        folder = self.maildir / FOLDER / when
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{int(time.time()) - 10 * 86400 + at}.M1P{at}.host"
        (folder / f"{name}{flags}").write_bytes(MESSAGE)
        return name

    def files(self) -> list[str]:
        """Messages in the mailbox."""
        return sorted(path.name for part in ("new", "cur") for path in (self.maildir / part).iterdir())


class UndoTests(UndoCase):
    """The command."""

    def test_list(self) -> None:
        """It shows when messages were deleted, by whom they are and about what, and changes nothing."""
        uid = self.kept(1, 2)
        done = self.run_command("mailbox", "undo", "{M}", "ann", "--list")
        self.assertEqual(done.status, 0, done.err)
        self.assertRegex(done.out, rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d +{len(MESSAGE)} {uid}\n")
        self.assertIn("Eve <eve@example.org>: gr\xfc\xdfe\n", done.out)
        self.assertIn("ann: 1 of 1 message ", done.out)
        self.assertEqual((done.err, self.files()), ("", []))
        done = self.run_command("mailbox", "undo", "{M}", "ann", "--last")
        self.assertEqual((done.err, self.files()), ("Nothing was put back: --yes does it\n", []))

    def test_which(self) -> None:
        """The last session's, those since a time, some by unique-id, or all."""
        first, second, third = self.kept(1, 50), self.kept(2, 3, ":2,S"), self.kept(3, 3)
        for words, back in (
            (("--last",), [f"{second}:2,S", f"{third}:2,"]),
            (("--since", "4h"), [f"{second}:2,S", f"{third}:2,"]),
            (("--since", "2000-01-01"), [f"{first}:2,", f"{second}:2,S", f"{third}:2,"]),
            (("--since", "2999-01-01 10:00"), []),
            ((first, third), [f"{first}:2,", f"{third}:2,"]),
            (("--all",), [f"{first}:2,", f"{second}:2,S", f"{third}:2,"]),
        ):
            done = self.run_command("mailbox", "undo", "{M}", "ann", *words)
            self.assertEqual((done.status, self.files()), (0, []), done.err)
            done = self.run_command("mailbox", "undo", "{M}", "--yes", "ann", *words)
            self.assertEqual((done.status, self.files()), (0, back), done.err)
            for path in (self.maildir / "cur").iterdir():
                path.unlink()
            for at, hours, flags in ((1, 50, ""), (2, 3, ":2,S"), (3, 3, "")):
                self.kept_again((first, second, third)[at - 1], hours, flags)

    def kept_again(self, name: str, hours: float, flags: str) -> None:
        """The same once more, if it is not there."""
        if not list((self.maildir / FOLDER).glob(f"*/{name}*")):
            path = self.maildir / FOLDER
            when = time.strftime("%Y%m%dT%H%M%S.000000Z", time.gmtime(self.began - hours * 3600))
            (path / when).mkdir(parents=True, exist_ok=True)
            (path / when / f"{name}{flags}").write_bytes(MESSAGE)

    def setUp(self) -> None:
        super().setUp()
        self.began = time.time()

    def test_left(self) -> None:
        """What cannot be put back is told, and stays."""
        uid, other = self.kept(1, 1), self.kept(2, 1)
        (self.maildir / "new" / uid).write_bytes(b"Subject: another\n\n")
        done = self.run_command("mailbox", "undo", "{M}", "--all", "--yes", "ann")
        self.assertEqual(done.status, os.EX_DATAERR)
        self.assertIn("stays where it is: a message with its name is in the mailbox", done.out)
        self.assertIn("1 of 2 messages", done.out)
        self.assertEqual(self.files(), [uid, f"{other}:2,"])
        self.assertEqual(len(list((self.maildir / FOLDER).glob("*/*"))), 1)

    def test_one_bad_entry(self) -> None:
        """What is no folder of removed messages is told, and keeps nothing from being put back or removed."""
        uid, old = self.kept(1, 1), self.kept(2, 100)
        bad = self.maildir / FOLDER / "20200101T000000.000000Z"
        bad.write_bytes(b"x")
        told = f"ann: {FOLDER}/{bad.name} is left alone: "
        for words in (("--last", "--yes"), ("--list",)):
            done = self.run_command("mailbox", "undo", "{M}", "ann", *words)
            self.assertEqual(done.status, os.EX_DATAERR)
            self.assertTrue(done.err.startswith(told), done.err)
        self.assertEqual(self.files(), [f"{uid}:2,"])
        for yes, count in (((), 1), (("--yes",), 0)):
            done = self.run_command("mailbox", "expire", "{M}", "--all", "--undo-days", "2", *yes)
            self.assertEqual(done.status, os.EX_DATAERR)
            self.assertTrue(done.err.startswith(told), done.err)
            self.assertIn("ann: 1 deleted message ", done.out)
            self.assertEqual(len(list((self.maildir / FOLDER).glob(f"*/{old}"))), count)

    def test_in_use(self) -> None:
        """While a session is there nothing is put back, in one sentence."""
        self.kept(1, 1)
        session = os.open(self.maildir, os.O_RDONLY)
        self.addCleanup(os.close, session)
        fcntl.flock(session, fcntl.LOCK_EX)
        done = self.run_command("mailbox", "undo", "{M}", "--all", "-y", "ann")
        self.assertEqual(done.status, os.EX_TEMPFAIL)
        self.assertRegex(done.err, r"\AError: \[IN-USE\] ann: .*; nothing was put back\n\Z")
        self.assertEqual(self.files(), [])

    def test_quota_and_age(self) -> None:
        """Mail comes back whatever the quota says, also of a user who is disabled; what follows is told."""
        self.accounts.write_text("ann:{PLAIN}one:quota=50\n")
        self.assertEqual(self.run_command("user", "disable", "{A}", "ann").status, 0)
        self.kept(1, 1)
        config = self.root / "options.toml"
        config.write_text(
            f'[pop3]\nexpire-days = 3\n[store]\nmaildir = "{self.pattern}"\nundo-days = 7\n'
            f'[accounts]\naccounts = "{self.accounts}"\n'
        )
        done = self.run_command("mailbox", "undo", "--config", str(config), "--all", "-y", "ann")
        self.assertEqual((done.status, len(self.files())), (0, 1), done.err)
        self.assertIn("more than its quota of 50", done.err)
        self.assertIn("1 of them came more than 3 days ago", done.err)

    def test_usage(self) -> None:
        """What is meant must be said, once; a wrong word is told."""
        self.kept(1, 1)
        for words in ((), ("--last", "--all"), ("--list", "--yes"), ("--since", "soon"), ("nothing",)):
            done = self.run_command("mailbox", "undo", "{M}", "ann", *words)
            self.assertEqual(done.status, os.EX_USAGE, words)
        self.assertEqual(self.run_command("mailbox", "undo", "{M}", "--all", "bob").status, os.EX_NOUSER)
        credentials = self.root / "credentials"
        credentials.write_text("AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\n")
        credentials.chmod(0o600)
        store = ("--store=s3://bucket", "--store-endpoint=http://127.0.0.1:9")
        options = (*store, f"--store-credentials={credentials}")
        for command in (("undo", "--all"), ("expire", "--undo-days", "1")):
            done = self.run_command("mailbox", *command, *options, "ann")
            self.assertEqual((done.status, "Maildirs" in done.err), (os.EX_USAGE, True), done.err)

    def test_expire(self) -> None:
        """mailbox expire removes for good what was kept long enough, where the days are said; mail stays."""
        self.kept(1, 60)
        self.kept(2, 10)
        (self.maildir / "new" / "1000000000.M1.host").write_bytes(MESSAGE)
        command = ("mailbox", "expire", "{M}", "ann")
        self.run_command(*command, "--keep", "1", "--yes")
        self.assertEqual(len(list((self.maildir / FOLDER).glob("*/*"))), 2)
        done = self.run_command(*command, "--undo-days", "1")
        self.assertEqual(
            done.out, f"ann: 1 deleted message ({len(MESSAGE)} octets) would be removed for good\n"
        )
        self.assertEqual(len(list((self.maildir / FOLDER).glob("*/*"))), 2)
        done = self.run_command(*command, "--undo-days", "1", "--yes")
        self.assertEqual(done.out, f"ann: 1 deleted message ({len(MESSAGE)} octets) removed for good\n")
        self.run_command(*command, "--undo-days", "0", "--yes")
        self.assertEqual(((self.maildir / FOLDER).exists(), len(self.files())), (False, 1))


class OwnerTests(UndoCase):
    """Commands of root, on the Maildir of somebody else."""

    OWNER = 12345

    def setUp(self) -> None:
        if os.getuid() != 0:
            raise SkipTest("files can be given away by root alone")
        super().setUp()
        self.root.chmod(0o755)
        self.accounts.write_text("ann:{PLAIN}one:quota=1M\n")
        for at in range(12):
            (self.maildir / "new" / f"170000000{at:02}.M1.host").write_bytes(b"Subject: %d\n\n" % at)
        self.kept(1, 1)
        self.give()

    def give(self) -> None:
        """All of it is the owner's."""
        for path in [self.maildir, *self.maildir.rglob("*")]:
            os.chown(path, self.OWNER, self.OWNER, follow_symlinks=False)

    def check(self, *words: str, stdin: bytes = b"", makes: str = "") -> None:
        """Whatever a command has written there belongs to the owner."""
        before = set(self.maildir.rglob("*"))
        done = self.run_command(*words, stdin=stdin)
        self.assertEqual(done.status, 0, done.err)
        if makes:
            self.assertIn(makes, [path.name for path in set(self.maildir.rglob("*")) - before])
        others = [str(path) for path in self.maildir.rglob("*") if path.lstat().st_uid != self.OWNER]
        self.assertEqual(others, [], words)

    def test_each(self) -> None:
        """Of each command that may write into a Maildir."""
        self.check("mailbox", "list", "{M}", "ann")
        self.check("mailbox", "check", "{M}", "ann")
        self.check("mailbox", "expire", "{M}", "--older-than", "99999", "-y", "ann")
        self.check("mailbox", "expire", "{M}", "--keep", "11", "-y", "ann", makes="pop3toy-last")
        self.check("mailbox", "undo", "{M}", "--all", "-y", "ann")
        self.check("deliver", "{M}", "{A}", "ann", stdin=MESSAGE, makes="pop3toy-usage")
        mbox = self.root / "mbox"
        mbox.write_bytes(b"From x\n" + MESSAGE)
        self.check("mailbox", "import", "{M}", "{A}", "ann", str(mbox))
        other = self.root / "other" / "ann"
        for part in ("new", "cur", "tmp"):
            (other / part).mkdir(parents=True)
        name = next(Path(self.maildir / "new").iterdir()).name
        (other / "new" / name).write_bytes((self.maildir / "new" / name).read_bytes())
        (other / "pop3toy-uidl").write_bytes(b"pop3toy-uidl 1\nknown %b\n" % name.encode())
        source = f"maildir:{self.root}/other/{{user}}"
        self.check(
            "mailbox", "adopt", "{M}", "ann", "--from", "pop3toy", "--source", source, "-y",
            makes="pop3toy-uidl",
        )  # fmt: skip
