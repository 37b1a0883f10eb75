"""The SASL mechanisms: the RFCs' own conversations, other implementations, and what is not well-formed."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramClient
from twisted.cred.checkers import AllowAnonymousAccess, ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pop3toy.auth.accounts.memory import MemoryAccounts
from pop3toy.auth.accounts.verifier import Verifier, derive
from pop3toy.auth.authenticator import PortalAuthenticator
from pop3toy.auth.chain import AnyOf
from pop3toy.auth.realm import MailboxRealm
from pop3toy.auth.sasl.cram import CramDigest
from pop3toy.auth.sasl.oauth import ITokenChecker
from pop3toy.auth.sources import IAccountSource, make_dummy_verifier
from pop3toy.auth.throttle.login_throttle import LoginThrottle
from pop3toy.errors import AuthenticationFailed, BadCommand, Refusal, StoreTrouble
from pop3toy.interfaces import Challenge, Channel, Exchange, Login, TLSFacts

from ..auth_world import LOOPBACK, NETWORK, TLS, FakeStore, say, session

ALL_SCRAM = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1"]
EVERY = ["EXTERNAL", *ALL_SCRAM, "OAUTHBEARER", "XOAUTH2", "CRAM-MD5", "PLAIN", "LOGIN", "ANONYMOUS"]


def _exporter(label: bytes, context: bytes | None, length: int) -> bytes:
    # RFC 9266 section 4.2.
    assert (label, context, length) == (b"EXPORTER-Channel-Binding", b"", 32)
    return b"exported" * 4


BOUND = Channel(
    "192.0.2.7",
    local=False,
    tls=TLSFacts("TLSv1.3", "x", "ann", exporter=_exporter, server_end_point=b"hash of the certificate"),
)


@implementer(ITokenChecker)
class FakeTokens:
    """Knows a few tokens, one of them later."""

    def owner(self, token: str) -> Any:
        if token == "trouble":
            raise StoreTrouble
        if token == "later":
            return succeed("ann")
        return {"good": "ann", "barred": "barred"}.get(token)


@implementer(ICredentialsChecker, IAccountSource)
class VerifierSource:
    """Keeps nothing but verifiers."""

    credentialInterfaces = ()

    def __init__(self, verifiers: dict[tuple[str, str], Verifier]) -> None:
        self.verifiers = verifiers

    def requestAvatarId(self, credentials: Any) -> Any:
        raise UnauthorizedLogin

    def has_plaintext(self) -> bool:
        return False

    def scram_hashes(self) -> frozenset[str]:
        return frozenset(name for _, name in self.verifiers)

    def verifier(self, user: str, hash_name: str) -> Any:
        return succeed(self.verifiers.get((user, hash_name)))

    def dummy_verifier(self, user: str, hash_name: str) -> Verifier:
        return make_dummy_verifier(b"key", user, hash_name)

    def canonical_name(self, user: str) -> str:
        return user

    def login_allowed(self, user: str, channel: object) -> Any:
        return succeed(user != "barred")

    def in_doubt(self) -> bool:
        return False

    def cram_md5(self) -> bool:
        return False


class SaslCase(SynchronousTestCase):
    """An authenticator, and exchanges with it."""

    def setUp(self) -> None:
        self.store = FakeStore()

    def authenticator(self, *checkers: Any, **options: Any) -> PortalAuthenticator:
        checkers = checkers or (MemoryAccounts({"ann": "sécret", "root": "toor", "tim": "tanstaaftanstaaf"}),)
        realm = MailboxRealm(self.store, anonymous="demo")
        portal = Portal(realm)
        for checker in checkers:
            portal.registerChecker(checker, *(checker.credentialInterfaces or [ITokenChecker]))
        return PortalAuthenticator(portal, **{"channel_binding": True, **options})

    def result(self, outcome: object) -> Any:
        return self.successResultOf(outcome) if isinstance(outcome, Deferred) else outcome

    def talk(self, exchange: Exchange, *responses: bytes | None) -> Any:
        """Send the responses; all but the last answer must be challenges."""
        for response in responses[:-1]:
            self.assertIsInstance(self.result(say(exchange, response)), Challenge)
        return self.result(say(exchange, responses[-1]))

    def refused(
        self, exchange: Exchange, *responses: bytes | None, error: type = AuthenticationFailed
    ) -> Refusal:
        with self.assertRaises(error) as caught:
            outcome = self.talk(exchange, *responses)
            if isinstance(outcome, Deferred):
                self.failureResultOf(outcome).raiseException()
        self.assertEqual(set(), self.store.open_now)
        with self.assertRaises(BadCommand):
            say(exchange, b"")
        return caught.exception


class OfferTests(SaslCase):
    """What is announced works here, and what does not is not."""

    def test_where(self) -> None:
        """Clear text is for loopback and TLS, channel binding and certificates for TLS that has them."""
        auth = self.authenticator(
            MemoryAccounts({"ann": "x"}), AllowAnonymousAccess(), tokens=FakeTokens(), certificates=True
        )
        challenge = ["SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "ANONYMOUS"]
        clear = ["OAUTHBEARER", "XOAUTH2", "PLAIN", "LOGIN"]
        self.assertEqual(sorted(challenge), sorted(auth.mechanisms(NETWORK)))
        self.assertEqual(sorted(challenge + clear), sorted(auth.mechanisms(LOOPBACK)))
        self.assertEqual(sorted(challenge + clear), sorted(auth.mechanisms(TLS)))
        self.assertEqual(EVERY, list(auth.mechanisms(BOUND)))

    def test_default(self) -> None:
        """Tokens, certificates, visitors and channel binding are for who asks for them."""
        portal = Portal(MailboxRealm(self.store), [MemoryAccounts({"ann": "x"})])
        usual = ["SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN"]
        self.assertEqual(usual, list(PortalAuthenticator(portal).mechanisms(BOUND)))
        named = PortalAuthenticator(portal, mechanisms=ALL_SCRAM)
        self.assertEqual(usual[:2], list(named.mechanisms(BOUND)))
        self.assertRaises(BadCommand, named.begin, "SCRAM-SHA-256-PLUS", session(BOUND))

    def test_sources(self) -> None:
        """A source that knows only some kinds of secrets makes only those mechanisms."""
        verifiers = VerifierSource({("ann", "sha256"): derive(b"x", "sha256", b"salt")})
        self.assertEqual(["SCRAM-SHA-256"], list(self.authenticator(verifiers).mechanisms(LOOPBACK)))
        self.assertEqual([], list(self.authenticator(MemoryAccounts({})).mechanisms(NETWORK)))
        self.assertIsNone(self.authenticator(MemoryAccounts({})).timestamp(LOOPBACK))

    def test_wanted(self) -> None:
        """The administrator may offer fewer, APOP and USER too, or take secrets from a network."""
        auth = self.authenticator(mechanisms=["plain", "USER"])
        self.assertEqual(["PLAIN"], list(auth.mechanisms(BOUND)))
        self.assertEqual((True, None), (auth.clear_text(BOUND), auth.timestamp(BOUND)))
        auth = self.authenticator(mechanisms=["PLAIN"])
        self.assertFalse(auth.clear_text(BOUND))
        self.assertEqual("PLAIN", auth.begin("plain", session()).mechanism)
        for name, channel in (("LOGIN", LOOPBACK), ("", LOOPBACK), ("PLAIN ", LOOPBACK), ("PLAIN", NETWORK)):
            with self.assertRaises(BadCommand):
                auth.begin(name, session(channel))
        auth = self.authenticator(allow_cleartext=True, tokens=FakeTokens())
        self.assertLessEqual({"PLAIN", "XOAUTH2"}, set(auth.mechanisms(NETWORK)))


class PlainTests(SaslCase):
    """PLAIN (RFC 4616)."""

    def begin(self, **options: Any) -> Exchange:
        return self.authenticator(**options).begin("PLAIN", session())

    def test_both_ways(self) -> None:
        """It works with an initial response, and behind an empty challenge."""
        for responses in ([b"\0ann\0s\xc3\xa9cret"], [None, b"ann\0ann\0s\xc3\xa9cret"]):
            exchange = self.begin()
            if responses[0] is None:
                self.assertEqual(Challenge(b""), say(exchange, None))
            login = say(exchange, responses[-1])
            self.assertEqual(("ann", "PLAIN", "ann"), (login.user, login.mechanism, exchange.user))
            login.logout()

    def test_refused(self) -> None:
        """Bad credentials are one thing, malformed responses another."""
        for response in (
            b"\0ann\0wrong",
            b"\0nobody\0x",
            b"bob\0ann\0s\xc3\xa9cret",
            b"root\0ann\0s\xc3\xa9cret",
        ):
            self.refused(self.begin(), response)
        malformed = (
            b"",
            b"ann",
            b"\0ann",
            b"\0ann\0",
            b"\0\0x",
            b"\0ann\0x\0",
            b"\0a\xff\0x",
            b"\xff\0ann\0x",
        )
        for response in malformed:
            self.refused(self.begin(), response, error=BadCommand)

    def test_master_of_nobody(self) -> None:
        """A master user opens no maildrop of somebody who does not exist, which a store might make."""
        self.refused(self.begin(masters=["root"]), b"nobody\0root\0toor")
        self.assertEqual([], self.store.opened)

        class Others:
            credentialInterfaces = (IUsernamePassword,)

            def requestAvatarId(self, credentials: Any) -> Any:
                raise UnauthorizedLogin

        # Where users may be known whom nobody can list, the store decides.
        memory = MemoryAccounts({"root": "toor"})
        for auth in (
            self.authenticator(AnyOf([memory, Others()]), masters=["root"]),
            self.authenticator(memory, masters=["root"], tokens=FakeTokens()),
            self.authenticator(memory, masters=["root"], certificates=True),
        ):
            login = say(auth.begin("PLAIN", session()), b"zoe\0root\0toor")
            self.assertEqual("zoe", login.user)
            login.logout()
        with_visitors = self.authenticator(memory, AllowAnonymousAccess(), masters=["root"])
        self.refused(with_visitors.begin("PLAIN", session()), b"zoe\0root\0toor")

    def test_master(self) -> None:
        """A master user opens another's maildrop with his own password, and no one else does."""
        login = say(self.begin(masters=["root"]), b"ann\0root\0toor")
        self.assertEqual(("ann", {"ann"}), (login.user, self.store.open_now))
        login.logout()
        self.refused(self.begin(masters=["root"]), b"root\0ann\0s\xc3\xa9cret")
        self.refused(self.begin(masters=["root"]), b"ann\0root\0wrong")


