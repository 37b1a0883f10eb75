"""Accounts that may not log in do not tell whether a password is right: not by words, and not by work.

The work is counted, not timed: which functions of C a login calls, how often,
in the reactor's thread and the others.  All hashes are computed by such.
"""

from __future__ import annotations

import base64
import ctypes
import functools
import gc
import hashlib
import hmac
import random
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import bcrypt
from argon2.low_level import Type, hash_secret
from passlib import hash as passlib
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.auth.accounts import hmac_md5, libcrypt, schemes
from pop3toy.auth.accounts import records as accounts_records
from pop3toy.auth.accounts.accounts_file import AccountsFile
from pop3toy.auth.accounts.hashing_queue import HashingQueue
from pop3toy.auth.accounts.memory import MemoryAccounts
from pop3toy.auth.accounts.verifier import derive
from pop3toy.auth.authenticator import PortalAuthenticator
from pop3toy.auth.chain import AnyOf
from pop3toy.auth.realm import MailboxRealm
from pop3toy.errors import AuthenticationFailed, Refusal
from pop3toy.interfaces import Challenge, Channel, Exchange, Login, TLSFacts

from ..auth_world import LOOPBACK, FakeStore, FakeThreads, say, session
from .records_world import FakeRecords, checker_of

TLS = Channel(
    "192.0.2.7",
    local=False,
    tls=TLSFacts("TLSv1.3", "x", exporter=lambda label, context, size: b"x" * size),
)
NONCE = "nonce"
HASHES = re.compile("hash|digest|hmac|pbkdf2|argon2|checkpw|md5|sha|crypt")


def _b64(octets: bytes) -> bytes:
    return base64.b64encode(octets)


def _digest(name: str, salt: bytes = b"") -> Callable[[bytes], bytes]:
    return lambda password: _b64(hashlib.new(name, password + salt).digest() + salt)


def _scram(name: str) -> Callable[[bytes], bytes]:
    def make(password: bytes) -> bytes:
        made = derive(password, name, b"0123456789abcdef", 4096)
        return b"4096," + b",".join(map(_b64, (made.salt, made.stored_key, made.server_key)))

    return make


def _argon2(kind: Type) -> Callable[[bytes], bytes]:
    return lambda password: hash_secret(password, b"saltsalt", 1, 8, 1, 16, kind)


def _yescrypt(password: bytes) -> bytes:
    memory = ctypes.create_string_buffer(32_768)
    made: bytes = libcrypt._library().crypt_rn(password, b"$y$j75$abcdefghijklmnop$", memory, 32_768)
    return made


#: Every scheme, with little to compute.
STORED: dict[str, Callable[[bytes], bytes]] = {
    "ARGON2ID": _argon2(Type.ID),
    "ARGON2I": _argon2(Type.I),
    "BLF-CRYPT": lambda password: bcrypt.hashpw(password, b"$2b$04$" + b"a" * 21 + b"u"),
    "SHA512-CRYPT": lambda p: passlib.sha512_crypt.using(rounds=1000, salt="ab").hash(p).encode(),
    "SHA256-CRYPT": lambda p: passlib.sha256_crypt.using(rounds=1000, salt="ab").hash(p).encode(),
    "MD5-CRYPT": lambda p: passlib.md5_crypt.using(salt="ab").hash(p).encode(),
    "APR1-CRYPT": lambda p: passlib.apr_md5_crypt.using(salt="ab").hash(p).encode(),
    "DES-CRYPT": lambda p: passlib.des_crypt.using(salt="ab").hash(p).encode(),
    "YESCRYPT": _yescrypt,
    "CRAM-MD5": lambda p: hmac_md5.contexts(p).hex().encode(),
    "PBKDF2": lambda p: b"$1$salt$2$" + hashlib.pbkdf2_hmac("sha1", p, b"salt", 2).hex().encode(),
    "PLAIN": lambda password: password,
    "SHA": _digest("sha1"),
    "SSHA": _digest("sha1", b"salt"),
    "SHA256": _digest("sha256"),
    "SSHA256": _digest("sha256", b"salt"),
    "SHA512": _digest("sha512"),
    "SSHA512": _digest("sha512", b"salt"),
    "PLAIN-MD5": _digest("md5"),
    "SMD5": _digest("md5", b"salt"),
    "SCRAM-SHA-1": _scram("sha1"),
    "SCRAM-SHA-256": _scram("sha256"),
}
if not libcrypt.yescrypt_works():
    del STORED["YESCRYPT"]
MECHANISMS = (
    "USER", "APOP", "PLAIN", "LOGIN", "CRAM-MD5",
    "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS",
)  # fmt: skip


