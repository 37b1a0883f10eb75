"""A ``twisted.mail.pop3.IMailbox`` of somebody else's realm, made one of ours."""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import BytesIO, StringIO
from typing import Any

from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.mail.maildir import MaildirMailbox
from twisted.mail.pop3 import IMailbox as ITwistedMailbox
from twisted.mail.pop3 import Mailbox
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from pop3toy.auth.accounts.memory import MemoryAccounts
from pop3toy.auth.authenticator import PortalAuthenticator
from pop3toy.auth.throttle.login_throttle import LoginLimits, LoginThrottle
from pop3toy.auth.twisted_mailbox import TwistedMailbox, adapted
from pop3toy.errors import InUse, StoreTrouble
from pop3toy.interfaces import Channel, IMailbox, IMailStore, SessionRecord

from ..corpus import awkward_messages, wire_form
from ..folders import new_folder
from ..store_contract import StoreContract


@implementer(ITwistedMailbox)
class OldMailbox(Mailbox):
    """A mailbox in memory, as a program for Twisted's own server has it; ``mail`` is shared by sessions."""

    def __init__(self, mail: dict[str, bytes]) -> None:
        self.mail = mail
        self.names = list(mail)
        self.marked: list[int] = []
        self.files: list[Any] = []

    def listMessages(self, i: int | None = None) -> Any:
        """LF or CRLF, nobody knows what it counts."""
        sizes = [0 if index in self.marked else len(self.mail[name]) for index, name in enumerate(self.names)]
        return sizes if i is None else sizes[i]

    def getMessage(self, i: int) -> Any:
        """A file; for what was deleted some other one, as Twisted's Maildir opens descriptor 0."""
        if i in self.marked:
            return BytesIO(b"whatever")
        if self.names[i] not in self.mail:
            raise ValueError("no such message")
        self.files.append(BytesIO(self.mail[self.names[i]]))
        return self.files[-1]

    def getUidl(self, i: int) -> Any:
        """The name."""
        return self.names[i].encode()

    def deleteMessage(self, i: int) -> None:
        """Mark it; a second time is an error, as in Twisted's Maildir."""
        if i in self.marked:
            raise TypeError("deleted twice")
        if self.names[i] not in self.mail:
            raise ValueError("no such message")
        self.marked.append(i)

    def undeleteMessages(self) -> None:
        """Unmark all."""
        self.marked.clear()

    def sync(self) -> Any:
        """Remove what is marked."""
        for index in self.marked:
            self.mail.pop(self.names[index], None)


@implementer(IMailStore)
class OldStore:
    """What such a program's realm does, as a store: it hands out adapted mailboxes."""

    def __init__(self, user: str, messages: Sequence[bytes]) -> None:
        self.user = user
        self.mail = {f"Uid.{number}": message for number, message in enumerate(messages)}
        self.count = len(messages)

    def open(self, user: str) -> Any:
        """A new session's mailbox."""
        if user != self.user:
            raise StoreTrouble
        return TwistedMailbox(OldMailbox(self.mail))


class AdapterContractTests(StoreContract, SynchronousTestCase):
    """The contract of a store, but for the lock, which is the realm's business."""

    LOCKS = False
    EMPTY_MESSAGES = False
    KNOWS_ARRIVAL = False

    def store(self, messages: Sequence[bytes]) -> OldStore:
        return OldStore(self.USER, messages)

    def arrive(self, store: OldStore, message: bytes) -> None:
        store.mail[f"Uid.{store.count}"] = message
        store.count += 1

    def take_away(self, store: OldStore, index: int) -> None:
        del store.mail[list(store.mail)[index]]


class TwistedMaildirTests(SynchronousTestCase):
    """Twisted's own Maildir, whose files are opened as text."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.path = self.root / "ann"
        self.mailbox()
        self.corpus = [one for one in awkward_messages(large=False) if one.stored]
        for number, one in enumerate(self.corpus):
            (self.path / "new" / f"{number:04}").write_bytes(one.stored)

    def mailbox(self) -> Any:
        """A session's adapted mailbox."""
        return TwistedMailbox(MaildirMailbox(os.fsencode(self.path)))

    def octets_of(self, mailbox: Any, uid: bytes) -> bytes:
        """A message as its file has it."""
        body = mailbox.read(uid)
        pieces = []
        while not body.done:
            pieces.append(body.pull())
        body.close(None)
        return b"".join(pieces)

    def test_octets(self) -> None:
        """8-bit mail, NULs and bare CRs come through unchanged, and are counted exactly."""
        mailbox = self.mailbox()
        for one, entry in zip(self.corpus, mailbox.entries, strict=True):
            self.assertEqual((one.name, len(one.wire)), (one.name, entry.octets))
            assert self.octets_of(mailbox, entry.uid) == one.stored, one.name


