"""One account, however its name is spelled: over every mechanism and every source that can list its names."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scramp import ScramClient
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.cred.strcred import makeChecker
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from pop3toy.auth.accounts.accounts_file import AccountsFile
from pop3toy.auth.accounts.hashing_queue import HashingQueue
from pop3toy.auth.accounts.memory import MemoryAccounts
from pop3toy.auth.accounts.schemes import make
from pop3toy.auth.authenticator import PortalAuthenticator
from pop3toy.auth.chain import AnyOf
from pop3toy.auth.names import LoginNames, NameIndex, folded
from pop3toy.auth.realm import MailboxRealm
from pop3toy.auth.sasl.oauth import ITokenChecker
from pop3toy.auth.sources import IAccountSource
from pop3toy.auth.strcred import of_auth_option
from pop3toy.auth.throttle.login_throttle import LoginLimits, LoginThrottle
from pop3toy.errors import AuthenticationFailed, InUse, LoginDelay, StoreTrouble
from pop3toy.interfaces import Channel, Login, TLSFacts
from pop3toy.smtp.submission import SenderRealm

from ..auth_world import LOOPBACK, FakeStore, FakeThreads, say, session
from .records_world import FakeRecords, checker_of
from .test_accounts import pbkdf2

PASSWORD = "sécret"
#: Two accounts, and domains that may stand behind their names.
USERS = ("ann", "Zoë")
DOMAINS = ("example.org", "münchen.example")
NFD = unicodedata.normalize("NFD", "Zoë")
#: What clients send, and whom it means.
SPELLINGS = {
    "ann": "ann",
    "Ann": "ann",
    "ANN": "ann",
    "ann@example.org": "ann",
    "ANN@Example.ORG.": "ann",
    "Ann@xn--mnchen-3ya.example": "ann",
    "ann@MÜNCHEN.example": "ann",
    "Zoë": "Zoë",
    "zoë": "Zoë",
    "ZOË": "Zoë",
    NFD: "Zoë",
    NFD.upper(): "Zoë",
    f"{NFD}@example.org": "Zoë",
    "\uff41nn": "ann",
}
NOBODY = (
    "bob",
    "ann@elsewhere.example",
    "ann@",
    "@example.org",
    "ann+x@example.org",
    "anna",
    "zoe",
    "a" * 5000,
)


def talk(exchange: Any, *responses: bytes | None) -> Any:
    """The last answer."""
    for response in responses:
        answer = settled(say(exchange, response))
    return answer


def settled(outcome: Any) -> Any:
    """What a Deferred holds, raised if that is a failure."""
    if isinstance(outcome, Deferred):
        results: list[Any] = []
        outcome.addBoth(results.append)
        [outcome] = results
        if hasattr(outcome, "raiseException"):
            outcome.raiseException()
    return outcome


def by_scram(mechanism: str) -> Callable[..., Any]:
    """A login with scramp's client, which sends the name as it was typed and signs that."""

    def login(auth: PortalAuthenticator, name: str, password: str) -> Any:
        client = ScramClient([mechanism], name, password)
        exchange = auth.begin(mechanism, session())
        client.set_server_first(talk(exchange, client.get_client_first().encode()).data.decode())
        verdict = talk(exchange, client.get_client_final().encode())
        client.set_server_final(verdict.data.decode())
        return talk(exchange, b"")

    return login


def by_cram(auth: PortalAuthenticator, name: str, password: str) -> Any:
    """A login with CRAM-MD5."""
    exchange = auth.begin("CRAM-MD5", session())
    digest = hmac.new(password.encode(), talk(exchange, None).data, "md5").hexdigest()
    return talk(exchange, f"{name} {digest}".encode())


def by_apop(auth: PortalAuthenticator, name: str, password: str) -> Any:
    """A login with APOP."""
    digest = hashlib.md5(f"<a@b>{password}".encode()).hexdigest().encode()
    return settled(auth.apop(name.encode(), digest, "<a@b>", session()))


