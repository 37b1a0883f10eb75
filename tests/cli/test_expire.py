"""``pop3toy mailbox expire``: old mail goes when somebody says so."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from tests.cli_world import CommandTests


class ExpireTests(CommandTests):
    """Messages of known ages."""

    def message(self, user: str, days: float, name: str = "new/{}") -> Path:
        """A message that came so many days ago."""
        for part in ("new", "cur", "tmp"):
            (self.root / "mail" / user / part).mkdir(parents=True, exist_ok=True)
        came = f"{int(time.time() - days * 86400)}.M1P{days:g}.host"
        path = self.root / "mail" / user / name.format(came)
        path.write_bytes(b"Subject: x\n\nx\n")
        return path

    def test_dry_and_wet(self) -> None:
        """Without --yes it is told what would go; with it that goes."""
        old, new = self.message("ann", 40), self.message("ann", 20)
        command = ("mailbox", "expire", "{M}", "--older-than", "30", "ann")
        done = self.run_command(*command)
        self.assertEqual(
            (done.status, done.out), (0, "ann: 1 of 2 messages (17 octets) would be removed\n"), done.err
        )
        self.assertEqual(done.err, "Nothing was removed: --yes does it\n")
        self.assertTrue(old.exists())
        done = self.run_command(*command, "--yes")
        self.assertEqual((done.status, done.out), (0, "ann: 1 of 2 messages (17 octets) removed\n"), done.err)
        self.assertEqual((old.exists(), new.exists()), (False, True))

    def test_seen(self) -> None:
        """--seen takes what has the flag S, and what else is said has to hold as well."""
        seen = self.message("ann", 9, "cur/{}:2,RS")
        others = [
            self.message("ann", 8, "cur/{}:2,R"),
            self.message("ann", 7),
            self.message("ann", 1, "cur/{}:2,S"),
        ]
        done = self.run_command("mailbox", "expire", "{M}", "--seen", "--keep", "1", "--yes", "ann")
        self.assertEqual(done.status, 0, done.err)
        self.assertEqual([path.exists() for path in (seen, *others)], [False, True, True, True])

    def test_all(self) -> None:
        """--all goes on when one mailbox is open, or broken, and says so by its exit status."""
        kept, gone = self.message("ann", 9), self.message("cat", 9)
        (self.root / "mail" / "bob" / "cur").mkdir(parents=True)
        session = os.open(self.root / "mail" / "ann", os.O_RDONLY)
        self.addCleanup(os.close, session)
        fcntl.flock(session, fcntl.LOCK_EX)
        done = self.run_command("mailbox", "expire", "{M}", "--all", "--keep", "0", "-y")
        self.assertEqual(done.status, os.EX_TEMPFAIL)
        self.assertRegex(done.err, "ann: \\[IN-USE\\] .*; nothing was removed")
        self.assertIn("bob", done.err)
        self.assertEqual((kept.exists(), gone.exists()), (True, False))

    def test_usage(self) -> None:
        """Whose mail and which must both be said."""
        self.message("ann", 9)
        for words in (("ann",), ("--keep", "1"), ("--all", "--keep", "1", "ann"), ("--keep", "-1", "ann")):
            done = self.run_command("mailbox", "expire", "{M}", "-y", *words)
            self.assertEqual(done.status, os.EX_USAGE, words)
        done = self.run_command("mailbox", "expire", "{M}", "-y", "--keep", "0", "nobody")
        self.assertEqual(done.status, os.EX_NOUSER, done.err)
        store = ("--store", "s3://bucket", "--store-endpoint", "http://127.0.0.1:9")
        done = self.run_command("mailbox", "expire", *store, "--seen", "ann")
        self.assertIn("--seen is for Maildirs", done.err)