def scram_final(mechanism: str, password: bytes, first: bytes, challenge: bytes) -> bytes:
    """The client-final message of somebody who knows this password (RFC 5802 section 3)."""
    hash_name = "sha256" if "256" in mechanism else "sha1"
    header, bare = first.split(b",,", 1)
    bound = b"x" * 32 if header.startswith(b"p") else b""
    nonce, salt, iterations = (part.partition(b"=")[2] for part in challenge.split(b","))
    salted = hashlib.pbkdf2_hmac(hash_name, password, base64.b64decode(salt), int(iterations))
    key = hmac.digest(salted, b"Client Key", hash_name)
    without = b"c=%b,r=%b" % (_b64(header + b",," + bound), nonce)
    signed = b",".join((bare, challenge, without))
    signature = hmac.digest(hashlib.new(hash_name, key).digest(), signed, hash_name)
    return without + b",p=" + _b64(bytes(a ^ b for a, b in zip(key, signature, strict=True)))


def hashing(called: Counter[str]) -> Counter[str]:
    """The calls that compute hashes."""
    return Counter({name: count for name, count in called.items() if HASHES.search(name)})


class WorldCase(SynchronousTestCase):
    """An accounts file, an authenticator over it, and clients of every mechanism."""

    def setUp(self) -> None:
        self.store = FakeStore()
        self.threads = FakeThreads()
        self.chance = random.Random(1)

    def serve(self, text: bytes, *, others: dict[str, str] | None = None) -> None:
        """Everybody of this file can log in from now on, and others from memory."""
        path = Path(self.mktemp())
        path.write_bytes(text)
        path.chmod(0o600)
        wall = path.stat().st_mtime + 1000
        file = AccountsFile(path, HashingQueue(self.threads), Clock(), wall=lambda: wall)
        self.assertEqual((), file._source.accounts.problems)
        checker = AnyOf([MemoryAccounts(others), file]) if others else file
        portal = Portal(MailboxRealm(self.store), [checker])
        self.authenticator = PortalAuthenticator(portal, nonce=lambda: NONCE, channel_binding=True)

    def _steps(self, mechanism: str, user: bytes, password: bytes, channel: Channel) -> Any:
        """Talk to the end; what it says in the end."""
        record, auth = session(channel), self.authenticator
        if mechanism == "USER":
            return auth.password(user, password, record)
        if mechanism == "APOP":
            digest = hashlib.md5(b"<a@b>" + password).hexdigest().encode()
            return auth.apop(user, digest, "<a@b>", record)
        exchange: Exchange = auth.begin(mechanism, record)
        if mechanism == "PLAIN":
            return say(exchange, b"\0" + user + b"\0" + password)
        if mechanism == "LOGIN":
            say(exchange, user)
            return say(exchange, password)
        if mechanism == "CRAM-MD5":
            challenge = say(exchange, None)
            assert isinstance(challenge, Challenge)
            return say(exchange, user + b" " + hmac.digest(password, challenge.data, "md5").hex().encode())
        flag = b"p=tls-exporter" if mechanism.endswith("PLUS") else b"n"
        first = flag + b",,n=" + user + b",r=c"
        challenge = self._now(say(exchange, first))
        assert isinstance(challenge, Challenge)
        final = scram_final(mechanism, password, first, challenge.data)
        verdict = self._now(say(exchange, final))
        assert isinstance(verdict, Challenge)
        return say(exchange, b"")

    def _now(self, outcome: object) -> Any:
        if isinstance(outcome, Deferred):
            outcome.addErrback(lambda why: why.value)
            outcome = self.successResultOf(outcome)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def log_in(self, mechanism: str, user: bytes, password: bytes, channel: Channel = TLS) -> Any:
        """Who came in, or the refusal's type."""
        try:
            login = self._now(self._steps(mechanism, user, password, channel))
        except Refusal as refusal:
            return type(refusal)
        assert isinstance(login, Login)
        login.logout()
        return login.user