PLAIN: dict[str, Callable[..., Any]] = {
    "USER": lambda auth, name, password: settled(auth.password(name.encode(), password.encode(), session())),
    "PLAIN": lambda auth, name, password: talk(
        auth.begin("PLAIN", session()), f"\0{name}\0{password}".encode()
    ),
    "LOGIN": lambda auth, name, password: talk(
        auth.begin("LOGIN", session()), None, name.encode(), password.encode()
    ),
}
DIGESTS: dict[str, Callable[..., Any]] = {"APOP": by_apop, "CRAM-MD5": by_cram}
SCRAM = {name: by_scram(name) for name in ("SCRAM-SHA-1", "SCRAM-SHA-256")}


@implementer(ICredentialsChecker)
class Foreign:
    """A checker that cannot say whom it knows."""

    credentialInterfaces = (IUsernamePassword, IUsernameHashedPassword)

    def __init__(self, *users: bytes) -> None:
        self.users = users
        self.asked: list[bytes] = []

    def requestAvatarId(self, credentials: Any) -> bytes:
        self.asked.append(credentials.username)
        if credentials.username in self.users and credentials.checkPassword(PASSWORD):
            return bytes(credentials.username)
        raise UnauthorizedLogin


class NamesCase(SynchronousTestCase):
    """Sources and authenticators."""

    def setUp(self) -> None:
        self.store = FakeStore()
        self.threads = FakeThreads()
        self.clock = Clock()

    def authenticator(self, *checkers: Any, **options: Any) -> PortalAuthenticator:
        portal = Portal(MailboxRealm(self.store), [AnyOf(checkers)] if len(checkers) > 1 else checkers)
        return PortalAuthenticator(portal, **{"domains": DOMAINS, **options})

    def accounts_file(self, *users: str, scheme: str = "PLAIN", password: str = PASSWORD) -> AccountsFile:
        path = Path(self.mktemp())
        stored = pbkdf2(password.encode()) if scheme == "PBKDF2" else make(password.encode(), scheme)
        path.write_bytes(b"".join(b"%b:%b\n" % (user.encode(), stored) for user in users))
        path.chmod(0o600)
        settled = path.stat().st_mtime + 1000
        return AccountsFile(path, HashingQueue(self.threads), self.clock, wall=lambda: settled)

    def records(self, *users: str, scheme: str = "PLAIN", password: str = PASSWORD) -> Any:
        stored = pbkdf2(password.encode()) if scheme == "PBKDF2" else make(password.encode(), scheme)
        # Asked for elsewhere, so that the threads of the passwords have these alone.
        lines = [f"{user}:{stored.decode()}" for user in users]
        return checker_of(FakeRecords(*lines), self.threads, self.clock, looking=FakeThreads())

    def password_file(self, *users: str, password: str = PASSWORD) -> Any:
        path = Path(self.mktemp())
        path.write_text("".join(f"{user}:{password}\n" for user in users), encoding="utf-8")
        return of_auth_option(makeChecker(f"file:{path}"))

    def memory(self, *users: str, password: str = PASSWORD) -> MemoryAccounts:
        return MemoryAccounts(dict.fromkeys(users, password))

    def worlds(self) -> dict[str, tuple[tuple[Any, ...], dict[str, Callable[..., Any]]]]:
        """Sources, each with the mechanisms that it can work with."""
        every = PLAIN | DIGESTS | SCRAM
        return {
            "memory": ((self.memory(*USERS),), every),
            "--auth memory": ((makeChecker("memory:ann:sécret:Zoë:sécret"),), every),
            "accounts file": ((self.accounts_file(*USERS),), every),
            "records": ((self.records(*USERS),), every),
            "records of verifiers": (
                (self.records(*USERS, scheme="SCRAM-SHA-256"),),
                PLAIN | {"SCRAM-SHA-256": SCRAM["SCRAM-SHA-256"]},
            ),
            "a file and records": ((self.accounts_file("ann"), self.records("Zoë")), every),
            "records stored decomposed": ((self.records("ann", NFD),), every),
            "slow hashes": ((self.accounts_file(*USERS, scheme="PBKDF2"),), PLAIN),
            "verifiers": (
                (self.accounts_file(*USERS, scheme="SCRAM-SHA-256"),),
                PLAIN | {"SCRAM-SHA-256": SCRAM["SCRAM-SHA-256"]},
            ),
            "--auth file": ((self.password_file(*USERS),), PLAIN | DIGESTS),
            "two": ((self.memory("ann"), self.accounts_file("Zoë")), every),
            "and one that cannot say": ((Foreign(), self.memory(*USERS)), every),
            "stored decomposed": ((self.accounts_file("ann", NFD),), every),
        }


