"""From USER, PASS and APOP through a twisted.cred Portal to an opened maildrop."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from twisted.cred.checkers import (
    ANONYMOUS,
    FilePasswordDB,
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import ICredentials, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.cred.strcred import makeChecker
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pop3toy.auth.accounts.memory import MemoryAccounts
from pop3toy.auth.authenticator import PortalAuthenticator
from pop3toy.auth.credentials import ClearPassword
from pop3toy.auth.realm import MailboxRealm
from pop3toy.auth.strcred import PasswordFile, of_auth_option
from pop3toy.auth.throttle.login_throttle import LoginLimits, LoginThrottle
from pop3toy.errors import AuthenticationFailed, BadCommand, InUse, MessageGone, Refusal, StoreTrouble
from pop3toy.interfaces import IMailbox, IMailStore, Login
from pop3toy.stores.memory import MemoryStore

from ..auth_world import LOOPBACK, NETWORK, TLS, FakeStore, session


def authenticator(*checkers: Any, store: FakeStore | None = None, **options: Any) -> PortalAuthenticator:
    """An authenticator over a portal with these checkers and a fake store."""
    portal = Portal(MailboxRealm(store or FakeStore()), checkers)
    return PortalAuthenticator(portal, **options)


def digest(timestamp: str, secret: str) -> bytes:
    """What an APOP client sends."""
    return hashlib.md5((timestamp + secret).encode()).hexdigest().encode()


class PasswordTests(SynchronousTestCase):
    """USER and PASS."""

    def setUp(self) -> None:
        self.store = FakeStore()
        self.auth = authenticator(MemoryAccounts({"ann": "sécret: 1"}), store=self.store)

    def test_right(self) -> None:
        """The right password opens the user's maildrop at once, without a Deferred."""
        login = self.auth.password(b"ann", "sécret: 1".encode(), session())
        assert isinstance(login, Login)
        self.assertEqual(("ann", "USER"), (login.user, login.mechanism))
        self.assertTrue(IMailbox.providedBy(login.mailbox))
        self.assertEqual({"ann"}, self.store.open_now)

    def test_logout_releases(self) -> None:
        """Logging out gives the maildrop back."""
        login = self.auth.password(b"ann", "sécret: 1".encode(), session())
        login.logout()
        self.assertEqual(set(), self.store.open_now)

    def test_wrong_and_unknown_alike(self) -> None:
        """A wrong password and an unknown user get the same refusal, and no maildrop is touched."""
        answers = []
        for user, password in [
            (b"ann", b"x"),
            (b"bob", b"x"),
            (b"", b""),
            (b"\xff\xfe", b"\xff"),
            (b"ann", b""),
        ]:
            with self.assertRaises(AuthenticationFailed) as caught:
                self.auth.password(user, password, session())
            answers.append((caught.exception.code, caught.exception.text, caught.exception.detail))
        self.assertEqual(1, len(set(answers)))
        self.assertEqual([], self.store.opened)

    def test_later(self) -> None:
        """A store that takes its time makes the login a Deferred."""
        self.store.later = True
        waiting = self.auth.password(b"ann", "sécret: 1".encode(), session())
        assert isinstance(waiting, Deferred)
        self.assertNoResult(waiting)
        self.store.go_on()
        self.assertEqual("ann", self.successResultOf(waiting).user)

    def test_refusals_pass(self) -> None:
        """What the store says reaches the session as it is."""
        self.auth.password(b"ann", "sécret: 1".encode(), session())
        with self.assertRaises(InUse):
            self.auth.password(b"ann", "sécret: 1".encode(), session())
        self.store.trouble = StoreTrouble(detail="disk")
        with self.assertRaises(StoreTrouble) as caught:
            self.auth.password(b"ann", "sécret: 1".encode(), session())
        self.assertEqual("disk", caught.exception.detail)

    def test_bugs_pass(self) -> None:
        """A bug in a store stays a bug and is not dressed up as a wrong password."""
        self.store.trouble = ZeroDivisionError()
        with self.assertRaises(ZeroDivisionError):
            self.auth.password(b"ann", "sécret: 1".encode(), session())

    def test_clear_text_policy(self) -> None:
        """Clear text is taken on loopback and inside TLS, elsewhere only when allowed."""
        accounts = MemoryAccounts({"ann": "x"})
        strict, lax = authenticator(accounts), authenticator(accounts, allow_cleartext=True)
        self.assertEqual([True, True, False], [strict.clear_text(c) for c in (LOOPBACK, TLS, NETWORK)])
        self.assertTrue(lax.clear_text(NETWORK))
        self.assertFalse(authenticator().clear_text(LOOPBACK))
        with self.assertRaises(BadCommand):
            strict.password(b"ann", b"x", session(NETWORK))

    def test_unknown_user_with_anything(self) -> None:
        """A user that does not exist does not come in, whatever the credentials say of his password."""

        class YesToAnything(ClearPassword):
            def checkPassword(self, password: object) -> bool:
                return True

        checker = MemoryAccounts({"ann": "x"})
        self.assertEqual(b"ann", checker.requestAvatarId(YesToAnything(b"ann", b"")))
        with self.assertRaises(UnauthorizedLogin):
            checker.requestAvatarId(YesToAnything(b"bob", b""))

    def test_no_secret_in_repr(self) -> None:
        """Accounts do not show their secrets."""
        self.assertNotIn("hunter2", repr(MemoryAccounts({"ann": "hunter2"})))