class LoginTests(SaslCase):
    """LOGIN."""

    def test_login(self) -> None:
        """The prompts are those that Outlook looks for; an initial response is the name."""
        auth = self.authenticator()
        exchange = auth.begin("LOGIN", session())
        prompts = [say(exchange, response).data for response in (None, b"ann")]
        self.assertEqual([b"Username:", b"Password:"], prompts)
        self.assertEqual("ann", exchange.user)
        login = say(exchange, "sécret".encode())
        self.assertEqual(("ann", "LOGIN"), login[::3])  # type: ignore[index]
        login.logout()
        login = self.talk(auth.begin("LOGIN", session()), b"ann", "sécret".encode())
        self.assertEqual("ann", login.user)
        login.logout()
        for password in (b"wrong", b"", b"\xff"):
            self.refused(auth.begin("LOGIN", session()), None, b"ann", password)


class CramTests(SaslCase):
    """CRAM-MD5."""

    def test_rfc2195(self) -> None:
        """The example of RFC 2195 section 2."""
        challenge = b"<1896.697170952@postoffice.reston.mci.net>"
        digest = CramDigest(b"tim", b"b913a602c7eda7a495b4e6e7334d3890", challenge, LOOPBACK)
        self.assertTrue(digest.checkPassword(b"tanstaaftanstaaf"))
        self.assertTrue(digest.checkPassword("tanstaaftanstaaf"))
        self.assertFalse(digest.checkPassword(b"tanstaaf"))

    def answer(self, exchange: Exchange, user: bytes, secret: bytes) -> bytes:
        challenge = say(exchange, None).data
        self.assertRegex(challenge, rb"^<[0-9a-f]{32}@pop3toy>$")
        return user + b" " + hmac.new(secret, challenge, "md5").hexdigest().encode()

    def test_digests(self) -> None:
        """The digest of a fresh challenge lets in; another secret's, user's or challenge's does not."""
        auth = self.authenticator()
        old = self.answer(auth.begin("CRAM-MD5", session()), b"tim", b"tanstaaftanstaaf")
        self.refused(auth.begin("CRAM-MD5", session()), None, old)
        for user, secret in ((b"tim", b"x"), (b"ann", b"tanstaaftanstaaf"), (b"nobody", b"x")):
            exchange = auth.begin("CRAM-MD5", session())
            self.refused(exchange, self.answer(exchange, user, secret))
        exchange = auth.begin("CRAM-MD5", session(NETWORK))
        login = say(exchange, self.answer(exchange, b"tim", b"tanstaaftanstaaf"))
        self.assertEqual(("tim", "CRAM-MD5"), (login.user, login.mechanism))

    def test_malformed(self) -> None:
        """An initial response, or what is no name and digest, is a mistake."""
        begin = self.authenticator(nonce=lambda: "fixed").begin
        early = b"tim " + hmac.new(b"tanstaaftanstaaf", b"<fixed@pop3toy>", "md5").hexdigest().encode()
        self.refused(begin("CRAM-MD5", session()), early, error=BadCommand)
        for responses in ([b"tim x"], [b""]):
            self.refused(begin("CRAM-MD5", session()), *responses, error=BadCommand)
        for response in (b"", b"tim", b"tim x", b"\xff " + b"0" * 32):
            self.refused(begin("CRAM-MD5", session()), None, response, error=BadCommand)