class EveryMechanismTests(NamesCase):
    """The same user everywhere."""

    def test_spellings(self) -> None:
        """Every spelling comes in as the account, whose maildrop is opened under its own name."""
        for world, (checkers, mechanisms) in self.worlds().items():
            auth = self.authenticator(*checkers)
            for mechanism, login in mechanisms.items():
                for spelling, user in SPELLINGS.items():
                    with self.subTest(world=world, mechanism=mechanism, spelling=spelling):
                        if world.endswith("stored decomposed"):
                            user = user.replace("Zoë", NFD)
                        found = login(auth, spelling, PASSWORD)
                        self.assertIsInstance(found, Login)
                        self.assertEqual((user, {user}), (found.user, self.store.open_now))
                        found.logout()

    def test_nobody(self) -> None:
        """What is no spelling of anybody's name, or a wrong password for one, is refused."""
        for world, (checkers, mechanisms) in self.worlds().items():
            auth = self.authenticator(*checkers)
            for mechanism, login in mechanisms.items():
                for name, password in [
                    *((n, PASSWORD) for n in NOBODY),
                    ("ANN", "x"),
                    ("ann@example.org", "x"),
                ]:
                    with self.subTest(world=world, mechanism=mechanism, name=name[:30]):
                        self.assertRaises(AuthenticationFailed, login, auth, name, password)
        self.assertEqual([], self.store.opened)

    def test_proven_elsewhere(self) -> None:
        """A token's owner and a certificate's name are found among the accounts in the same way."""

        @implementer(ITokenChecker)
        class Tokens:
            def owner(self, token: str) -> str:
                return base64.b64decode(token).decode()

        for accounts in (self.memory(*USERS), self.accounts_file(*USERS), self.records(*USERS)):
            auth = self.authenticator(accounts, tokens=Tokens(), certificates=True)
            for spelling, user in SPELLINGS.items():
                token = base64.b64encode(spelling.encode()).decode()
                certified = Channel("192.0.2.7", local=False, tls=TLSFacts("TLSv1.3", "x", spelling))
                for mechanism, channel, response in (
                    ("OAUTHBEARER", LOOPBACK, f"n,a={spelling},\1auth=Bearer {token}\1\1"),
                    ("XOAUTH2", LOOPBACK, f"user={spelling}\1auth=Bearer {token}\1\1"),
                    ("EXTERNAL", certified, ""),
                    ("EXTERNAL", certified, spelling),
                ):
                    with self.subTest(spelling=spelling, mechanism=mechanism):
                        found = talk(auth.begin(mechanism, session(channel)), response.encode())
                        self.assertEqual((user, {user}), (found.user, self.store.open_now))
                        found.logout()

    def test_proven_elsewhere_alone(self) -> None:
        """Where nobody lists the users a proven name is taken as it is, asked for in any spelling."""
        certified = Channel("192.0.2.7", local=False, tls=TLSFacts("TLSv1.3", "x", "Zoë"))
        auth = self.authenticator(certificates=True)
        for asked in ("", "Zoë", NFD, "zoë@example.org"):
            found = talk(auth.begin("EXTERNAL", session(certified)), asked.encode())
            self.assertEqual("Zoë", found.user)
            found.logout()
        with self.assertRaises(AuthenticationFailed):
            talk(auth.begin("EXTERNAL", session(certified)), b"ann")

    def test_asked_for(self) -> None:
        """A master finds the account in any spelling, and everybody may ask for himself so."""
        auth = self.authenticator(self.memory("root", *USERS), masters=["root"])
        for asked, claimed, user in (
            ("ANN", "ann@example.org", "ann"),
            ("ann@example.org", "Ann", "ann"),
            (NFD, "ROOT", "Zoë"),
            ("Root", "root@Example.org", "root"),
        ):
            found = talk(auth.begin("PLAIN", session()), f"{asked}\0{claimed}\0{PASSWORD}".encode())
            self.assertEqual((user, {user}), (found.user, self.store.open_now))
            found.logout()
        for asked, claimed in (("zoë", "ANN"), ("bob", "ROOT"), ("Root", "ann")):
            with self.assertRaises(AuthenticationFailed):
                talk(auth.begin("PLAIN", session()), f"{asked}\0{claimed}\0{PASSWORD}".encode())

    def test_submission(self) -> None:
        """At the submission port it is the same user."""
        portal = Portal(SenderRealm(), [self.memory(*USERS)])
        auth = PortalAuthenticator(portal, domains=DOMAINS)
        for spelling, user in SPELLINGS.items():
            self.assertEqual(user, PLAIN["PLAIN"](auth, spelling, PASSWORD).user)

    def test_exact_name_first(self) -> None:
        """Names that differ by case alone are taken as they are written, and nobody's otherwise."""
        both = (
            (self.memory("ann", "Ann", "ann@example.org"),),
            (self.memory("ann"), self.password_file("Ann", "ann@example.org")),
            (self.records("ann", "Ann", "ann@example.org"),),
            (self.memory("ann"), self.records("Ann", "ann@example.org")),
        )
        for checkers in both:
            auth = self.authenticator(*checkers)
            for claimed, user in (
                ("ann", "ann"),
                ("Ann", "Ann"),
                ("ann@example.org", "ann@example.org"),
                ("Ann@Example.org", "ann@example.org"),
                ("Ann@xn--mnchen-3ya.example", "Ann"),
            ):
                found = PLAIN["USER"](auth, claimed, PASSWORD)
                self.assertEqual(user, found.user, claimed)
                found.logout()
            for claimed in ("ANN", "aNN@münchen.example"):
                self.assertRaises(AuthenticationFailed, PLAIN["USER"], auth, claimed, PASSWORD)

    def test_foreign_checker(self) -> None:
        """A checker that cannot list its names is asked for the name as it was sent."""
        foreign = Foreign(b"Bob", b"bob@example.org")
        auth = self.authenticator(foreign, self.memory("ann"))
        for claimed in ("Bob", "bob@example.org"):
            found = PLAIN["USER"](auth, claimed, PASSWORD)
            self.assertEqual(claimed, found.user)
            found.logout()
        for claimed in ("bob", "Ann@Example.org"):
            try:
                PLAIN["USER"](auth, claimed, PASSWORD).logout()
            except AuthenticationFailed:
                pass
        self.assertEqual([b"Bob", b"bob@example.org", b"bob", b"Ann@Example.org"], foreign.asked)

    def test_source_in_trouble(self) -> None:
        """While one source cannot say whom it knows, names of others are taken as they are written there."""
        for kind in (self.accounts_file, self.password_file):
            away = kind("carl")
            path = away._source.path if kind == self.accounts_file else Path(away._path)
            path.unlink()
            auth = self.authenticator(self.memory("ann"), away)
            PLAIN["USER"](auth, "ann", PASSWORD).logout()
            for claimed in ("Ann", "ann@example.org", "carl", "bob"):
                self.assertRaises(StoreTrouble, PLAIN["USER"], auth, claimed, PASSWORD)

    def test_without_domains(self) -> None:
        """Where no domains are given a name with a domain is another name."""
        auth = self.authenticator(self.memory("ann"), domains=())
        self.assertEqual("ann", PLAIN["USER"](auth, "Ann", PASSWORD).user)
        self.assertRaises(AuthenticationFailed, PLAIN["USER"], auth, "ann@example.org", PASSWORD)

    def test_added_in_between(self) -> None:
        """An account that comes while SCRAM is under way does not take the place of the proven one."""
        accounts = self.accounts_file("ann")
        auth = self.authenticator(accounts)
        client = ScramClient(["SCRAM-SHA-256"], "Ann", PASSWORD)
        exchange = auth.begin("SCRAM-SHA-256", session())
        client.set_server_first(talk(exchange, client.get_client_first().encode()).data.decode())
        accounts._source.path.write_bytes(b"ann:{PLAIN}other\nAnn:{PLAIN}another\n")
        talk(exchange, client.get_client_final().encode())
        self.assertEqual("ann", talk(exchange, b"").user)