class ApopTests(SynchronousTestCase):
    """APOP (RFC 1939 section 7)."""

    def test_rfc1939(self) -> None:
        """The RFC's own example is let in."""
        auth = authenticator(MemoryAccounts({"mrose": "tanstaaf"}))
        stamp = "<1896.697170952@dbc.mtview.ca.us>"
        login = auth.apop(b"mrose", b"c4c9334bac560ecc979e58001b3e22fb", stamp, session())
        self.assertEqual(("mrose", "APOP"), (login.user, login.mechanism))

    def test_wrong(self) -> None:
        """A digest of another secret, another timestamp or no digest at all is refused."""
        auth = authenticator(MemoryAccounts({"ann": "x"}))
        for wrong in (digest("<a@b>", "y"), digest("<c@d>", "x"), b"", b"\xff" * 32):
            with self.assertRaises(AuthenticationFailed):
                auth.apop(b"ann", wrong, "<a@b>", session())

    def test_upper_case(self) -> None:
        """A client that writes the digest in capitals is let in too."""
        auth = authenticator(MemoryAccounts({"ann": "x"}))
        self.assertEqual("ann", auth.apop(b"ann", digest("<a@b>", "x").upper(), "<a@b>", session()).user)

    def test_timestamp(self) -> None:
        """Each timestamp is new, well-formed and tells nothing of the machine."""
        auth = authenticator(MemoryAccounts({"ann": "x"}))
        stamps = {auth.timestamp(NETWORK) for _ in range(100)}
        self.assertEqual(100, len(stamps))
        for stamp in stamps:
            self.assertIsNotNone(re.fullmatch(r"<[0-9a-f]{32}@pop3toy>", stamp))

    def test_injected_nonce(self) -> None:
        """A test can say what the random part is."""
        auth = authenticator(MemoryAccounts({"ann": "x"}), nonce=lambda: "n")
        self.assertEqual("<n@pop3toy>", auth.timestamp(NETWORK))

    def test_nobody_recoverable(self) -> None:
        """There is no timestamp where no checker can work with a shared secret."""
        hashed = FilePasswordDB("nowhere", hash=lambda user, password, stored: password)
        self.assertIsNone(authenticator(hashed).timestamp(LOOPBACK))
        self.assertIsNone(authenticator().timestamp(LOOPBACK))