class ScramVectorTests(SaslCase):
    """The RFCs' examples."""

    def conversation(self, mechanism: str, nonce: str, verifier: Verifier, lines: list[bytes]) -> None:
        hash_name = "sha1" if mechanism == "SCRAM-SHA-1" else "sha256"
        auth = self.authenticator(VerifierSource({("user", hash_name): verifier}), nonce=lambda: nonce)
        exchange = auth.begin(mechanism, session(NETWORK))
        for client, server in zip(lines[::2], lines[1::2], strict=True):
            self.assertEqual(server, self.result(say(exchange, client)).data)
        login = self.result(say(exchange, b""))
        self.assertEqual(("user", mechanism), (login.user, login.mechanism))

    def test_rfc5802(self) -> None:
        """Section 5 of RFC 5802."""
        self.conversation(
            "SCRAM-SHA-1",
            "3rfcNHYJY1ZVvWVs7j",
            derive(b"pencil", "sha1", base64.b64decode("QSXCR+Q6sek8bf92"), 4096),
            [
                b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
                b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
                b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
                b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
            ],
        )

    def test_rfc7677(self) -> None:
        """Section 3 of RFC 7677."""
        nonce = b"rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
        self.conversation(
            "SCRAM-SHA-256",
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
            derive(b"pencil", "sha256", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096),
            [
                b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
                b"r=" + nonce + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                b"c=biws,r=" + nonce + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
                b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ],
        )