class LimitTests(NamesCase):
    """What is counted by user is counted by account."""

    def guarded(self, **limits: Any) -> PortalAuthenticator:
        throttle = LoginThrottle(self.clock, LoginLimits(**limits))
        return self.authenticator(self.memory(*USERS), throttle=throttle)

    def test_penalties(self) -> None:
        """Guesses at all spellings of a name are guesses at one user; the same for a name that nobody has."""
        for names in (
            ["ann", "Ann", "ANN@example.org", "\uff41nn", "aNn@münchen.example"],
            ["bob", "Bob", "BOB@example.org", "\uff42ob", "bOb@münchen.example"],
        ):
            auth = self.guarded(free_failures=1000, user_free_failures=len(names))
            for name in names:
                self.assertRaises(AuthenticationFailed, PLAIN["USER"], auth, name, "wrong")
            exchange = auth.begin("LOGIN", session())
            say(exchange, names[1].encode())
            self.assertIsInstance(say(exchange, b"x"), Deferred)
            exchange.cancel()
            self.assertIsInstance(auth.password(names[2].encode(), b"wrong", session()), Deferred)

    def test_sessions(self) -> None:
        """Sessions in different spellings are sessions of one user."""
        auth = self.guarded(sessions_per_user=1, lock_wait=0)
        PLAIN["USER"](auth, "Ann", PASSWORD)
        for mechanism, login in (PLAIN | DIGESTS | SCRAM).items():
            self.assertRaises(InUse, login, auth, "ANN@example.org", PASSWORD)
            self.store.open_now.clear()
            self.assertEqual(["ann"], self.store.opened, mechanism)

    def test_login_delay(self) -> None:
        """LOGIN-DELAY holds for the user, in whatever spelling he comes."""
        auth = self.guarded(login_delay=60)
        PLAIN["USER"](auth, NFD, PASSWORD).logout()
        for login in (PLAIN | DIGESTS | SCRAM).values():
            self.assertRaises(LoginDelay, login, auth, "zoë", PASSWORD)

    def test_lock(self) -> None:
        """The store's lock is the account's."""
        auth = self.authenticator(self.memory(*USERS))
        PLAIN["USER"](auth, "ann", PASSWORD)
        self.assertRaises(InUse, PLAIN["USER"], auth, "Ann", PASSWORD)