class StrcredTests(SynchronousTestCase):
    """Checkers that are made from ``--auth``."""

    def both_ways(self, auth: PortalAuthenticator) -> None:
        self.assertEqual("ann", auth.password(b"ann", b"secret", session()).user)
        self.assertEqual("bob", auth.apop(b"bob", digest("<a@b>", "hush"), "<a@b>", session()).user)
        for user, password in [(b"ann", b"hush"), (b"carl", b"secret")]:
            with self.assertRaises(AuthenticationFailed):
                auth.password(user, password, session())

    def test_memory(self) -> None:
        """``memory:ann:secret`` works, though Twisted keeps its names as text."""
        self.both_ways(authenticator(makeChecker("memory:ann:secret:bob:hush")))

    def test_memory_octets(self) -> None:
        """A memory checker that a program filled with octets is left alone, and may be filled later."""
        checker = InMemoryUsernamePasswordDatabaseDontUse(ann=b"secret")
        auth = authenticator(checker)
        checker.addUser(b"bob", b"hush")
        self.both_ways(auth)

    def test_file(self) -> None:
        """``file:passwd`` works for both kinds of login."""
        path = Path(self.mktemp())
        path.write_text("ann:secret\nbob:hush\n")
        self.both_ways(authenticator(makeChecker(f"file:{path}")))
        self.both_ways(authenticator(of_auth_option(makeChecker(f"file:{path}"))))

    def test_file_of_auth_option(self) -> None:
        """A password may hold colons; a file that cannot be read is a temporary trouble that heals."""
        path = Path(self.mktemp())
        path.write_text("bob:b:c\r\nnonsense\nbob:second\n")
        auth = authenticator(of_auth_option(makeChecker(f"file:{path}")))
        auth.password(b"bob", b"b:c", session()).logout()
        for user, password in [(b"bob", b"b"), (b"bob", b"second"), (b"nonsense", b""), (b"", b"x")]:
            with self.assertRaises(AuthenticationFailed):
                auth.password(user, password, session())
        away = path.with_suffix(".away")
        path.rename(away)
        with self.assertRaises(StoreTrouble) as caught:
            auth.password(b"bob", b"b:c", session())
        self.assertIn(f"--auth file:{path}: No such file", caught.exception.detail)
        away.rename(path)
        self.assertEqual("bob", auth.password(b"bob", b"b:c", session()).user)

    def test_file_being_written(self) -> None:
        """A file that is just being written in place calls nobody's password wrong that it had before."""
        path, now = Path(self.mktemp()), 0.0
        text = b"ann:secret\nbob:hush\n"
        path.write_bytes(text)
        auth = authenticator(PasswordFile(str(path), wall=lambda: now))
        auth.password(b"bob", b"hush", session()).logout()
        for octets in range(len(text)):
            path.write_bytes(text[:octets])
            now = path.stat().st_mtime + 1
            for user, password in [(b"bob", b"hush"), (b"bob", b"h"), (b"carl", b"x")]:
                with self.assertRaises(StoreTrouble):
                    auth.password(user, password, session())
        now += 2
        with self.assertRaises(AuthenticationFailed):
            auth.password(b"carl", b"x", session())
        path.write_bytes(text)
        auth.password(b"bob", b"hush", session()).logout()

    def test_others_are_left_alone(self) -> None:
        """A checker of another kind is the one that is asked."""
        for checker in (makeChecker("memory:ann:secret"), LaterChecker(Deferred())):
            self.assertIs(of_auth_option(checker), checker)


