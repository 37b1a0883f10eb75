"""Maildirs as their administrator sees them: the contract, hostile owners, and what goes wrong."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import BadSetting, InUse, NoSuchMailbox, StoreTrouble
from pop3toy.net.threads import NoThreads
from pop3toy.stores.registry import Maildirs, OpenStore, StoreContext, kind_of

from ..corpus import make_maildir
from ..folders import new_folder
from ..store_contract import AdminContract
from ..store_world import outcome, watched_descriptors


class Administered(SynchronousTestCase):
    """A tree of Maildirs, and what the registry makes over it."""

    #: Where they are, below the root.
    PATTERN = "{user}"

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.settings = Maildirs(f"{self.root}/{self.PATTERN}")
        self.now = 1_700_000_000.0

    def maildir(self, user: str) -> Path:
        """A user's Maildir, which is made if it is missing."""
        path = self.root / self.PATTERN.replace("{user}", user)
        return path if path.exists() else make_maildir(path)

    def opened(self, settings: Maildirs | None = None) -> OpenStore:
        """The store and the way in for new mail, as a command opens them."""
        settings = settings or self.settings
        context = StoreContext(
            clock=Clock(),
            wall=lambda: self.now,
            threads=lambda name, size: NoThreads(),
            quota=lambda user: None,
            users=(),
            host="mail",
        )
        return kind_of(settings).open(settings, context)

    def admin(self, settings: Maildirs | None = None) -> Any:
        """What administers them."""
        settings = settings or self.settings
        make = kind_of(settings).admin
        assert make is not None
        return make(settings)

    def deliver(self, user: str, message: bytes = b"x: y\n\n") -> None:
        """Deliver a message to a user, whose Maildir is made."""
        self.maildir(user)
        incoming = outcome(self.opened().delivery.begin([user]))
        outcome(incoming.write(message))
        outcome(incoming.commit())


class MaildirAdminContractTests(AdminContract, Administered):
    """The contract of administration."""

    def administered(self, mail: Mapping[str, Sequence[bytes]]) -> tuple[Any, Any, Any]:
        for user, messages in mail.items():
            for number, message in enumerate(messages, 1_700_000_000):
                (self.maildir(user) / "new" / f"{number}.M1P1.mail").write_bytes(message)
            self.maildir(user)
        store, delivery, *_ = self.opened()
        return store, delivery, self.admin()


class DeeperMaildirAdminContractTests(MaildirAdminContractTests):
    """The same for Maildirs in their users' homes."""

    PATTERN = "home/{user}/mail"


class UsersTests(Administered):
    """Whose Maildirs there are."""

    def test_one_broken_hides_no_other(self) -> None:
        """A link that leads out, a half-made Maildir and a name that cannot be one hide no other user."""
        elsewhere = make_maildir(self.root / ".elsewhere")
        self.deliver("ann")
        self.deliver("zoe")
        (self.root / "bob").symlink_to("/")
        (self.root / "eve").symlink_to(elsewhere)
        (self.root / "half" / "cur").mkdir(parents=True)
        (self.root / "lost+found").mkdir()
        os.makedirs(os.fsencode(self.root) + b"/\xff/new")
        admin = self.admin()
        self.assertEqual(["ann", "eve", "half", "zoe", "\udcff"], admin.users())
        self.assertRaises(StoreTrouble, admin.list, "half")
        self.assertRaises(NoSuchMailbox, admin.list, "\udcff")
        self.assertFalse(admin.exists("lost+found"))

    def test_shared(self) -> None:
        """Of one Maildir for all nobody can tell whose it is."""
        self.assertRaises(StoreTrouble, self.admin(Maildirs(str(self.maildir("ann")))).users)

    def test_no_folder(self) -> None:
        """A disk that is not mounted is trouble, not a place without users."""
        admin = self.admin(Maildirs(f"{self.root}/missing/{{user}}"))
        self.assertRaises(StoreTrouble, admin.users)
        trouble = self.assertRaises(StoreTrouble, admin.exists, "ann")
        self.assertNotIsInstance(trouble, NoSuchMailbox)

    def test_place(self) -> None:
        """The place is looked at before anything else, and what is wrong with it names the option."""
        for path in ("missing/{user}", "missing"):
            settings = Maildirs(f"{self.root}/{path}")
            why = self.assertRaises(BadSetting, kind_of(settings).check, settings)
            self.assertEqual(("maildir", f": there is no folder {self.root}/missing"), (why.option, why.text))
        kind_of(self.settings).check(self.settings)