class BarredTests(WorldCase):
    """nologin and allow_nets."""

    def work(self, mechanism: str, user: bytes, password: bytes) -> tuple[Any, Counter[str]]:
        """What comes of it, and the functions of C that were called."""
        called: Counter[str] = Counter()

        def note(frame: FrameType, event: str, argument: object) -> None:
            if event == "c_call":
                module = getattr(argument, "__module__", None)
                called[f"{module}.{getattr(argument, '__qualname__', argument)}"] += 1

        self.threads.calls.clear()
        # Collecting calls functions of C as well.
        gc.disable()
        sys.setprofile(note)
        try:
            outcome = self.log_in(mechanism, user, password)
        finally:
            sys.setprofile(None)
            gc.enable()
        return outcome, called

    def compare(self, scheme: str, bar: bytes, others: dict[str, str] | None = None) -> None:
        """A right password, a wrong one and no such user: the same, also the second time."""
        password, wrong = (bytes(self.chance.choices(b"abcdefgh", k=7)) for _ in range(2))
        stored = b"{%b}%b" % (scheme.encode(), STORED[scheme](password))
        costly = b"ann:%b:%b\ncarl:{PBKDF2}%b\n" % (stored, bar, STORED["PBKDF2"](b"third"))
        # Somebody whose password is known makes all mechanisms possible, and more to compute.
        for text in (costly, costly + b"bob:{PLAIN}another\n"):
            self.serve(text, others=others)
            self.compare_mechanisms(scheme, bar, password, wrong)

    def compare_mechanisms(self, scheme: str, bar: bytes, password: bytes, wrong: bytes) -> None:
        """The same with every mechanism that is offered."""
        offered = {"USER", "APOP", *self.authenticator.mechanisms(TLS)}
        for mechanism in (name for name in MECHANISMS if name in offered):
            if bar.startswith(b"allow"):
                # A success from where the account may be used is remembered.
                self.log_in(mechanism, b"ann", password, LOOPBACK if "PLUS" not in mechanism else TLS)
            seen = [
                self.work(mechanism, user, secret)
                for _ in range(2)
                for user, secret in ((b"ann", password), (b"ann", wrong), (b"eve", password))
            ]
            where = (scheme, mechanism, bar)
            self.assertEqual([AuthenticationFailed] * 6, [outcome for outcome, _ in seen], where)
            right, wrong_, nobody = (called for _, called in seen[3:])
            # Right and wrong are alike in everything, nobody in all that is computed.
            self.assertEqual(right, wrong_, where)
            for called in (*(called for _, called in seen[:3]), nobody):
                self.assertEqual(hashing(right), hashing(called), where)
            self.assertTrue(hashing(right) or mechanism in ("USER", "PLAIN", "LOGIN"), where)

    def test_every_scheme_and_mechanism(self) -> None:
        """The right password of a barred account costs what a wrong one costs, and one of nobody."""
        self.assertEqual(set(schemes._SCHEMES), set(STORED) | {"YESCRYPT"})
        for scheme in STORED:
            for bar in (b"nologin", b"allow_nets=127.0.0.0/8"):
                self.compare(scheme, bar)

    def test_second_source(self) -> None:
        """So it does where other accounts are asked too."""
        for scheme in ("ARGON2ID", "PLAIN", "SCRAM-SHA-256"):
            self.compare(scheme, b"nologin", {"fritz": "fourth"})

    def test_not_barred(self) -> None:
        """From where it may be used the same account comes in, in every way in which its scheme can."""
        for scheme in STORED:
            stored = b"{%b}%b" % (scheme.encode(), STORED[scheme](b"one"))
            self.serve(b"ann:%b:allow_nets=192.0.2.0/24\nbob:{PLAIN}x\n" % stored)
            came_in = {name for name in MECHANISMS if self.log_in(name, b"ann", b"one") == "ann"}
            able = {"USER", "PLAIN", "LOGIN"}
            if scheme == "PLAIN":
                able = set(MECHANISMS)
            elif scheme == "CRAM-MD5":
                able.add(scheme)
            elif scheme.startswith("SCRAM"):
                able |= {scheme, f"{scheme}-PLUS"}
            self.assertEqual(able, came_in, scheme)


UNDERSTOOD = accounts_records._account_of


class BarredRecordsTests(BarredTests):
    """The same where accounts are records of users, in a storage."""

    def serve(self, text: bytes, *, others: dict[str, str] | None = None) -> None:
        """Everybody of this text can log in from now on, and others from memory."""
        records = FakeRecords(*text.decode().splitlines())
        source = checker_of(records, self.threads, looking=FakeThreads())
        self.assertEqual([], records.asked)
        # To understand a line takes microseconds, and is not compared; the requests are, elsewhere.
        self.patch(accounts_records, "_account_of", functools.cache(UNDERSTOOD))
        records.place.accounts()
        checker: Any = AnyOf([MemoryAccounts(others), source]) if others else source
        portal = Portal(MailboxRealm(self.store), [checker])
        self.authenticator = PortalAuthenticator(portal, nonce=lambda: NONCE, channel_binding=True)
        # What is known of all users is there when somebody has asked what is offered.
        self.authenticator.mechanisms(TLS)
