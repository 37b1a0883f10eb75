"""What root opens belongs to the user that it becomes, and to nobody by a trick."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.files import Owner, acting_as, give, opening_in

from .folders import new_folder


class OwnerCase(SynchronousTestCase):
    """A folder of nobody's and one of root's."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root can become somebody else")
        nobody = pwd.getpwnam("nobody")
        self.owner = Owner(nobody.pw_uid, nobody.pw_gid)
        self.folder = new_folder(self)
        self.folder.chmod(0o755)
        self.theirs, self.roots = self.folder / "theirs", self.folder / "roots"
        for path in (self.theirs, self.roots):
            path.mkdir(mode=0o755)
        os.chown(self.theirs, *self.owner)


class ActingTests(OwnerCase):
    """Root is that user for a moment."""

    def test_and_back(self) -> None:
        """User, group and groups are that user's within the block, and root's again behind an error."""
        before = os.geteuid(), os.getegid(), os.getgroups()
        with self.assertRaises(ZeroDivisionError), acting_as(self.owner):
            self.assertEqual((os.geteuid(), os.getegid()), self.owner)
            self.assertNotIn(0, os.getgroups())
            raise ZeroDivisionError
        self.assertEqual((os.geteuid(), os.getegid(), os.getgroups()), before)

    def test_nobody_else(self) -> None:
        """Without an owner, for root itself, and for one who is not root, nothing changes."""
        for owner in (None, Owner(0, 0)):
            with acting_as(owner):
                self.assertEqual(os.geteuid(), 0)
        with acting_as(self.owner), acting_as(Owner(1, 1)):
            self.assertEqual(os.geteuid(), self.owner.uid)

    def test_where(self) -> None:
        """Where the owner may write, the owner opens; elsewhere root does, and gives it away."""
        for folder, user, to_give in ((self.theirs, self.owner.uid, False), (self.roots, 0, True)):
            with opening_in(str(folder), self.owner) as given:
                self.assertEqual((os.geteuid(), given), (user, to_give), folder)
        with opening_in(str(self.roots), None) as given:
            self.assertFalse(given)


class GivingTests(OwnerCase):
    """A file that root has open."""

    def owner_after(self, path: Path) -> int:
        """Who has it when it was given away."""
        with path.open("rb") as file:
            give(str(path), file.fileno(), self.owner)
            return os.fstat(file.fileno()).st_uid

    def test_whose_folder(self) -> None:
        """It is given where the folder is the owner's; in root's folder others may trust it."""
        for folder, user in ((self.theirs, self.owner.uid), (self.roots, 0)):
            (folder / "pid").touch()
            self.assertEqual(self.owner_after(folder / "pid"), user)

    def test_tricks(self) -> None:
        """Behind a link, or with another name elsewhere, it stays root's."""
        (self.roots / "secret").touch()
        (self.theirs / "link").symlink_to(self.roots / "secret")
        (self.theirs / "hard").hardlink_to(self.roots / "secret")
        self.assertEqual(self.owner_after(self.theirs / "link"), 0)
        self.assertEqual(self.owner_after(self.theirs / "hard"), 0)
        (self.theirs / "hard").unlink()
        self.assertEqual(self.owner_after(self.theirs / "link"), 0)

    def test_anothers(self) -> None:
        """What belongs to a third one already stays so."""
        (self.theirs / "log").touch()
        os.chown(self.theirs / "log", 1, 1)
        self.assertEqual(self.owner_after(self.theirs / "log"), 1)
