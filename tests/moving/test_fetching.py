"""``moving.fetching``: a mailbox comes over by POP3, whatever its server does."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import NoSuchMailbox
from pop3toy.moving.fetching import Account, RemoteMailbox
from pop3toy.moving.login import session
from pop3toy.moving.server import Server, Trouble
from pop3toy.stores.copying.counts import Counts
from pop3toy.stores.copying.journal import Journal
from pop3toy.stores.copying.mailbox import copy_mailbox
from pop3toy.stores.copying.messages import Source, Store
from pop3toy.stores.registry import Maildirs, kind_of
from pop3toy.testing import RunningServer, running_server

from ..corpus import wire_form
from ..stores.test_copying import ObjectSide

PASSWORD = "open sesame"
NOW = 1_800_000_000.0


def mail(number: int) -> bytes:
    """One of many messages, of a minute of its own."""
    return b"Received: from x by y; Mon, 1 Jan 2024 10:%02d:00 +0000\nSubject: %d\n\n.%d\n" % (
        number,
        number,
        number,
    )


class FetchingCase(SynchronousTestCase):
    """A server, and Maildirs into which its mail comes."""

    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        (self.root / "mail").mkdir()
        copied = kind_of(Maildirs(f"{self.root}/mail/{{user}}")).copied
        assert copied is not None
        self.target: Store = copied(Maildirs(f"{self.root}/mail/{{user}}"))
        self.time = 1000.0
        self.said: list[str] = []
        self.waits: list[float] = []
        self.before_wait: Callable[[], object] = lambda: None

    def served(self, messages: Sequence[bytes] | None = None, **options: Any) -> RunningServer:
        """A server with the mailbox of ann; four messages if not said otherwise."""
        mailboxes = {"ann": [mail(number) for number in range(4)] if messages is None else list(messages)}
        context = running_server(mailboxes, {"ann": PASSWORD}, **options)
        self.server: RunningServer = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return self.server

    def wait(self, seconds: float) -> None:
        """Time goes on, here and there."""
        self.waits.append(seconds)
        self.before_wait()
        self.time += seconds
        self.server.clock.advance(seconds)

    def known(self) -> set[bytes]:
        """What is there, or has been."""
        try:
            with self.target.mailbox("ann") as ours:
                journal = Journal(ours.journal("pop3://ann@host"))
                return {one.uid for one in ours.list()} | journal.done | journal.same
        except NoSuchMailbox:
            return set()

    def fetch(self, *, stop: Callable[[], bool] = lambda: False, timeout: float = 20.0) -> Counts:
        """Bring the mailbox over, as the command does."""
        where = Server("127.0.0.1", self.server.port, timeout=timeout)
        account = Account(
            lambda: session(where, "ann", PASSWORD, lambda: self.time),
            clock=lambda: self.time,
            wait=self.wait,
            tell=self.said.append,
        )
        source = RemoteMailbox("pop3://ann@host", "ann", account, known=self.known, now=lambda: NOW)
        return copy_mailbox("ann", source, self.target, tell=self.said.append, stop=stop)

    def there(self) -> list[tuple[bytes, bytes]]:
        """What has come: unique-ids, and messages in wire form."""
        with self.target.mailbox("ann") as ours:
            return [(one.uid, wire_form(self.read(ours, one))) for one in ours.list()]

    @staticmethod
    def read(mailbox: Source, one: Any) -> bytes:
        """All of a message."""
        return b"".join(mailbox.read(one))

    def at_the_server(self) -> list[tuple[bytes, bytes]]:
        """What a client of the server sees."""
        box = self.server.mailbox("ann")
        return [
            (uid.encode(), wire_form(bytes(one))) for uid, one in zip(box.uids, box.messages, strict=True)
        ]

    def commands(self, word: str) -> list[str]:
        """Of all sessions, those that begin so."""
        return [one for all_ in self.server.sessions for one in all_.commands if one.split()[0] == word]


class FetchTests(FetchingCase):
    """A server that does everything right."""

    def test_all(self) -> None:
        """Everything comes, with unique-ids, in order and with its times; nothing is removed or said."""
        self.served()
        counts = self.fetch()
        self.assertEqual((counts.copied, counts.failed), (4, 0))
        self.assertEqual(self.there(), self.at_the_server())
        with self.target.mailbox("ann") as ours:
            times = [one.micros // 1_000_000 for one in ours.list()]
        self.assertEqual(times, [1704103200 + 60 * number for number in range(4)])
        self.assertEqual(self.said, [])
        self.assertEqual(self.commands("DELE"), [])
        self.assertEqual([one.ended is not None for one in self.server.sessions], [True, True])

    def test_again(self) -> None:
        """A second run fetches nothing, one after new mail only that, in one login more."""
        self.served()
        self.fetch()
        before = len(self.commands("RETR"))
        self.assertEqual(self.fetch().there, 4)
        self.assertEqual(len(self.commands("RETR")), before)
        self.server.deliver("ann", mail(4))
        self.assertEqual(self.fetch().copied, 1)
        self.assertEqual(self.commands("RETR")[before:], ["RETR 5"])
        self.assertEqual(self.there(), self.at_the_server())

    def test_deleted_here(self) -> None:
        """What its owner has deleted here stays away, and is not fetched."""
        self.served()
        self.fetch()
        with self.target.mailbox("ann") as ours:
            ours.remove(ours.list()[1:2])
        before = len(self.commands("RETR"))
        counts = self.fetch()
        self.assertEqual((counts.taken, counts.there, counts.copied), (1, 3, 0))
        self.assertEqual(len(self.commands("RETR")), before)

    def test_there_by_other_means(self) -> None:
        """A message that came in another way with its unique-id is compared once, and not doubled."""
        self.served()
        uid = self.at_the_server()[0][0].decode()
        with self.target.mailbox("ann", make=True):
            pass
        (self.root / "mail/ann/new/1704103200.M1.x").write_bytes(mail(0))
        (self.root / "mail/ann/pop3toy-uidl").write_text(f"pop3toy-uidl 1\n{uid} 1704103200.M1.x\n")
        self.assertEqual(self.fetch().copied, 3)
        self.assertEqual(self.there(), self.at_the_server())
        self.assertEqual(self.commands("RETR").count("RETR 1"), 1)

    def test_large(self) -> None:
        """A message that is not kept in memory is the same."""
        self.served([b"Subject: x\n\n" + b"0123456789abcdef" * 150_000])
        self.fetch()
        self.assertEqual(self.there(), self.at_the_server())

    def test_nothing(self) -> None:
        """An empty mailbox is no trouble."""
        self.served([])
        self.assertEqual(self.fetch(), Counts())


class IntoObjectsTests(FetchingCase):
    """The same into object storage."""

    def setUp(self) -> None:
        super().setUp()
        self.target = ObjectSide(self).store

    def test_all(self) -> None:
        """Everything comes, with unique-ids and in order, and once."""
        self.served()
        self.assertEqual(self.fetch().copied, 4)
        self.assertEqual(self.there(), self.at_the_server())
        self.server.deliver("ann", mail(4))
        counts = self.fetch()
        self.assertEqual((counts.copied, counts.there), (1, 4))
        self.assertEqual(self.there(), self.at_the_server())


class WrongTests(FetchingCase):
    """Servers that do something wrong, and networks."""

    def test_cut(self) -> None:
        """A connection that breaks within a message is made again; each message comes once, and whole."""
        self.served()
        self.server.faults.add("drop", command="RETR", nth=2, octets=50)
        self.assertEqual(self.fetch().copied, 4)
        self.assertEqual(self.there(), self.at_the_server())
        self.assertIn("closes the connection in its answer to RETR 2; connecting again", self.said[0])
        self.assertEqual(len(self.said), 1)

    def test_cut_always(self) -> None:
        """One that always breaks there is given up; what came before is kept, and not fetched again."""
        self.served()
        # The first session only lists.
        self.server.faults.add("drop-before-dot", command="RETR", session=2, nth=3)
        self.server.faults.add("drop-before-dot", command="RETR", session=3)
        self.server.faults.add("drop-before-dot", command="RETR", session=4)
        self.assertRaises(Trouble, self.fetch)
        self.assertEqual(self.there(), self.at_the_server()[:2])
        before = len(self.commands("RETR"))
        self.assertEqual(self.fetch().copied, 2)
        self.assertEqual(self.commands("RETR")[before:], ["RETR 3", "RETR 4"])
        self.assertEqual(self.there(), self.at_the_server())

    def test_silent(self) -> None:
        """One that says nothing any more is left after the time for an answer."""
        self.served()
        self.server.faults.add("silence", command="RETR", times=1)
        self.fetch(timeout=0.5)
        self.assertIn("says nothing for 0.5 s in answer to RETR", self.said[0])
        self.assertEqual(self.there(), self.at_the_server())

    def test_vanished(self) -> None:
        """A message that the server refuses is told, and the others come; the next run tries it again."""
        self.served()
        fault = self.server.faults.add("vanished", message=2)
        counts = self.fetch()
        self.assertEqual((counts.copied, counts.failed), (3, 1))
        self.assertIn("refuses RETR 2", self.said[0])
        self.server.faults.remove(fault)
        self.assertEqual(self.fetch().copied, 1)
        self.assertEqual(self.there(), self.at_the_server())

    def test_changing(self) -> None:
        """Where unique-ids are others in each session nothing is fetched, for it would be again and again."""
        self.served()
        self.server.faults.add("uidl-changing")
        error = self.assertRaises(Trouble, self.fetch)
        self.assertIn("other unique-ids in each session", error.detail)
        self.assertEqual(self.commands("RETR"), [])

    def test_changing_after_a_cut(self) -> None:
        """The same where that is seen only when the connection has broken."""
        self.served()
        self.server.faults.add("uidl-changing", session=3)
        self.server.faults.add("drop", command="RETR", nth=3)
        self.assertRaises(Trouble, self.fetch)

    def test_duplicates(self) -> None:
        """Messages that share a unique-id all come, the first with it, and once."""
        self.served([mail(1), mail(2), mail(1)])
        self.server.faults.add("uidl-duplicate", uid="same")
        self.assertEqual(self.fetch().copied, 3)
        self.assertEqual(self.there()[0][0], b"same")
        self.assertEqual([text for _, text in self.there()], [text for _, text in self.at_the_server()])
        self.assertIn("2 messages had the unique-id of another", self.said[0])
        self.assertEqual(self.fetch().copied, 0)

    def test_forbidden(self) -> None:
        """Unique-ids that are too long are replaced by the same at each run, and that is said once."""
        self.served()
        self.server.faults.add("uidl-long", octets=200)
        self.assertEqual(self.fetch().copied, 4)
        self.assertEqual(len([one for one in self.said if "RFC 1939 forbids" in one]), 1)
        self.assertEqual(self.fetch().copied, 0)

    def test_left_out(self) -> None:
        """A message without unique-id ends it, one without size does not."""
        self.served()
        fault = self.server.faults.add("uidl-missing", message=1)
        error = self.assertRaises(Trouble, self.fetch)
        self.assertIn("leaves 1 of 4 messages out of UIDL", error.detail)
        self.server.faults.remove(fault)
        self.server.faults.add("list-missing", message=1)
        self.assertEqual(self.fetch().copied, 4)

    def test_wrong_sizes(self) -> None:
        """That a server counts wrong is told once, and changes no message."""
        self.served()
        self.server.faults.add("wrong-size", command="LIST")
        self.fetch()
        self.assertEqual(self.there(), self.at_the_server())
        self.assertEqual(self.said, ["4 messages had other sizes than LIST said; all are whole"])

    def test_without_top(self) -> None:
        """Without TOP the time is that of now, for all."""
        self.served()
        self.server.faults.add("not-implemented", command="TOP")
        self.fetch()
        self.assertEqual(self.there(), self.at_the_server())
        self.assertEqual(len(self.said), 1)
        with self.target.mailbox("ann") as ours:
            self.assertEqual({one.micros // 1_000_000 for one in ours.list()}, {int(NOW)})

    def test_cut_in_top(self) -> None:
        """A server that fails at TOP gives out its messages."""
        self.served()
        self.server.faults.add("drop", command="TOP", nth=3)
        self.assertEqual(self.fetch().copied, 4)
        self.assertEqual(self.there(), self.at_the_server())

    def test_removes_what_is_fetched(self) -> None:
        """EXPIRE 0: the session ends without QUIT, so that nothing is removed there."""
        self.served()
        self.server.faults.add("capa", lines=["UIDL", "TOP", "USER", "EXPIRE 0", "PIPELINING"])
        self.fetch()
        self.assertEqual(self.there(), self.at_the_server())
        self.assertNotIn("QUIT", self.server.sessions[-1].commands)
        self.assertIn("left without QUIT", self.said[0])


class DelayTests(FetchingCase):
    """Logins are as rare as the server wants them (RFC 2449 section 6.5)."""

    def test_delay(self) -> None:
        """After a cut the next login comes when the delay is over, and none before."""
        self.served(login_delay=120)
        self.server.faults.add("drop", command="RETR", nth=2)
        self.fetch()
        self.assertEqual(self.there(), self.at_the_server())
        self.assertEqual(self.waits, [120.0])
        self.assertEqual(len(self.server.sessions), 2)
        self.assertIn("waiting 120 s: the server asks for that time between logins", self.said)

    def test_refused(self) -> None:
        """A login that comes too early, by an earlier run, is tried again as the server's code says."""
        self.served(login_delay=50)
        self.fetch()
        self.server.deliver("ann", mail(4))
        self.said.clear()
        self.assertEqual(self.fetch().copied, 1)
        self.assertEqual(self.waits, [60.0])
        self.assertIn("wants a longer wait before the next login of ann", self.said[0])

    def test_in_use(self) -> None:
        """A mailbox that is in use is waited for, and given up after a minute."""
        self.served()
        self.server.faults.add("login-refused", code="IN-USE", times=2)
        self.assertEqual(self.fetch().copied, 4)
        self.assertEqual(self.waits, [6.0, 6.0])
        self.server.faults.add("login-refused", code="IN-USE")
        error = self.assertRaises(Trouble, self.fetch)
        self.assertIn("busy with another session of ann", error.detail)
        self.assertEqual(len(self.waits), 2 + 9)
