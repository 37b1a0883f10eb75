"""Several checkers as one, and the login policy that all logins go through."""

from __future__ import annotations

import hashlib
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.cred.strcred import makeChecker
from twisted.internet.defer import Deferred, fail, succeed
from twisted.mail.pop3 import IMailbox as ITwistedMailbox
from twisted.mail.pop3 import Mailbox
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from pop3toy.auth.accounts.memory import MemoryAccounts
from pop3toy.auth.authenticator import PortalAuthenticator
from pop3toy.auth.chain import AnyOf
from pop3toy.auth.credentials import ApopDigest, ClearPassword
from pop3toy.auth.login import LoginContext
from pop3toy.auth.realm import MailboxRealm
from pop3toy.auth.sources import IAccountSource
from pop3toy.errors import AuthenticationFailed, StoreTrouble
from pop3toy.interfaces import IMailbox, MaybeDeferred

from ..auth_world import FakeStore, session


class Passwords:
    """A checker of another program, for passwords only, which takes its time."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.answer: object = None

    def requestAvatarId(self, credentials: Any) -> Any:
        self.asked.append(credentials.username)
        if self.answer is not None:
            return self.answer
        if credentials.username == b"zoe" and credentials.checkPassword("late"):
            return succeed(b"zoe")
        return fail(UnauthorizedLogin())


class AnyOfTests(SynchronousTestCase):
    """The first who lets in."""

    def setUp(self) -> None:
        self.foreign = Passwords()
        self.chain = AnyOf(
            [MemoryAccounts({"ann": "one"}), self.foreign, MemoryAccounts({"ann": "x", "bob": "two"})]
        )

    def ask(self, credentials: Any) -> Any:
        try:
            result = self.chain.requestAvatarId(credentials)
        except UnauthorizedLogin:
            return None
        if isinstance(result, Deferred):
            result.addErrback(lambda why: why.trap(UnauthorizedLogin) and None)
            return self.successResultOf(result)
        return result

    def test_each(self) -> None:
        """Users of each of them come in, nobody else; whoever fails was asked of all."""
        self.assertEqual(b"ann", self.ask(ClearPassword(b"ann", b"one")))
        self.assertEqual([], self.foreign.asked)
        self.assertEqual(b"zoe", self.ask(ClearPassword(b"zoe", b"late")))
        self.assertEqual(b"bob", self.ask(ClearPassword(b"bob", b"two")))
        self.assertIsNone(self.ask(ClearPassword(b"ann", b"wrong")))
        self.assertEqual([b"zoe", b"bob", b"ann"], self.foreign.asked)

    def test_kinds(self) -> None:
        """Who does not take a kind of credentials is not asked."""
        digest = hashlib.md5(b"<a@b>two").hexdigest().encode()
        self.assertEqual(b"bob", self.ask(ApopDigest(b"bob", digest, "<a@b>")))
        self.assertEqual([], self.foreign.asked)
        self.assertEqual({IUsernamePassword, IUsernameHashedPassword}, set(self.chain.credentialInterfaces))

    def test_trouble(self) -> None:
        """One in trouble is not passed over: the user might be his."""
        self.foreign.answer = fail(StoreTrouble())
        self.failureResultOf(self.chain.requestAvatarId(ClearPassword(b"bob", b"two")), StoreTrouble)

    def test_source(self) -> None:
        """It knows what its sources know."""
        verifyObject(IAccountSource, self.chain)
        canonical_name = [self.chain.canonical_name(user) for user in ("ann", "bob", "BOB", "zoe")]
        self.assertEqual(["ann", "bob", "bob", None], canonical_name)
        self.assertTrue(self.chain.verifier("bob", "sha256").fits(b"two", "sha256"))
        self.assertIsNone(self.chain.verifier("zoe", "sha256"))
        self.assertTrue(self.chain.login_allowed("zoe", None))
        self.assertEqual((True, {"sha1", "sha256"}), (self.chain.has_plaintext(), self.chain.scram_hashes()))
        self.assertEqual(self.chain.dummy_verifier("zoe", "sha1"), self.chain.dummy_verifier("zoe", "sha1"))

    def test_sources_later(self) -> None:
        """Sources that take their time are waited for, one after the other."""

        @implementer(IAccountSource)
        class Later(MemoryAccounts):
            def __init__(self, name: str) -> None:
                super().__init__({name: "x"})
                self.turn: Deferred[str | None] = Deferred()

            def canonical_name(self, user: str) -> MaybeDeferred[str | None]:
                return self.turn.addCallback(lambda _: super(Later, self).canonical_name(user))

        first, second = Later("BOB"), Later("bob")
        result = AnyOf([first, MemoryAccounts({}), second]).canonical_name("bob")
        second.turn.callback(None)
        self.assertNoResult(result)
        first.turn.callback(None)
        self.assertEqual("bob", self.successResultOf(result))  # type: ignore[arg-type]

    def test_none(self) -> None:
        """Nobody at all knows nobody."""
        empty = AnyOf([])
        self.assertEqual((), empty.credentialInterfaces)
        self.assertEqual((False, frozenset()), (empty.has_plaintext(), empty.scram_hashes()))
        self.assertIsNone(empty.canonical_name("ann"))
        self.assertTrue(empty.login_allowed("ann", None))
        with self.assertRaises(UnauthorizedLogin):
            empty.requestAvatarId(ClearPassword(b"ann", b"x"))

    def test_strcred_inside(self) -> None:
        """A checker from ``--auth memory:`` works inside too; another program's digests are believed."""
        chain = AnyOf([MemoryAccounts({}), makeChecker("memory:ann:secret")])
        self.assertEqual(b"ann", chain.requestAvatarId(ClearPassword(b"ann", b"secret")))
        self.assertTrue(chain.has_plaintext())
        self.assertTrue(AnyOf([InMemoryUsernamePasswordDatabaseDontUse()]).has_plaintext())