class Client:
    """A SCRAM client that does what a test wants, and binds to what it wants."""

    def __init__(
        self, hash_name: str, user: bytes, password: bytes, header: bytes = b"n,,", bound: bytes = b""
    ) -> None:
        self.hash_name, self.password, self.header, self.bound = hash_name, password, header, bound
        self.bare = b"n=" + user + b",r=nonce"
        self.verdict = b""

    def first(self) -> bytes:
        return self.header + self.bare

    def final(self, challenge: bytes, *, nonce: bytes | None = None, cut: int | None = -4) -> bytes:
        fields = dict(part.split(b"=", 1) for part in challenge.split(b","))
        salted = hashlib.pbkdf2_hmac(
            self.hash_name, self.password, base64.b64decode(fields[b"s"]), int(fields[b"i"])
        )
        key = hmac.digest(salted, b"Client Key", self.hash_name)
        without = b"c=%b,r=%b" % (base64.b64encode(self.header + self.bound), nonce or fields[b"r"])
        signed = b",".join((self.bare, challenge, without))
        signature = hmac.digest(hashlib.new(self.hash_name, key).digest(), signed, self.hash_name)
        proof = (bytes(a ^ b for a, b in zip(key, signature, strict=True)) + b"more")[:cut]
        server_key = hmac.digest(salted, b"Server Key", self.hash_name)
        self.verdict = b"v=" + base64.b64encode(hmac.digest(server_key, signed, self.hash_name))
        return without + b",p=" + base64.b64encode(proof)