class ListTests(Administered):
    """What is told of messages."""

    def test_arrival(self) -> None:
        """When a message came is told by its name; where that does not say it, nobody knows."""
        for name in ("1700000000.M1P1.mail,S=6:2,S", "msg.abc", "17", "99999999999.x"):
            (self.maildir("ann") / "cur" / name).write_bytes(b"x: y\n\n")
        arrivals = {one.where.partition("/")[2]: one.arrived for one in self.admin().list("ann")}
        self.assertEqual(
            {"1700000000.M1P1.mail,S=6:2,S": 1.7e9, "msg.abc": None, "17": None, "99999999999.x": None},
            arrivals,
        )

    def test_largest_that_is_counted(self) -> None:
        """What the settings say of the largest message that is counted holds here too."""
        (self.maildir("ann") / "new" / "1700000000.a").write_bytes(b"a: b\n\nc\n")
        for most, octets, problems in ((8, 11, 0), (7, 8, 1)):
            admin = self.admin(Maildirs(self.settings.path, max_listed_size=most))
            self.assertEqual([octets], [one.octets for one in admin.list("ann")])
            self.assertEqual(problems, len(list(admin.problems("ann"))))


class RemoveTests(Administered):
    """A Maildir goes, with all that is its own."""

    PATTERN = "{user}/Maildir"

    def test_all_of_it(self) -> None:
        """Further folders, notes, FIFOs and links go too; what a link leads to and what is beside it stay."""
        self.deliver("ann")
        maildir = self.maildir("ann")
        make_maildir(maildir / ".Sent")
        (maildir / "subscriptions").write_text("Sent\n")
        os.mkfifo(maildir / "cur" / "fifo")
        target = self.root / "target"
        target.mkdir()
        (target / "kept").touch()
        (maildir / "link").symlink_to(target)
        (maildir / "cur" / "link").symlink_to(target)
        beside = self.root / "ann" / ".forward"
        beside.touch()
        with watched_descriptors():
            self.admin().remove("ann")
        self.assertEqual([beside], list((self.root / "ann").iterdir()))
        self.assertTrue((target / "kept").exists())

    def test_through_a_link(self) -> None:
        """A Maildir that a link leads to is not removed, and one line says what to do."""
        self.deliver("ann")
        (self.root / "bob").mkdir()
        (self.root / "bob" / "Maildir").symlink_to(self.maildir("ann"))
        trouble = self.assertRaises(StoreTrouble, self.admin().remove, "bob")
        self.assertIn("a link leads to it", trouble.detail)
        self.assertEqual(1, len(self.admin().list("ann")))

    def test_exchanged_above(self) -> None:
        """A home that its owner exchanges for a link to another's meanwhile costs no other's mail."""
        self.deliver("bob")
        for function in ("stat", "rename", "rmdir"):
            self.deliver("ann")
            real = getattr(os, function)

            def exchange(
                path: Any, *args: Any, real: Any = real, function: str = function, **options: Any
            ) -> Any:
                if options.get("dir_fd", options.get("src_dir_fd")) is not None or "Maildir" in str(path):
                    self.patch(os, function, real)
                    (self.root / "ann").rename(self.root / "gone")
                    (self.root / "ann").symlink_to("bob")
                return real(path, *args, **options)

            self.patch(os, function, exchange)
            with watched_descriptors():
                try:
                    self.admin().remove("ann")
                except StoreTrouble:
                    pass
            self.assertTrue((self.root / "ann").is_symlink(), function)
            self.assertEqual(["Maildir"], os.listdir(self.root / "bob"), function)
            self.assertEqual(1, len(self.admin().list("bob")), function)
            (self.root / "ann").unlink()
            shutil.rmtree(self.root / "gone")

    def test_not_all_of_it(self) -> None:
        """What cannot be removed is told with where it is now; the mailbox is gone all the same."""
        self.deliver("ann")

        def broken(*args: Any, **options: Any) -> None:
            raise OSError(errno.EIO, "Input/output error")

        real = os.rmdir
        self.patch(os, "rmdir", broken)
        trouble = self.assertRaises(StoreTrouble, self.admin().remove, "ann")
        self.patch(os, "rmdir", real)
        (left,) = os.listdir(self.root / "ann")
        self.assertIn(left, trouble.detail)
        self.assertIn(f"{self.root}/ann/Maildir", trouble.detail)
        self.assertFalse(self.admin().exists("ann"))

    def test_login_in_the_same_moment(self) -> None:
        """A login that was just let in when the Maildir went is trouble, not an empty mailbox."""
        self.deliver("ann")
        store = self.opened().store
        mailbox = outcome(store.open("ann"))
        self.assertRaises(InUse, self.admin().remove, "ann")
        mailbox.release()
        self.admin().remove("ann")
        self.assertRaises(NoSuchMailbox, lambda: outcome(store.open("ann")))