class AdapterTests(SynchronousTestCase):
    """What old mailboxes do, and what comes of it."""

    def test_registered(self) -> None:
        """An old mailbox adapts to our port by itself."""
        mailbox = IMailbox(OldMailbox({"x": b"a\n\n"}))
        self.assertTrue(verifyObject(IMailbox, mailbox))
        self.assertEqual([(b"x", 5, None)], [tuple(entry) for entry in mailbox.entries])

    def test_deleted_before(self) -> None:
        """A message whose size is 0 is one that is deleted already; the indices of the others stay right."""
        old = OldMailbox({"a": b"a\n\n", "b": b"b\n\n", "c": b"c\n\n"})
        old.deleteMessage(1)
        mailbox = TwistedMailbox(old)
        self.assertEqual([b"a", b"c"], [entry.uid for entry in mailbox.entries])
        self.assertEqual(b"c\n\n", mailbox.read(b"c").pull())

    def test_strange_unique_ids(self) -> None:
        """Unique-ids that are text, too long, empty, the same, or alike but for case become valid ones."""
        given = ["Plain", "Plain", "plain", "PLAIN", "", "with space", "x" * 71, "ü", "\udc80"]
        old = OldMailbox({str(number): b"x\n\n" for number in range(len(given))})
        self.patch(old, "getUidl", lambda i: given[i])
        uids = [entry.uid for entry in TwistedMailbox(old).entries]
        self.assertEqual(b"Plain", uids[0])
        self.assertEqual(len(given), len({uid.lower() for uid in uids}))
        for uid in uids:
            self.assertRegex(uid, rb"\A[\x21-\x7e]{1,70}\Z")
        self.assertEqual(uids, [entry.uid for entry in TwistedMailbox(old).entries])

    def test_strange_unique_ids_stay(self) -> None:
        """A hashed unique-id does not change when an earlier message goes."""
        given = {"0": "other", "1": "with space", "2": "same", "3": "same"}
        old = OldMailbox(dict.fromkeys(given, b"x\n\n"))
        self.patch(old, "getUidl", lambda i: given[old.names[i]])
        before = [entry.uid for entry in TwistedMailbox(old).entries]
        old.names.remove("0")
        self.assertEqual(before[1:], [entry.uid for entry in TwistedMailbox(old).entries])

    def test_text(self) -> None:
        """A mailbox that hands out text is read as UTF-8."""
        old = OldMailbox({"a": b"x"})
        text = "Subject: ü\n\n" + "ü" * 300_000
        self.patch(old, "getMessage", lambda i: StringIO(text))
        mailbox = TwistedMailbox(old)
        self.assertEqual(len(wire_form(text.encode())), mailbox.entries[0].octets)

    def test_files_are_closed(self) -> None:
        """Every file is closed: after counting, after reading, after giving up, after an error."""
        old = OldMailbox({"a": b"a" * 1_000_000})
        mailbox = TwistedMailbox(old)
        body = mailbox.read(b"a")
        body.pull()
        body.close(None)
        self.assertEqual([True, True], [file.closed for file in old.files])

        class Broken(BytesIO):
            def read(self, *args: Any) -> bytes:
                raise OSError(5, "Input/output error")

        broken = Broken()
        self.patch(old, "getMessage", lambda i: broken)
        self.assertRaises(StoreTrouble, TwistedMailbox, old)
        self.assertTrue(broken.closed)

    def test_reading_fails(self) -> None:
        """A file that breaks while it is read is trouble, and does not look like the end."""
        old = OldMailbox({"a": b"a" * 1_000_000})
        mailbox = TwistedMailbox(old)
        body = mailbox.read(b"a")
        body.pull()
        old.files[-1].close()
        self.assertRaises(StoreTrouble, body.pull)
        self.assertEqual(False, body.done)

    def test_deferred_listing(self) -> None:
        """A mailbox that lists later is adapted when it has; the constructor cannot wait, and says so."""
        old = OldMailbox({"a": b"A: b\n\n"})
        listing: Deferred[Any] = Deferred()
        self.patch(old, "listMessages", lambda i=None: listing)
        adapting = adapted(old)
        assert isinstance(adapting, Deferred)
        self.assertNoResult(adapting)
        listing.callback([6])
        self.assertEqual([(b"a", 8, None)], list(self.successResultOf(adapting).entries))
        self.patch(old, "listMessages", lambda i=None: succeed([]))
        self.assertIn("IMailbox", self.assertRaises(StoreTrouble, TwistedMailbox, old).detail)

    def login(self, old: OldMailbox, left: list[object], throttle: LoginThrottle | None = None) -> Any:
        """What comes of a login at a realm that yields this mailbox; its logout may be waited for."""
        free: Deferred[None] = Deferred()

        @implementer(IRealm)
        class Realm:
            def requestAvatar(self, avatar_id: object, mind: object, *interfaces: Any) -> Any:
                return ITwistedMailbox, old, logout

        def logout() -> Deferred[None] | None:
            left.append(b"ann" if throttle is None else free)
            return None if throttle is None else free

        authenticator = PortalAuthenticator(
            Portal(Realm(), [MemoryAccounts({"ann": "secret"})]), throttle=throttle
        )
        record = SessionRecord(1, Channel("127.0.0.1", local=True))
        return authenticator.password(b"ann", b"secret", record)

    def test_login_waits(self) -> None:
        """A login waits for the listing of such a mailbox; if that fails, the realm hears that it is over."""
        listing: Deferred[Any] = Deferred()
        old = OldMailbox({"a": b"A: b\n\n"})
        self.patch(old, "listMessages", lambda i=None: listing)
        left: list[object] = []
        login = self.login(old, left)
        self.assertNoResult(login)
        listing.callback([6])
        self.assertEqual([(b"a", 8, None)], list(self.successResultOf(login).mailbox.entries))
        self.assertEqual([], left)
        self.patch(old, "listMessages", lambda i=None: fail(StoreTrouble()))
        self.assertRaises(StoreTrouble, self.login, old, left)
        self.assertEqual([b"ann"], left)

    def test_session_counts_until_the_mailbox_is_free(self) -> None:
        """So does the session of a listing that fails, once, when giving back takes a while."""
        old, left, throttle = (
            OldMailbox({}),
            list[Any](),
            LoginThrottle(Clock(), LoginLimits(sessions_per_user=1)),
        )
        self.patch(old, "listMessages", lambda i=None: fail(StoreTrouble()))
        self.assertRaises(StoreTrouble, self.login, old, left, throttle)
        self.assertRaises(InUse, throttle.enter, "ann")
        left[0].callback(None)
        throttle.enter("ann")
        self.assertRaises(InUse, throttle.enter, "ann")

    def test_deferred_message(self) -> None:
        """So is one that gives its messages later."""
        old = OldMailbox({"a": b"a"})
        self.patch(old, "getMessage", lambda i: Deferred())
        self.assertIn("IMailbox", self.assertRaises(StoreTrouble, TwistedMailbox, old).detail)

    def test_deferred_sync(self) -> None:
        """A removal is over when a deferred ``sync`` is."""
        old = OldMailbox({"a": b"a"})
        syncing: Deferred[object] = Deferred()
        self.patch(old, "sync", lambda: syncing)
        removal = TwistedMailbox(old).remove([b"a"])
        assert isinstance(removal, Deferred)
        self.assertNoResult(removal)
        syncing.callback("whatever")
        self.assertEqual(None, self.successResultOf(removal))

    def test_one_cannot_be_deleted(self) -> None:
        """If one message cannot be deleted the others are, and then the removal fails."""
        old = OldMailbox({"a": b"a", "b": b"b", "c": b"c"})
        delete = old.deleteMessage

        def fussy(index: int) -> None:
            if index == 0:
                raise RuntimeError("secret")
            delete(index)

        self.patch(old, "deleteMessage", fussy)
        mailbox = TwistedMailbox(old)
        trouble = self.assertRaises(StoreTrouble, mailbox.remove, [b"a", b"b"])
        self.assertNotIn("secret", trouble.text + trouble.detail)
        self.assertEqual(["a", "c"], list(old.mail))
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))

    def test_nothing_is_deleted_before_the_end(self) -> None:
        """Releasing without a removal neither deletes nor syncs."""
        old = OldMailbox({"a": b"a"})
        self.patch(old, "sync", lambda: self.fail("synced"))
        mailbox = TwistedMailbox(old)
        mailbox.read(b"a").close(None)
        mailbox.release()
        mailbox.release()
        self.assertEqual([], old.marked)