class ScramTests(SaslCase):
    """SCRAM beyond the examples."""

    def begin(self, mechanism: str = "SCRAM-SHA-256", channel: Channel = BOUND, **options: Any) -> Exchange:
        return self.authenticator(**options).begin(mechanism, session(channel))

    def run_client(self, exchange: Exchange, client: Client, **final: Any) -> Any:
        challenge = self.result(say(exchange, client.first()))
        verdict = self.result(say(exchange, client.final(challenge.data, **final)))
        self.assertEqual(client.verdict, verdict.data)
        return self.result(say(exchange, b""))

    def test_other_implementation(self) -> None:
        """scramp's client comes in with each mechanism that it has, and finds the server's proof right."""
        binding = ("tls-server-end-point", b"hash of the certificate")
        for mechanism in ALL_SCRAM:
            plus = mechanism.endswith("PLUS")
            client = ScramClient([mechanism], "ann", "sécret", channel_binding=binding if plus else None)
            exchange = self.begin(mechanism)
            challenge = self.result(say(exchange, client.get_client_first().encode()))
            client.set_server_first(challenge.data.decode())
            verdict = say(exchange, client.get_client_final().encode())
            client.set_server_final(verdict.data.decode())
            login = self.result(say(exchange, b""))
            self.assertEqual(("ann", mechanism, "ann"), (login.user, login.mechanism, exchange.user))
            login.logout()

    def test_exporter(self) -> None:
        """The binding of TLS 1.3 works (RFC 9266)."""
        for hash_name, mechanism in (("sha1", "SCRAM-SHA-1-PLUS"), ("sha256", "SCRAM-SHA-256-PLUS")):
            client = Client(hash_name, b"ann", "sécret".encode(), b"p=tls-exporter,,", b"exported" * 4)
            login = self.run_client(self.begin(mechanism), client)
            self.assertEqual("ann", login.user)
            login.logout()

    def test_wrong_binding(self) -> None:
        """Somebody in the middle, whose TLS connection is another one, does not come in."""
        for header, bound in (
            (b"p=tls-exporter,,", b"something else"),
            (b"p=tls-exporter,,", b""),
            (b"p=tls-server-end-point,,", b"exported" * 4),
        ):
            exchange = self.begin("SCRAM-SHA-256-PLUS")
            client = Client("sha256", b"ann", "sécret".encode(), header, bound)
            self.refused(exchange, client.final(self.result(say(exchange, client.first())).data))

    def test_flags(self) -> None:
        """Bindings that are not there, not asked for, or hidden by somebody in the middle are refused."""
        for mechanism, channel, header in (
            ("SCRAM-SHA-256-PLUS", BOUND, b"n,,"),
            ("SCRAM-SHA-256-PLUS", BOUND, b"y,,"),
            ("SCRAM-SHA-256-PLUS", BOUND, b"p=tls-unique,,"),
            ("SCRAM-SHA-256", BOUND, b"p=tls-exporter,,"),
            ("SCRAM-SHA-256", BOUND, b"y,,"),
        ):
            self.refused(self.begin(mechanism, channel), Client("sha256", b"ann", b"x", header).first())
        unbound = Client("sha256", b"ann", "sécret".encode(), b"y,,")
        self.assertEqual("ann", self.run_client(self.begin(channel=NETWORK), unbound).user)

    def test_bindings_not_offered(self) -> None:
        """Where -PLUS is not offered, who could bind says so and comes in (RFC 5802 section 6)."""
        client = Client("sha256", b"ann", "sécret".encode(), b"y,,")
        for options in ({"mechanisms": ["USER", "SCRAM-SHA-256"]}, {"channel_binding": False}):
            login = self.run_client(self.begin(**options), client)
            self.assertEqual("ann", login.user)
            login.logout()
        # What is offered under another name is no word about this one.
        other = self.begin(mechanisms=["SCRAM-SHA-256", "SCRAM-SHA-1-PLUS"])
        self.assertIsInstance(self.result(say(other, client.first())), Challenge)

    def test_wrong(self) -> None:
        """A wrong password, nonce or a proof of another length fails without a word more."""
        for client, final in (
            (Client("sha256", b"ann", b"wrong"), {}),
            (Client("sha256", b"nobody", b"x"), {}),
            (Client("sha256", b"ann", "sécret".encode()), {"nonce": b"nonceandmore"}),
            (Client("sha256", b"ann", "sécret".encode()), {"cut": 1}),
            (Client("sha256", b"ann", "sécret".encode()), {"cut": -5}),
            (Client("sha256", b"ann", "sécret".encode()), {"cut": None}),
        ):
            exchange = self.begin()
            challenge = self.result(say(exchange, client.first()))
            self.refused(exchange, client.final(challenge.data, **final))

    def test_unknown_user_looks_real(self) -> None:
        """A user that does not exist gets a challenge like others, the same each time."""
        auth = self.authenticator(nonce=lambda: "fixed")
        challenges = {}
        for user in (b"ann", b"nobody", b"nobody2"):
            seen = {
                self.result(say(auth.begin("SCRAM-SHA-256", session()), b"n,,n=" + user + b",r=x")).data
                for _ in range(3)
            }
            [challenges[user]] = seen
        self.assertEqual(3, len(set(challenges.values())))
        self.assertEqual({len(challenges[b"ann"])}, set(map(len, challenges.values())))

    def test_names(self) -> None:
        """A comma and an equals sign in a name are escaped, and names are prepared (RFC 4013)."""
        accounts = MemoryAccounts({"a,b=c": "x", "IX": "x"})
        for escaped, expected in ((b"a=2Cb=3Dc", "a,b=c"), ("\u2168".encode(), "IX")):
            exchange = self.authenticator(accounts).begin("SCRAM-SHA-256", session())
            login = self.run_client(exchange, Client("sha256", escaped, b"x"))
            self.assertEqual(expected, login.user)
            login.logout()

    def test_master(self) -> None:
        """A master user may ask for another's maildrop here too."""
        client = Client("sha256", b"root", b"toor", b"n,a=ann,")
        self.assertEqual("ann", self.run_client(self.begin(masters=["root"]), client).user)

    def test_right_proof_refused(self) -> None:
        """Who is barred is not told that the proof is right, nor who knows a dummy's password."""

        class Careless(VerifierSource):
            def dummy_verifier(self, user: str, hash_name: str) -> Verifier:
                return derive(b"x", hash_name, b"salt")

        verifiers = {(user, "sha256"): derive(b"x", "sha256", b"salt") for user in ("ann", "barred")}
        for user in (b"barred", b"nobody"):
            exchange = self.authenticator(Careless(verifiers)).begin("SCRAM-SHA-256", session())
            client = Client("sha256", user, b"x")
            self.refused(exchange, client.final(self.result(say(exchange, client.first())).data))

    def test_malformed_first(self) -> None:
        """What is no client-first message is a mistake; so is an extension that must be understood."""
        for message in (
            b"",
            b"n=ann,r=x",
            b"n,,",
            b"n,,n=,r=x",
            b"n,,n=ann,r=",
            b"n,,n=a=nn,r=x",
            b"n,,n=ann",
            b"n,,m=must,n=ann,r=x",
            b"x,,n=ann,r=x",
            b"p=,,n=ann,r=x",
            b"n,ann,n=ann,r=x",
            b"n,,n=\xff,r=x",
            b"n,,n=\x07,r=x",
            b"n,,n=a\0,r=x",
        ):
            self.refused(self.begin(), message, error=BadCommand)

    def test_malformed_final(self) -> None:
        """So is what is no client-final message, and anything behind the server's proof."""
        for message in (
            b"",
            b"c=biws",
            b"c=biws,r=x,p=",
            b"c=!,r=x,p=AAAA",
            b"c=biws,r=x,p=A",
            b"r=x,c=biws,p=AAAA",
        ):
            self.refused(self.begin(), b"n,,n=ann,r=x", message, error=BadCommand)
        exchange, client = self.begin(), Client("sha256", b"ann", "sécret".encode())
        self.result(say(exchange, client.final(self.result(say(exchange, client.first())).data)))
        self.refused(exchange, b"more", error=BadCommand)


