"""From a user's name to a Maildir: nobody climbs out, nobody is led out."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from unittest import skipIf

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import NoSuchMailbox, StoreTrouble
from pop3toy.stores.maildir.paths import MaildirPaths

from ..corpus import make_maildir
from ..folders import new_folder
from ..store_world import make_read_only, tmpfs, unprivileged, watched_descriptors

#: Names that would lead elsewhere, or are no names.
BAD_NAMES = [
    "",
    ".",
    "..",
    "../bob",
    "ann/../bob",
    "ann/..",
    "/",
    "/etc",
    "ann/",
    "ann/.Sent",
    ".hidden",
    ".new-x",
    "ann\0",
    "ann\0/../bob",
    "\0",
    "ann\n",
    "ann\r\n",
    "\x1b[2J",
    "ann\x7f",
    "\udcff",
    "a\u202eb",
]


class PathsTests(SynchronousTestCase):
    """Patterns and names."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.tree = self.root / "tree"
        self.root.chmod(0o755)
        self.tree.mkdir()

    def paths(self, pattern: str = "{user}/Maildir", *, create: bool = False) -> MaildirPaths:
        """Paths below the tree."""
        return MaildirPaths(os.path.join(self.tree, pattern), create=create)

    def opens(self, paths: MaildirPaths, user: str) -> Path:
        """Where the Maildir is that was opened."""
        fd = paths.open(user)
        try:
            return Path(os.readlink(f"/proc/self/fd/{fd}"))
        finally:
            os.close(fd)

    def everything(self) -> list[str]:
        """All that is there, to see that nothing was made."""
        return sorted(map(str, self.root.rglob("*")))

    # -- patterns ----------------------------------------------------------------------

    def test_patterns(self) -> None:
        """The name takes its place wherever the pattern says, more than once or not at all."""
        for pattern, place in (
            ("{user}", "ann"),
            ("{user}/Maildir", "ann/Maildir"),
            ("mail-{user}.d/x", "mail-ann.d/x"),
            ("{user}/{user}", "ann/ann"),
            ("a/b/{user}", "a/b/ann"),
            ("shared", "shared"),
        ):
            make_maildir(self.tree / place)
            paths = self.paths(pattern)
            self.assertEqual(self.tree / place, self.opens(paths, "ann"))
            self.assertEqual(str(self.tree / place), paths.path("ann"))
            self.assertEqual(str(self.tree / place), paths.path("ann"))
            shutil.rmtree(self.tree / place)

    def test_root(self) -> None:
        """The tree begins above the first part that depends on the user."""
        for pattern, root in (
            ("/home/{user}/Maildir", "/home"),
            ("/{user}", "/"),
            ("/srv/mail", "/srv"),
            ("/srv//mail/./{user}/", "/srv/mail"),
        ):
            self.assertEqual(root, MaildirPaths(pattern).root)

    def test_relative_pattern(self) -> None:
        """A relative pattern is meant from where the server is started, and stays there."""
        make_maildir(self.tree / "ann")
        here = os.getcwd()
        os.chdir(self.tree)
        try:
            paths = MaildirPaths("{user}")
        finally:
            os.chdir(here)
        self.assertEqual(self.tree / "ann", self.opens(paths, "ann"))

    def test_placeholder_in_a_name(self) -> None:
        """A user whose name looks like the placeholder is a user like any other."""
        make_maildir(self.tree / "{user}" / "Maildir")
        self.assertEqual(self.tree / "{user}" / "Maildir", self.opens(self.paths(), "{user}"))

    # -- names -------------------------------------------------------------------------

    def test_good_names(self) -> None:
        """Names with dots, blanks, signs and letters of any script are names of folders."""
        for user in (
            "ann",
            "ann@example.org",
            "a b",
            "a..b",
            "ann.",
            "Jürgen",
            "李",
            "a" * 255,
            "~",
            "~root",
            "-rf",
            "$HOME",
            "%s",
            "*",
        ):
            make_maildir(self.tree / user / "Maildir")
            self.assertEqual(self.tree / user / "Maildir", self.opens(self.paths(), user))

    def test_bad_names(self) -> None:
        """Names that would lead elsewhere are refused, made or not, and appear in no text."""
        make_maildir(self.tree / "bob" / "Maildir")
        make_maildir(self.tree / "ann" / "Maildir")
        make_maildir(self.tree / "ann" / ".Sent" / "Maildir")
        make_maildir(self.tree / ".hidden" / "Maildir")
        make_maildir(self.root / "Maildir")
        before = self.everything()
        with watched_descriptors():
            for create in (False, True):
                paths = self.paths(create=create)
                for user in BAD_NAMES:
                    for method in (paths.open, paths.path):
                        refusal = self.assertRaises(NoSuchMailbox, method, user)
                        self.assertNotIn("/", refusal.text)
        self.assertEqual(before, self.everything())

    def test_too_long(self) -> None:
        """A name longer than a file system takes is nobody's, made or not, wherever it stands in the path."""
        for pattern, user in (
            ("{user}/Maildir", "a" * 256),
            ("{user}", "ü" * 128),
            ("mail-{user}.d/x", "a" * 250),
            ("{user}/{user}", "a" * 5000),
        ):
            for create in (False, True):
                paths = self.paths(pattern, create=create)
                self.assertRaises(NoSuchMailbox, paths.open, user)
        self.assertEqual([str(self.tree)], self.everything())

    def test_file_system_refuses(self) -> None:
        """A name that this file system cannot have is nobody's; other errors are trouble."""

        def fail(path: str, *args: object, **kwargs: object) -> int:
            raise OSError(number, os.strerror(number))

        for number, kind in (
            (errno.ENAMETOOLONG, NoSuchMailbox),
            (errno.EILSEQ, NoSuchMailbox),
            (errno.EINVAL, NoSuchMailbox),
            (errno.EIO, StoreTrouble),
        ):
            with self.subTest(error=errno.errorcode[number]):
                patched = self.patch(os, "open", fail)
                try:
                    self.assertIs(kind, type(self.assertRaises(StoreTrouble, self.paths().open, "zoë")))
                finally:
                    patched.restore()

    def test_locale_without_the_letters(self) -> None:
        """A name that the locale's encoding cannot write is nobody's, and no bug."""

        def encode(name: str) -> bytes:
            return name.encode("ascii", "surrogateescape")

        make_maildir(self.tree / "name-of-zoë" / "Maildir")
        self.patch(os, "fsencode", encode)
        self.assertRaises(NoSuchMailbox, self.paths().open, "name-of-zoë")

    @given(st.text(max_size=12) | st.text("./\0a", max_size=6))
    def test_never_outside(self, user: str) -> None:
        """Whatever the name, the path lies below the tree, one folder deep, or there is none."""
        try:
            path = MaildirPaths("/tree/{user}/Maildir").path(user)
        except NoSuchMailbox:
            return
        self.assertEqual(path, os.path.normpath(path))
        self.assertEqual(
            ("/tree", "Maildir"), (os.path.dirname(os.path.dirname(path)), os.path.basename(path))
        )

    # -- what is not there ---------------------------------------------------------------

    def test_missing(self) -> None:
        """A missing Maildir or home is refused with a detail that says which and what to do."""
        (self.tree / "ann").mkdir()
        with watched_descriptors():
            for user in ("ann", "bob"):
                paths = self.paths()
                detail = self.assertRaises(NoSuchMailbox, paths.open, user).detail
                self.assertIn(paths.path(user), detail)
                self.assertIn("--create", detail)

    def test_tree_missing(self) -> None:
        """Where the whole tree is missing that is trouble, not a user's absence, and none is made."""
        with watched_descriptors():
            for create in (False, True):
                paths = MaildirPaths(f"{self.root}/nowhere/{{user}}", create=create)
                trouble = self.assertRaises(StoreTrouble, paths.open, "ann")
                self.assertNotIsInstance(trouble, NoSuchMailbox)
                self.assertIn("mounted", trouble.detail)
        self.assertFalse((self.root / "nowhere").exists())

    def test_a_file_in_its_place(self) -> None:
        """A file where the Maildir or the home should be is trouble, made or not."""
        (self.tree / "ann").write_bytes(b"")
        (self.tree / "bob").mkdir()
        (self.tree / "bob" / "Maildir").write_bytes(b"")
        with watched_descriptors():
            for create in (False, True):
                for user in ("ann", "bob"):
                    detail = self.assertRaises(StoreTrouble, self.paths(create=create).open, user).detail
                    self.assertIn(user, detail)
        self.assertEqual(b"", (self.tree / "ann").read_bytes())

    def test_unreadable(self) -> None:
        """A Maildir that may not be entered is trouble, with a detail that says what is missing."""
        make_maildir(self.tree / "ann" / "Maildir")
        (self.tree / "ann").chmod(0)
        self.addCleanup((self.tree / "ann").chmod, 0o700)
        with watched_descriptors(), unprivileged():
            for create in (False, True):
                detail = self.assertRaises(StoreTrouble, self.paths(create=create).open, "ann").detail
                self.assertIn("server's user needs", detail)

    # -- links ---------------------------------------------------------------------------

    def test_links_out_of_the_tree(self) -> None:
        """A home or a Maildir that is a link out of the tree is refused, and nothing is made there."""
        outside = self.root / "outside"
        make_maildir(outside / "Maildir")
        (self.tree / "ann").symlink_to(outside)
        (self.tree / "bob").mkdir()
        (self.tree / "bob" / "Maildir").symlink_to(outside / "Maildir")
        (self.tree / "eve").symlink_to("../outside")
        (self.tree / "up").symlink_to("..")
        (self.tree / "step").symlink_to("ann")
        (self.root / "tree-beside").mkdir()
        make_maildir(self.root / "tree-beside" / "Maildir")
        (self.tree / "beside").symlink_to(self.root / "tree-beside")
        empty = self.root / "empty"
        empty.mkdir()
        (self.tree / "dan").symlink_to(empty)
        (self.tree / "tom").symlink_to(self.root / "dangling")
        before = self.everything()
        with watched_descriptors():
            for create in (False, True):
                for user in ("ann", "bob", "eve", "up", "step", "beside", "dan", "tom"):
                    trouble = self.assertRaises(StoreTrouble, self.paths(create=create).open, user)
                    self.assertIn("leads out of", trouble.detail, user)
        self.assertEqual(before, self.everything())

    def test_links_inside_the_tree(self) -> None:
        """A link that stays in the tree is followed, be it absolute, relative or a chain."""
        home = make_maildir(self.tree / "real" / "Maildir")
        (self.tree / "absolute").symlink_to(self.tree / "real")
        (self.tree / "relative").symlink_to("real")
        (self.tree / "chain").symlink_to("absolute")
        (self.tree / "own").mkdir()
        (self.tree / "own" / "Maildir").symlink_to("../real/Maildir")
        with watched_descriptors():
            for user in ("absolute", "relative", "chain", "own"):
                self.assertEqual(home, self.opens(self.paths(), user))

    @skipIf(os.geteuid() != 0, "only root can give files away")
    def test_links_of_others(self) -> None:
        """A link that a user made to what belongs to another is not followed; one's own, and root's, are."""
        home = make_maildir(self.tree / "bob" / "Maildir")
        os.chown(home, 12345, -1)
        link = self.tree / "ann"
        link.symlink_to("bob")
        self.assertEqual(home, self.opens(self.paths(), "ann"))
        os.lchown(link, 12345, -1)
        self.assertEqual(home, self.opens(self.paths(), "ann"))
        os.lchown(link, 54321, -1)
        trouble = self.assertRaises(StoreTrouble, self.paths().open, "ann")
        self.assertIn("belongs to neither", trouble.detail)

    @skipIf(os.geteuid() != 0, "only root can give files away")
    def test_every_link_on_the_way(self) -> None:
        """A link of one's own is not followed through somebody else's, nor out of the tree and in again."""
        bob = make_maildir(self.tree / "bob" / "Maildir")
        os.chown(bob, 12345, -1)
        for name, target, owner in (
            ("ann", "step", 12345),
            ("step", "bob", 54321),
            ("eve", "../way", 12345),
            ("tom", f"{self.root}/way", 12345),
        ):
            (self.tree / name).symlink_to(target)
            os.lchown(self.tree / name, owner, -1)
        (self.root / "way").symlink_to("tree/bob")
        with watched_descriptors():
            self.assertIn("'step'", self.assertRaises(StoreTrouble, self.paths().open, "ann").detail)
            for user in ("eve", "tom"):
                self.assertEqual(bob, self.opens(self.paths(), user))
            os.lchown(self.root / "way", 54321, -1)
            for user in ("eve", "tom"):
                self.assertIn("'way'", self.assertRaises(StoreTrouble, self.paths().open, user).detail)

    @skipIf(os.geteuid() != 0, "only root can give files away")
    def test_not_made_behind_links_of_others(self) -> None:
        """No Maildir is made where somebody else's link leads."""
        bob = self.tree / "bob"
        bob.mkdir()
        os.chown(bob, 12345, -1)
        (self.tree / "ann").symlink_to("bob")
        os.lchown(self.tree / "ann", 54321, -1)
        with watched_descriptors():
            self.assertRaises(StoreTrouble, self.paths(create=True).open, "ann")
            self.assertEqual([], os.listdir(bob))
            os.lchown(self.tree / "ann", 0, -1)
            self.assertEqual(bob / "Maildir", self.opens(self.paths(create=True), "ann"))

    def test_loops(self) -> None:
        """Links in a circle, and dangling ones inside, are trouble."""
        (self.tree / "ann").symlink_to("bob")
        (self.tree / "bob").symlink_to("ann")
        (self.tree / "eve").symlink_to("nobody")
        with watched_descriptors():
            for create in (False, True):
                for user in ("ann", "bob", "eve"):
                    self.assertRaises(StoreTrouble, self.paths(create=create).open, user)

    def test_tree_behind_a_link(self) -> None:
        """The tree itself may be a link: that is the administrator's choice."""
        make_maildir(self.tree / "ann" / "Maildir")
        (self.tree / "bob").symlink_to("ann")
        (self.tree / "eve").symlink_to(self.root)
        (self.root / "mail").symlink_to(self.tree)
        paths = MaildirPaths(f"{self.root}/mail/{{user}}/Maildir")
        for user in ("ann", "bob"):
            self.assertEqual(self.tree / "ann" / "Maildir", self.opens(paths, user))
        self.assertRaises(StoreTrouble, paths.open, "eve")

    # -- making ----------------------------------------------------------------------------

    def test_created(self) -> None:
        """A missing Maildir is made whole, for its owner alone, with the folders above it."""
        with watched_descriptors():
            for pattern, place in (("{user}", "ann"), ("deep/{user}/mail/Maildir", "deep/ann/mail/Maildir")):
                if "/" in place:
                    (self.tree / "deep").mkdir()
                self.assertEqual(self.tree / place, self.opens(self.paths(pattern, create=True), "ann"))
                self.assertEqual({"cur", "new", "tmp"}, set(os.listdir(self.tree / place)))
                for folder in ("", "cur", "new", "tmp"):
                    self.assertEqual(0o700, (self.tree / place / folder).stat().st_mode & 0o777)
                if "/" in place:
                    self.assertEqual(0o700, (self.tree / place).parent.stat().st_mode & 0o777)
                self.assertEqual([place.rpartition("/")[2]], os.listdir((self.tree / place).parent))
                shutil.rmtree(self.tree / place.partition("/")[0])

    @skipIf(os.geteuid() != 0, "only root can give files away")
    def test_created_by_root(self) -> None:
        """What root makes belongs to the owner of the folder that it is made in, who is to open it."""
        os.chown(self.tree, 12345, 54321)
        self.opens(self.paths(create=True), "ann")
        made = [self.tree / "ann", *(self.tree / "ann").rglob("*")]
        self.assertEqual(5, len(made))
        self.assertEqual({(12345, 54321)}, {(path.stat().st_uid, path.stat().st_gid) for path in made})

    @skipIf(os.geteuid() != 0, "only root can give files away")
    def test_exchanged_while_root_makes_it(self) -> None:
        """A folder of root's that is put in the place of the new one is not given away."""
        os.chown(self.tree, 12345, 54321)
        (self.tree / "roots").mkdir()
        (self.tree / "roots" / "file").touch()
        mkdir = os.mkdir

        def exchange(path: str, *args: int, **kw: int) -> None:
            mkdir(path, *args, **kw)
            if path == "tom" or path.startswith(".new-"):
                os.rename(path, f"{path}-new", src_dir_fd=kw["dir_fd"], dst_dir_fd=kw["dir_fd"])
                os.rename(self.tree / "roots", path, dst_dir_fd=kw["dir_fd"])

        for user in ("tom", "eve"):
            self.patch(os, "mkdir", exchange)
            self.assertRaises(StoreTrouble, self.paths(create=True).open, user)
            self.patch(os, "mkdir", mkdir)
            [file] = self.tree.rglob("file")
            self.assertEqual(0, file.parent.stat().st_uid)
            file.parent.rename(self.tree / "roots")

    def test_created_once(self) -> None:
        """What is there is not made again, and what is half-made is not completed behind anybody's back."""
        maildir = self.tree / "ann" / "Maildir"
        paths = self.paths(create=True)
        self.opens(paths, "ann")
        (maildir / "new" / "1.a").write_bytes(b"x")
        (maildir / "tmp").rmdir()
        self.opens(paths, "ann")
        self.assertEqual({"cur", "new"}, set(os.listdir(maildir)))
        self.assertEqual(b"x", (maildir / "new" / "1.a").read_bytes())

    def test_created_by_somebody_else_meanwhile(self) -> None:
        """If another process makes it at the same moment, that one is taken and nothing is left over."""
        maildir = self.tree / "ann" / "Maildir"
        rename = os.rename

        def slow(source: str, target: str, **folders: int) -> None:
            self.patch(os, "rename", rename)
            make_maildir(maildir)
            (maildir / "new" / "1.a").write_bytes(b"x")
            rename(source, target, **folders)

        self.patch(os, "rename", slow)
        self.assertEqual(maildir, self.opens(self.paths(create=True), "ann"))
        self.assertEqual(b"x", (maildir / "new" / "1.a").read_bytes())
        self.assertEqual(["Maildir"], os.listdir(maildir.parent))

    @skipIf(os.getuid() != 0, "needs root to mount a small file system")
    def test_cannot_be_created(self) -> None:
        """Where it cannot be made that is trouble with a reason, and nothing half-made is left."""
        with tmpfs("size=64k") as root:
            paths = MaildirPaths(f"{root}/{{user}}/Maildir", create=True)
            make_read_only(root)
            with watched_descriptors():
                detail = self.assertRaises(StoreTrouble, paths.open, "ann").detail
            self.assertIn("making", detail)
            self.assertIn("Read-only", detail)
        with tmpfs("nr_inodes=5") as root:
            paths = MaildirPaths(f"{root}/{{user}}/Maildir", create=True)
            self.assertIn("No space", self.assertRaises(StoreTrouble, paths.open, "ann").detail)
            self.assertEqual([], os.listdir(root / "ann"))
