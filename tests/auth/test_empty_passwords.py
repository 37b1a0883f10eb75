"""Nobody comes in with an empty password: from no source, by no mechanism."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.cred.checkers import ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.portal import Portal
from twisted.cred.strcred import makeChecker
from twisted.internet.task import Clock
from zope.interface import implementer

from pop3toy.auth.accounts import schemes
from pop3toy.auth.accounts.memory import MemoryAccounts
from pop3toy.auth.authenticator import PortalAuthenticator
from pop3toy.auth.credentials import ApopDigest, ClearPassword
from pop3toy.auth.realm import MailboxRealm
from pop3toy.auth.strcred import PasswordFile
from pop3toy.auth.throttle.login_throttle import LoginThrottle
from pop3toy.errors import AuthenticationFailed, BadCommand

from ..auth_world import LOOPBACK
from .test_barred import MECHANISMS, STORED, TLS, WorldCase


@implementer(ICredentialsChecker)
class LooksAtThePassword:
    """Somebody else's checker, which compares without asking the credentials."""

    credentialInterfaces = (IUsernamePassword,)

    def requestAvatarId(self, credentials: ClearPassword) -> bytes:
        assert credentials.password == b""
        return credentials.username


class EmptyPasswordTests(WorldCase):
    """An empty password in a source is no password."""

    def nobody(self, *passwords: bytes) -> None:
        """By no mechanism that is offered ann comes in with one of these; bob does."""
        offered = {"USER", *self.authenticator.mechanisms(TLS)}
        if self.authenticator.timestamp(TLS) is not None:
            offered.add("APOP")
        for mechanism in (name for name in MECHANISMS if name in offered):
            for password in passwords:
                outcome = self.log_in(mechanism, b"ann", password)
                # PLAIN's own rule (RFC 4616 section 2) calls it malformed.
                expected = BadCommand if mechanism == "PLAIN" and not password else AuthenticationFailed
                self.assertIs(expected, outcome, mechanism)

    def checker(self, checker: Any) -> None:
        """Serve these accounts."""
        portal = Portal(MailboxRealm(self.store), [checker])
        self.authenticator = PortalAuthenticator(portal, channel_binding=True)

    def test_accounts_file(self) -> None:
        """A hash of the empty password fits nothing, in whatever scheme, by whatever mechanism."""
        for scheme, make in STORED.items():
            if scheme != "PLAIN":
                for others in (b"", b"bob:{PLAIN}two\n"):
                    self.serve(b"ann:{%b}%b\n" % (scheme.encode(), make(b"")) + others)
                    self.nobody(b"")

    def test_no_such_password(self) -> None:
        """Nor does each scheme by itself take one."""
        self.assertEqual(set(schemes._SCHEMES), set(STORED) | {"YESCRYPT"})
        for scheme, make in STORED.items():
            if scheme != "PLAIN":
                stored = schemes.parse(b"{%b}%b" % (scheme.encode(), make(b"")))
                self.assertFalse(stored.verify(b""), scheme)

    def test_prepared_to_nothing(self) -> None:
        """A password of which SASLprep leaves nothing is not the empty one (RFC 4013)."""
        self.serve("ann:{PLAIN}\u00ad\n".encode())
        self.nobody(b"")
        self.assertEqual("ann", self.log_in("USER", b"ann", "\u00ad".encode()))

    def test_file_of_auth_option(self) -> None:
        """``ann:`` in the file of ``--auth file:`` is a user without a password."""
        path = Path(self.mktemp())
        path.write_bytes(b"ann:\nbob:two\nann:later\n")
        for checker in (PasswordFile(str(path)), makeChecker(f"file:{path}")):
            self.checker(checker)
            self.nobody(b"", b"later")
            for mechanism in ("USER", "APOP", "PLAIN", "LOGIN", "CRAM-MD5"):
                self.assertEqual("bob", self.log_in(mechanism, b"bob", b"two"))

    def test_memory(self) -> None:
        """So it is in a program's dict, text or octets, of ours and of Twisted's checker."""
        self.checker(MemoryAccounts({"ann": "", "bob": "two"}))
        self.nobody(b"")
        for mechanism in MECHANISMS:
            self.assertEqual("bob", self.log_in(mechanism, b"bob", b"two"))
        for users in ({"ann": ""}, {b"ann": b""}):
            checker = InMemoryUsernamePasswordDatabaseDontUse()
            checker.users = users  # type: ignore[assignment]
            self.checker(checker)
            self.nobody(b"")
        nobody = MemoryAccounts({"ann": ""})
        self.assertEqual((False, frozenset()), (nobody.has_plaintext(), nobody.scram_hashes()))
        self.assertEqual("ann", nobody.canonical_name("ann"))

    def test_others_checkers(self) -> None:
        """A checker that looks at the password itself is not asked about an empty one."""
        self.checker(LooksAtThePassword())
        self.nobody(b"")

    def test_credentials(self) -> None:
        """The comparison itself refuses, whoever keeps what is compared with."""
        self.assertFalse(ClearPassword(b"ann", b"").checkPassword(""))
        digest = ApopDigest(b"ann", b"88619db570587f35a6761a4982138641", "<a@b>")
        self.assertFalse(digest.checkPassword(b""))

    def test_counts(self) -> None:
        """It is a guess like others, and counts."""
        throttle = LoginThrottle(Clock())
        portal = Portal(MailboxRealm(self.store), [MemoryAccounts({"ann": ""})])
        self.authenticator = PortalAuthenticator(portal, throttle=throttle)
        for mechanism in ("USER", "LOGIN"):
            self.log_in(mechanism, b"ann", b"", LOOPBACK)
        self.assertEqual(2, throttle._users.count("ann"))