class TokenTests(SaslCase):
    """OAUTHBEARER and XOAUTH2."""

    def begin(self, mechanism: str, **options: Any) -> Exchange:
        return self.authenticator(tokens=FakeTokens(), **options).begin(mechanism, session(TLS))

    def test_right(self) -> None:
        """A good token opens its owner's maildrop, with and without a name beside it, now or later."""
        for mechanism, response in (
            ("OAUTHBEARER", b"n,a=ann,\1host=x\1port=995\1auth=Bearer good\1\1"),
            ("OAUTHBEARER", b"n,,\1auth=bearer later\1\1"),
            ("XOAUTH2", b"user=ann\1auth=Bearer good\1\1"),
        ):
            exchange = self.begin(mechanism)
            login = self.talk(exchange, None, response)
            self.assertEqual(("ann", mechanism, "ann"), (login.user, login.mechanism, exchange.user))
            login.logout()

    def test_bad_token(self) -> None:
        """A bad token is explained in JSON, and refused after the client's dummy answer (RFC 7628)."""
        for mechanism, response, dummy in (
            ("OAUTHBEARER", b"n,a=ann,\1auth=Bearer bad\1\1", b"\1"),
            ("XOAUTH2", b"user=ann\1auth=Bearer bad\1\1", b""),
        ):
            exchange = self.begin(mechanism)
            reason = say(exchange, response).data
            self.assertRegex(reason, rb'^\{"status": "(invalid_token|401)".*\}$')
            self.assertEqual("ann", exchange.user)
            self.refused(exchange, dummy)

    def test_bad_token_counts_at_once(self) -> None:
        """It counts as soon as it is known to be bad: neither ``*`` nor going away makes a guess free."""
        throttle = LoginThrottle(Clock())
        for failures in range(1, 4):
            exchange = self.begin("OAUTHBEARER", throttle=throttle)
            say(exchange, b"n,a=ann,\1auth=Bearer bad\1\1")
            exchange.cancel()
            self.assertEqual(failures, throttle._addresses.count(TLS.host))
        waiting = say(self.begin("OAUTHBEARER", throttle=throttle), b"n,a=ann,\1auth=Bearer bad\1\1")
        self.assertNoResult(waiting)
        self.assertEqual(1, len(throttle._counts.in_flight))

    def test_anothers(self) -> None:
        """A token does not open somebody else's maildrop, unless its owner is a master."""
        for mechanism, response in (
            ("OAUTHBEARER", b"n,a=bob,\1auth=Bearer good\1\1"),
            ("XOAUTH2", b"user=bob\1auth=Bearer good\1\1"),
        ):
            self.refused(self.begin(mechanism), response)
            login = say(self.begin(mechanism, masters=["ann"]), response)
            self.assertEqual("bob", login.user)
            login.logout()

    def test_barred(self) -> None:
        """To an account that is barred a good token is a bad one: the same reason, the same refusal."""
        for mechanism, form in (
            ("OAUTHBEARER", b"n,,\1auth=Bearer %b\1\1"),
            ("XOAUTH2", b"user=\1auth=Bearer %b\1\1"),
        ):
            reasons = []
            for token in (b"barred", b"bad"):
                auth = self.authenticator(VerifierSource({}), tokens=FakeTokens())
                exchange = auth.begin(mechanism, session(TLS))
                reasons.append(self.result(say(exchange, form % token)).data)
                self.refused(exchange, b"\1")
            self.assertEqual(reasons[0], reasons[1])

    def test_malformed(self) -> None:
        """What is not well-formed is a mistake, and not repeated; who cannot be asked is trouble."""
        self.refused(self.begin("XOAUTH2"), b"user=ann\1auth=Bearer trouble\1\1", error=StoreTrouble)
        for mechanism, response in (
            ("OAUTHBEARER", b""),
            ("OAUTHBEARER", b"auth=Bearer good\1\1"),
            ("OAUTHBEARER", b"n,,\1auth=Bearer good"),
            ("OAUTHBEARER", b"n,,\1auth=Basic good\1\1"),
            ("OAUTHBEARER", b"n,,\1auth=Bearer g o\1\1"),
            ("OAUTHBEARER", b"n,,\1host=x\1\1"),
            ("XOAUTH2", b""),
            ("XOAUTH2", b"user=ann\1auth=Bearer good\1"),
            ("XOAUTH2", b"user=\xff\1auth=Bearer good\1\1"),
        ):
            refusal = self.refused(self.begin(mechanism), response, error=BadCommand)
            self.assertNotIn("good", refusal.text + refusal.detail)


