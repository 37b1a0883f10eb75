"""Old mail goes: which messages, under which lock, and by the server's own timer."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pop3toy.config.settings import Settings
from pop3toy.errors import BadSetting, InUse, StoreTrouble
from pop3toy.interfaces import Entry, IMailStore
from pop3toy.net.threads import NoThreads
from pop3toy.run.assembly import server
from pop3toy.run.sharing.expiry import FIRST, INTERVAL, Expiry
from pop3toy.stores.expiring import DAY, Rule, expired, remove_expired
from pop3toy.stores.maildir.admin import MaildirAdmin
from pop3toy.stores.maildir.removed.folder import FOLDER
from pop3toy.stores.maildir.settings import Maildirs
from pop3toy.stores.maildir.store import MaildirStore

from ..memory_world import MemoryCase
from ..store_world import outcome

_T = TypeVar("_T")

NOW = 1_700_000_000.0


def entries(*days: float | None) -> list[Entry]:
    """Messages that came so many days ago."""
    return [Entry(b"%d" % at, 10, None if age is None else NOW - age * DAY) for at, age in enumerate(days)]


class RuleTests(SynchronousTestCase):
    """Which messages go."""

    def gone(self, rule: Rule, *days: float | None) -> list[int]:
        """The places of the messages that go."""
        return [int(message.uid) for message in expired(entries(*days), rule, NOW)]

    def test_age(self) -> None:
        """What came more than so many days ago; not what came just then, nor when nobody knows."""
        self.assertEqual(self.gone(Rule(older_than=3 * DAY), 4, 3, 3.001, None, 0), [0, 2])

    def test_keep(self) -> None:
        """The newest stay, in whatever order they are listed; of the same age those listed last."""
        self.assertEqual(self.gone(Rule(keep=2), 1, 9, 5, None, 5), [1, 2, 4])
        self.assertEqual(self.gone(Rule(keep=2), 5, 5, 5), [0])
        self.assertEqual(self.gone(Rule(keep=3), 5, 5, 5), [])
        self.assertEqual(self.gone(Rule(keep=9), 5), [])
        self.assertEqual(self.gone(Rule(), 5, 6), [0, 1])

    def test_all_hold(self) -> None:
        """A message goes if all conditions say so."""
        rule = Rule(older_than=3 * DAY, keep=1, among={b"0", b"1", b"3"})
        self.assertEqual(self.gone(rule, 9, 1, 9, 8), [0, 3])
        self.assertEqual(self.gone(rule, 9, 7, 9, 6), [0, 1])


class MaildirCase(SynchronousTestCase):
    """Maildirs with messages of known ages."""

    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        self.where = Maildirs(f"{self.root}/{{user}}")
        self.store = MaildirStore(self.where, NoThreads().run)
        self.admin = MaildirAdmin(self.where, wall=lambda: NOW)

    def message(self, user: str, days: float, folder: str = "new", flags: str = "") -> Path:
        """A message that came so many days ago."""
        for part in ("new", "cur", "tmp"):
            (self.root / user / part).mkdir(parents=True, exist_ok=True)
        path = self.root / user / folder / f"{int(NOW - days * DAY)}.M1P{days:g}.host{flags}"
        path.write_bytes(b"Subject: x\n\nx\n")
        return path

    def left(self, user: str) -> int:
        """How many messages a user has."""
        return len(self.admin.list(user))


class RemovalTests(MaildirCase):
    """Their removal under a lock."""

    def remove(self, user: str = "ann") -> tuple[int, int]:
        """Remove what is older than three days."""
        rule = Rule(older_than=3 * DAY)
        return self.successResultOf(Deferred.fromCoroutine(remove_expired(self.store, user, rule, NOW)))

    def test_removed(self) -> None:
        """Old ones go, from both folders; the mailbox is free behind it."""
        old = [self.message("ann", 9), self.message("ann", 4, "cur", ":2,")]
        new = self.message("ann", 2)
        self.assertEqual(self.remove(), (2, 2 * 17))
        self.assertEqual([path.exists() for path in (*old, new)], [False, False, True])
        self.assertEqual(self.remove(), (0, 0))

    def test_in_use(self) -> None:
        """Nothing is removed within an open session."""
        old = self.message("ann", 9)
        session: Any = outcome(self.store.open("ann"))
        removal = Deferred.fromCoroutine(remove_expired(self.store, "ann", Rule(), NOW))
        self.failureResultOf(removal, InUse)
        self.assertTrue(old.exists())
        session.release()
        self.assertEqual(self.remove()[0], 1)


class TimerTests(MaildirCase):
    """The server's own rounds."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.in_thread: Callable[..., Deferred[Any]] = execute
        self.expiry = Expiry(
            self.store,
            self.admin,
            3,
            self.run_in_thread,
            self.clock,
            wall=lambda: NOW + self.clock.seconds(),
        )
        self.expiry.startService()

    def run_in_thread(self, function: Callable[..., _T], *args: object) -> Deferred[_T]:
        """As the test says."""
        return self.in_thread(function, *args)

    def told(self, seconds: float) -> list[str]:
        """What is told when so many seconds have passed."""
        with capturedLogs() as events:
            self.clock.advance(seconds)
        return [formatEvent(event) or "" for event in events]

    def test_rounds(self) -> None:
        """Soon after the start, and then every few hours, with a line for each mailbox that had old mail."""
        self.message("ann", 9)
        self.message("ann", 2.9)
        self.message("bob", 2)
        self.assertEqual(self.told(FIRST - 1), [])
        self.assertEqual(self.told(1), ["expired: user='ann' removed=1 octets=17 days=3"])
        self.assertEqual((self.left("ann"), self.left("bob")), (1, 1))
        self.assertEqual(self.told(INTERVAL), ["expired: user='ann' removed=1 octets=17 days=3"])
        self.assertEqual(self.told(INTERVAL), [])
        self.successResultOf(self.expiry.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_left_to_the_next(self) -> None:
        """A mailbox that is open is left for the next round; one that is broken does not keep the others."""
        self.message("ann", 9)
        self.message("bob", 9)
        shutil.rmtree(self.root / "bob" / "cur")
        self.message("cat", 9)
        session: Any = outcome(self.store.open("ann"))
        told = self.told(FIRST)
        self.assertEqual(len(told), 2, told)
        self.assertIn("old mail of 'bob': ", told[0])
        self.assertIn("expired: user='cat'", told[1])
        self.assertEqual(self.left("ann"), 1)
        session.release()
        self.assertIn("expired: user='ann' removed=1 octets=17 days=3", self.told(INTERVAL))

    def test_stop(self) -> None:
        """Whoever stops it waits for the mailbox at hand; no other is begun, and no other round."""
        self.message("ann", 9)
        asked: list[Deferred[Any]] = []

        def later(*what: Any) -> Deferred[Any]:
            asked.append(Deferred())
            return asked[-1]

        self.in_thread = later
        self.clock.advance(FIRST)
        asked[0].callback(["ann", "bob"])
        stopped = self.expiry.stopService()
        self.assertNoResult(stopped)
        asked[1].callback(self.admin.list("ann"))
        self.successResultOf(stopped)
        self.assertEqual((len(asked), self.left("ann")), (2, 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_list(self) -> None:
        """If it cannot be told who there is, that is told, and tried again."""

        def fails(*what: Any) -> Deferred[Any]:
            raise_it: Deferred[Any] = Deferred()
            raise_it.errback(StoreTrouble(detail="the disk is gone"))
            return raise_it

        self.message("ann", 9)
        self.in_thread = fails
        self.assertEqual(self.told(FIRST), ["no old mail is removed: the disk is gone"])
        self.in_thread = execute
        self.assertEqual(len(self.told(INTERVAL)), 1)


class ForgettingTests(MaildirCase):
    """What clients have removed, and is kept for so many days."""

    def kept(self, user: str, days: float) -> Path:
        """A message that was removed so many days ago, and came long before."""
        path = self.message(user, 100)
        when = time.strftime("%Y%m%dT%H%M%S.000000Z", time.gmtime(NOW - days * DAY))
        folder = self.root / user / FOLDER / when
        folder.mkdir(parents=True)
        return path.rename(folder / path.name)

    def round(self, undo_days: int | None) -> list[str]:
        """What is told of a round."""
        clock = Clock()
        expiry = Expiry(
            self.store, self.admin, None, NoThreads().run, clock, undo_days=undo_days, wall=lambda: NOW
        )
        expiry.startService()
        with capturedLogs() as events:
            clock.advance(FIRST)
        self.successResultOf(expiry.stopService())
        return [formatEvent(event) or "" for event in events]

    def test_in_time(self) -> None:
        """It goes when it has been kept that long; sooner if the days have become fewer, or none."""
        paths = [self.kept("ann", days) for days in (7.1, 6.9, 2, 0.01)]
        told = "removed for good: user='ann' removed={} octets={} days={}"
        self.assertEqual(self.round(7), [told.format(1, 14, 7)])
        self.assertEqual(self.round(7), [])
        self.assertEqual(self.round(3), [told.format(1, 14, 3)])
        self.assertEqual([path.exists() for path in paths], [False, False, True, True])
        self.assertEqual(self.round(0), [told.format(2, 28, 0)])
        self.assertFalse((self.root / "ann" / FOLDER).exists())

    def test_in_use(self) -> None:
        """A mailbox that is open is left to the next round."""
        path = self.kept("ann", 9)
        session: Any = outcome(self.store.open("ann"))
        self.assertEqual((self.round(7), path.exists()), ([], True))
        session.release()
        self.assertEqual((len(self.round(7)), path.exists()), (1, False))

    def test_not_said(self) -> None:
        """A server that is told nothing lets alone what another one keeps in the same Maildirs."""
        path = self.kept("ann", 999)
        self.assertEqual((self.round(None), path.exists()), ([], True))

    def test_trouble(self) -> None:
        """What cannot be looked at is told, and the others have their turn."""
        self.kept("ann", 9)
        (self.root / "ann" / FOLDER).rename(self.root / "away")
        (self.root / "ann" / FOLDER).symlink_to(self.root / "away")
        path = self.kept("bob", 9)
        self.assertIn("old mail of 'ann': ", self.round(7)[0])
        self.assertFalse(path.exists())


@implementer(IMailStore)
class _OnlyOpens:
    """A store that cannot be administered."""


class SettingTests(MemoryCase):
    """The option."""

    def test_server(self) -> None:
        """A server with the option announces it and goes round."""
        folder = Path(self.mktemp()).absolute()
        for part in ("new", "cur", "tmp"):
            (folder / "ann" / part).mkdir(parents=True)
        store = Maildirs(f"{folder}/{{user}}")
        parts = self.started(Settings(store=store, users=(("ann", "pass"),), expire_days=30))
        self.assertEqual(sum(isinstance(part, Expiry) for part in parts), 1)
        self.assertIn(b"\r\nEXPIRE 30\r\n", self.talk(2590, b"CAPA"))

    def test_own_store(self) -> None:
        """A store of another program's has to tell what is there."""
        settings = Settings(users=(("ann", "pass"),), expire_days=30)
        with self.assertRaises(BadSetting) as caught:
            server(self.reactor, settings, store=_OnlyOpens())
        self.assertIn("IStoreAdmin", str(caught.exception))

    def test_toy(self) -> None:
        """The built-in mailbox has no old mail."""
        with self.assertRaises(BadSetting) as caught:
            Settings(expire_days=3).check_whole()
        self.assertIn("expire-days", str(caught.exception))