class UnknownTests(NamesCase):
    """Nobody can tell by a name's spelling whether there is such a user."""

    def salt(self, auth: PortalAuthenticator, name: str) -> bytes:
        challenge = talk(auth.begin("SCRAM-SHA-256", session()), b"n,,n=%b,r=x" % name.encode()).data
        return bytes(challenge.split(b",")[1])

    def test_salts(self) -> None:
        """Names that would mean one account have one salt, whether there is the account or not."""
        sources = (
            self.memory(*USERS),
            self.accounts_file(*USERS),
            self.accounts_file(*USERS, scheme="SCRAM-SHA-256"),
            self.records(*USERS),
            self.records(*USERS, scheme="SCRAM-SHA-256"),
        )
        for source in sources:
            auth = self.authenticator(source)
            for known, unknown in (("ann", "bob"), ("zoë", "joë")):
                for name in (known, unknown):
                    same = (name.upper(), f"{name}@example.org", unicodedata.normalize("NFD", name))
                    self.assertEqual({self.salt(auth, name)}, {self.salt(auth, n) for n in same}, name)
                    other = f"{name}@elsewhere.example"
                    self.assertNotEqual(self.salt(auth, name), self.salt(auth, other))

    def test_salts_of_addresses(self) -> None:
        """Where accounts are called by addresses, a local part alone is another name, known or not."""
        for source in (
            self.memory("ann@example.org"),
            self.accounts_file("ann@example.org", scheme="SCRAM-SHA-256"),
            self.records("ann@example.org", scheme="SCRAM-SHA-256"),
        ):
            auth = self.authenticator(source)
            for name in ("ann", "bob"):
                full = self.salt(auth, f"{name}@example.org")
                self.assertEqual(full, self.salt(auth, f"{name.upper()}@Example.org."))
                self.assertNotEqual(full, self.salt(auth, name))

    def test_work(self) -> None:
        """A wrong password is as much work for any spelling of a name as for one that nobody has."""
        for scheme, source in itertools.product(
            ("PBKDF2", "SCRAM-SHA-256", "PLAIN"), (self.accounts_file, self.records)
        ):
            auth = self.authenticator(source(*USERS, scheme=scheme))
            work = set()
            for name in (*SPELLINGS, "bob", "BOB", "bob@example.org"):
                self.threads.calls.clear()
                self.assertRaises(AuthenticationFailed, PLAIN["USER"], auth, name, "wrong")
                work.add(len(self.threads.calls))
            self.assertEqual(1, len(work), scheme)

    def test_looks(self) -> None:
        """The accounts are asked as often for a known name as for an unknown one of the same form."""

        class Counting(MemoryAccounts):
            looks = 0

            def canonical_name(self, user: str) -> str | None:
                self.looks += 1
                return super().canonical_name(user)

        accounts = Counting({"ann": PASSWORD, "eve@example.org": PASSWORD})
        names = LoginNames(accounts.canonical_name, accounts.has_addresses, DOMAINS)
        for form in ("{}", "{}@example.org", "{}@elsewhere.example"):
            looks = set()
            for name in ("ann", "ANN", "eve", "bob"):
                accounts.looks = 0
                names.account(form.format(name))
                looks.add(accounts.looks)
            self.assertEqual(1, len(looks), form)