class ExternalTests(SaslCase):
    """EXTERNAL."""

    def begin(self, **options: Any) -> Exchange:
        return self.authenticator(certificates=True, **options).begin("EXTERNAL", session(BOUND))

    def test_names(self) -> None:
        """The certificate's name is the user, said again or not; a master's may name another."""
        for responses in ([b""], [None, b""], [b"ann"]):
            login = self.talk(self.begin(), *responses)
            self.assertEqual(("ann", "EXTERNAL"), (login.user, login.mechanism))
            login.logout()
        self.refused(self.begin(), b"bob")
        self.refused(self.begin(), b"\xff", error=BadCommand)
        self.assertEqual("bob", say(self.begin(masters=["ann"]), b"bob").user)


class AnonymousTests(SaslCase):
    """ANONYMOUS."""

    def test_visitors(self) -> None:
        """Visitors read the demo maildrop, whatever they call themselves in not too many words."""
        auth = self.authenticator(MemoryAccounts({"ann": "x"}), AllowAnonymousAccess())
        for responses in ([b"sirhc"], [None, b""], [b"\xff"]):
            login = self.talk(auth.begin("ANONYMOUS", session(NETWORK)), *responses)
            self.assertEqual(("anonymous", "ANONYMOUS"), (login.user, login.mechanism))
            self.assertEqual(b"uid-of-demo", login.mailbox.entries[0].uid)
            login.logout()
        self.assertEqual(set(), self.store.open_now)
        self.refused(auth.begin("ANONYMOUS", session(NETWORK)), b"x" * 1021, error=BadCommand)