class LaterChecker:
    """A checker that takes its time and then refuses."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, result: Deferred[object]) -> None:
        self.result = result

    def requestAvatarId(self, credentials: ICredentials) -> Deferred[object]:
        return self.result


class ForeignTests(SynchronousTestCase):
    """Checkers and realms that are not ours."""

    def test_later_refusal(self) -> None:
        """A checker that says no later fails the login with the usual refusal."""
        result: Deferred[object] = Deferred()
        attempt = authenticator(LaterChecker(result)).password(b"ann", b"x", session())
        result.errback(UnauthorizedLogin("some inner text"))
        self.assertEqual(AuthenticationFailed.sentence, self.failureResultOf(attempt, Refusal).value.text)

    def test_checker_in_trouble(self) -> None:
        """A checker that breaks is not a wrong password."""
        broken = LaterChecker(fail(OSError("ldap is down")))
        with self.assertRaises(OSError):
            authenticator(broken).password(b"ann", b"x", session())

    def test_checker_panics(self) -> None:
        """What no Exception is either gives the attempt's turn back: the address is not shut out for ever."""

        class Panic(BaseException):
            """As Rust's libraries raise it."""

        @implementer(ICredentialsChecker)
        class Panicking:
            credentialInterfaces = (IUsernamePassword,)

            def requestAvatarId(self, credentials: Any) -> bytes:
                raise Panic

        throttle = LoginThrottle(Clock(), LoginLimits(attempts_per_address=2))
        auth = PortalAuthenticator(Portal(MailboxRealm(FakeStore()), [Panicking()]), throttle=throttle)
        for _ in range(5):
            self.assertRaises(Panic, auth.password, b"ann", b"x", session(TLS))

    def test_realm_of_nonsense(self) -> None:
        """A realm that gives no maildrop is a bug, and its user is not counted as inside."""

        @implementer(IRealm)
        class Nonsense:
            def requestAvatar(self, *args: Any) -> None:
                return None

        throttle = LoginThrottle(Clock(), LoginLimits(sessions_per_user=1))
        portal = Portal(Nonsense(), [MemoryAccounts({"ann": "x"})])
        auth = PortalAuthenticator(portal, throttle=throttle)
        for _ in range(3):
            self.assertRaises(TypeError, auth.password, b"ann", b"x", session())


class RealmTests(SynchronousTestCase):
    """The realm by itself."""

    def test_text_and_octets(self) -> None:
        """An avatar id may be text or UTF-8; other octets are nobody."""
        for avatar_id in ("zoë", "zoë".encode()):
            _, mailbox, _ = MailboxRealm(FakeStore()).requestAvatar(avatar_id, None, IMailbox)
            self.assertEqual("zoë", mailbox.user)
        with self.assertRaises(AuthenticationFailed):
            MailboxRealm(FakeStore()).requestAvatar(b"zo\xeb", None, IMailbox)

    def test_other_interface(self) -> None:
        """Whoever wants something else than a mailbox is told so."""
        with self.assertRaises(NotImplementedError):
            MailboxRealm(FakeStore()).requestAvatar(b"ann", None, IMailStore)

    def test_anonymous_off(self) -> None:
        """Without a demo maildrop nobody comes in without a name."""
        with self.assertRaises(AuthenticationFailed):
            MailboxRealm(FakeStore()).requestAvatar(ANONYMOUS, None, IMailbox)


class AnonymousMailboxTests(SynchronousTestCase):
    """The demo maildrop of anonymous visitors."""

    def setUp(self) -> None:
        self.store = FakeStore()
        self.realm = MailboxRealm(self.store, anonymous="demo")

    def visit(self) -> Any:
        return self.realm.requestAvatar(ANONYMOUS, None, IMailbox)

    def test_apart(self) -> None:
        """Visitors and the owner do not hear of each other, where the store can show what is locked."""
        store = MemoryStore({"demo": [b"a: b\n"], "ann": []})
        realm = MailboxRealm(store, anonymous="demo")

        def visit() -> Any:
            return realm.requestAvatar(ANONYMOUS, None, IMailbox)

        first = visit()[1]
        _, own, leave = realm.requestAvatar(b"demo", None, IMailbox)
        second = visit()[1]
        self.assertEqual(list(own.entries), list(second.entries))
        [entry] = own.entries
        own.remove([entry.uid])
        leave()
        for visitor in (first, second):
            self.assertEqual(list(visitor.entries), [entry])
            self.assertRaises(MessageGone, visitor.read, entry.uid)
            visitor.release()

    def test_store_that_cannot_show(self) -> None:
        """Any other store opens it as for a session, for one visitor at a time, now or later."""
        self.store.later = True
        visit = self.visit()
        self.store.go_on()
        _, mailbox, leave = self.successResultOf(visit)
        self.assertEqual(b"uid-of-demo", mailbox.read(b"uid-of-demo"))
        self.assertRaises(InUse, self.visit)
        leave()
        self.assertEqual(set(), self.store.open_now)

    def test_read_only(self) -> None:
        """Nothing can be removed; removing nothing is fine."""
        _, mailbox, _ = self.visit()
        self.assertIsNone(mailbox.remove([]))
        with self.assertRaises(Refusal):
            mailbox.remove([b"uid-of-demo"])