class PasswordTests(NamesCase):
    """Passwords that not every line can carry."""

    def test_tab(self) -> None:
        """A password with a tab works in every mechanism that can carry it, which SCRAM's clients do not."""
        password = "two\twords\tend"
        for checker, mechanisms in (
            (self.memory("ann", password=password), PLAIN | DIGESTS),
            (self.accounts_file("ann", password=password), PLAIN | DIGESTS),
            (self.accounts_file("ann", scheme="PBKDF2", password=password), PLAIN),
            (self.accounts_file("ann", scheme="SCRAM-SHA-256", password=password), PLAIN),
            (self.password_file("ann", password=password), PLAIN | DIGESTS),
        ):
            auth = self.authenticator(checker)
            for mechanism, login in mechanisms.items():
                with self.subTest(checker=checker, mechanism=mechanism):
                    login(auth, "ann", password).logout()
                    self.assertRaises(AuthenticationFailed, login, auth, "ann", password.replace("\t", " "))


class IndexTests(SynchronousTestCase):
    """The pure part."""

    def test_folded(self) -> None:
        """Case, composition and width are folded, once and for all; what is too long to be a name stays."""
        for name in (*SPELLINGS, "Straße", "İ", "ΣΑΣ", "\ud800", "\udcff"):
            self.assertEqual(folded(name), folded(folded(name)), ascii(name))
            self.assertEqual(folded(name), folded(name.upper()), ascii(name))
        self.assertEqual("X" + "\u0301" * 5000, folded("X" + "\u0301" * 5000))

    def test_find(self) -> None:
        """Exactly first; else where one name alone is alike."""
        index = NameIndex({"ann", "Ann", "Bob", "CARL", "carl", "eve"})
        for name, found in (
            ("ann", "ann"), ("Ann", "Ann"), ("ANN", None), ("bob", "Bob"), ("BOB", "Bob"),
            ("Carl", None), ("carl", "carl"), ("EVE", "eve"), ("zoe", None), ("", None),
        ):  # fmt: skip
            self.assertEqual(found, index.find(name), name)
        self.assertFalse(index.has_addresses)
        self.assertTrue(NameIndex({"ann", "eve@example.org"}).has_addresses)

    def test_password_file_is_a_source(self) -> None:
        """``--auth file:`` can say whom it knows."""
        path = Path(self.mktemp())
        path.write_bytes(b"ann:x\nnonsense\n\xff:y\n")
        source: Any = of_auth_option(makeChecker(f"file:{path}"))
        verifyObject(IAccountSource, source)
        self.assertEqual(["ann", None], [source.canonical_name(name) for name in ("ANN", "nonsense")])
        self.assertEqual((True, frozenset()), (source.has_plaintext(), source.scram_hashes()))
        self.assertTrue(AnyOf([source]).knows_all)