@implementer(IRealm)
class ForeignRealm:
    """A realm of another program that knows only twisted.mail's mailboxes."""

    def __init__(self) -> None:
        self.minds: list[LoginContext] = []
        self.left = 0

    def requestAvatar(self, avatar_id: object, mind: LoginContext, *interfaces: Any) -> Any:
        assert ITwistedMailbox in interfaces
        self.minds.append(mind)
        return ITwistedMailbox, self.mailbox(), self._leave

    def mailbox(self) -> Any:
        return Mailbox()

    def _leave(self) -> None:
        self.left += 1


class DoorTests(SynchronousTestCase):
    """Realms behind the login policy."""

    def test_foreign_realm(self) -> None:
        """A realm that gives twisted.mail's mailboxes works, and sees who comes."""
        realm = ForeignRealm()
        record = session()
        login = PortalAuthenticator(Portal(realm, [MemoryAccounts({"ann": "x"})])).password(
            b"ann", b"x", record
        )
        self.assertTrue(IMailbox.providedBy(login.mailbox))
        self.assertEqual(("ann", record), (login.user, realm.minds[0].record))
        login.logout()
        self.assertEqual(1, realm.left)

    def test_useless_avatar(self) -> None:
        """An avatar that is no mailbox is a bug, and is logged out."""

        class Useless(ForeignRealm):
            def mailbox(self) -> Any:
                return object()

        realm = Useless()
        with self.assertRaises(TypeError):
            PortalAuthenticator(Portal(realm, [MemoryAccounts({"ann": "x"})])).password(
                b"ann", b"x", session()
            )
        self.assertEqual(1, realm.left)

    def test_portal_is_shared(self) -> None:
        """Two authenticators, for two protocols, work with one portal."""
        portal = Portal(MailboxRealm(FakeStore()), [MemoryAccounts({"ann": "x"})])
        first, second = PortalAuthenticator(portal), PortalAuthenticator(portal)
        first.password(b"ann", b"x", session()).logout()
        second.password(b"ann", b"x", session()).logout()
        with self.assertRaises(AuthenticationFailed):
            second.password(b"ann", b"y", session())