def _mutations(message: bytes) -> st.SearchStrategy[bytes]:
    """The message, parts of it, and with something in it."""

    def mutate(cut: tuple[int, int, bytes]) -> bytes:
        start, end, infix = cut
        return message[:start] + infix + message[end:]

    position = st.integers(0, len(message))
    return st.tuples(position, position, st.binary(max_size=3)).map(mutate)


_MESSAGES = [
    b"\0ann\0s\xc3\xa9cret",
    b"n,,n=ann,r=x",
    b"p=tls-exporter,a=bob,n=ann,r=x",
    b"c=biws,r=xfixed,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    b"n,a=ann,\1host=x\1auth=Bearer good\1\1",
    b"user=ann\1auth=Bearer good\1\1",
    b"ann b913a602c7eda7a495b4e6e7334d3890",
    b"ann",
]
_RESPONSES = st.lists(
    st.none()
    | st.binary(max_size=30)
    | st.sampled_from(_MESSAGES)
    | st.sampled_from(_MESSAGES).flatmap(_mutations),
    min_size=1,
    max_size=5,
)


class AnyExchangeTests(SaslCase):
    """Whatever a client says."""

    def setUp(self) -> None:
        super().setUp()
        self.auth = self.authenticator(
            MemoryAccounts({"ann": "sécret"}),
            AllowAnonymousAccess(),
            tokens=FakeTokens(),
            certificates=True,
            nonce=lambda: "fixed",
        )

    @given(st.sampled_from(EVERY), _RESPONSES)
    def test_only_refusals(self, mechanism: str, responses: list[bytes | None]) -> None:
        """A response gets a challenge, a login or a refusal, and nothing comes after the end."""
        exchange = self.auth.begin(mechanism, session(BOUND))
        over = False
        for response in responses:
            try:
                outcome = self.result(say(exchange, response))
            except Refusal:
                over = True
            else:
                self.assertFalse(over)
                self.assertIsInstance(outcome, Challenge | Login)
                if isinstance(outcome, Login):
                    over = True
                    outcome.logout()


class ForeignCheckerTests(SaslCase):
    """Checkers of other programs take what they can."""

    def test_passwords_only(self) -> None:
        """A checker for passwords makes PLAIN and LOGIN, one for digests CRAM-MD5 as well."""

        class Passwords:
            credentialInterfaces = (IUsernamePassword,)

            def requestAvatarId(self, credentials: Any) -> Any:
                if credentials.checkPassword("x"):
                    return succeed(b"canonical-" + credentials.username)
                raise UnauthorizedLogin

        class Digests(Passwords):
            credentialInterfaces = (IUsernamePassword, IUsernameHashedPassword)  # type: ignore[assignment]

        self.assertEqual(["PLAIN", "LOGIN"], list(self.authenticator(Passwords()).mechanisms(LOOPBACK)))
        self.assertEqual(
            ["CRAM-MD5", "PLAIN", "LOGIN"], list(self.authenticator(Digests()).mechanisms(LOOPBACK))
        )
        login = say(self.authenticator(Passwords()).begin("PLAIN", session()), b"\0ann\0x")
        self.assertEqual("canonical-ann", login.user)
