"""Penalties, limits and the limiter: shown by counts and by a clock that is advanced, not by waiting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.auth.accounts.memory import MemoryAccounts
from pop3toy.auth.authenticator import PortalAuthenticator
from pop3toy.auth.realm import MailboxRealm
from pop3toy.auth.throttle.connection_limiter import ConnectionLimiter, ConnectionLimits, ConnectionSlot
from pop3toy.auth.throttle.counts import Counts
from pop3toy.auth.throttle.login_throttle import LoginLimits, LoginThrottle, without_penalties
from pop3toy.auth.throttle.origins import Networks, is_local, network
from pop3toy.errors import AuthenticationFailed, BadCommand, InUse, LoginDelay, StoreTrouble
from pop3toy.interfaces import Channel, Login

from ..auth_world import TLS, FakeStore, say, session

EVIL, GOOD = "198.51.100.66", "192.0.2.7"


class PenaltyTests(SynchronousTestCase):
    """Failures make the next attempt wait."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.throttle = LoginThrottle(self.clock)

    def fail(self, host: str, user: str, times: int = 1) -> None:
        """So many failures, however long they had to wait."""
        for _ in range(times):
            attempt = self.throttle.attempt(host, user)
            if attempt.start() is not None:
                self.clock.advance(15)
            attempt.failed()

    def waits(self, host: str, user: str) -> float:
        """Seconds that an attempt would wait now."""
        return self.throttle.penalty(network(host), user)

    def test_growing(self) -> None:
        """The first failures of an address are free, then the wait doubles up to its bound."""
        waits = []
        for number in range(10):
            waits.append(self.waits(EVIL, "x"))
            self.fail(EVIL, f"user{number}")
        self.assertEqual([0, 0, 0, 1, 2, 4, 8, 15, 15, 15], waits)

    def test_not_others(self) -> None:
        """Other addresses and other users do not wait."""
        self.fail(EVIL, "ann", 9)
        self.assertEqual(0, self.waits(GOOD, "ann"))
        self.assertEqual(0, self.waits(GOOD, "bob"))

    def test_user(self) -> None:
        """A user who is tried from many addresses waits too, later and less."""
        waits = []
        for number in range(15):
            waits.append(self.waits(GOOD, "ann"))
            self.fail(f"198.51.100.{number}", "ann")
        self.assertEqual([0] * 10 + [1, 2, 4, 4, 4], waits)

    def test_known_good(self) -> None:
        """A user who has logged in from an address before does not wait for others' failures."""
        self.throttle.attempt(GOOD, "ann").succeeded()
        self.fail(GOOD, "bob", 9)
        for number in range(15):
            self.fail(f"198.51.100.{number}", "ann")
        self.assertEqual(0, self.waits(GOOD, "ann"))
        self.assertEqual(15, self.waits(GOOD, "carl"))

    def test_known_good_fails(self) -> None:
        """The exception for a known-good user ends with three failures in a row."""
        self.throttle.attempt(GOOD, "ann").succeeded()
        self.fail(GOOD, "bob", 9)
        self.fail(GOOD, "ann", 2)
        self.assertEqual(0, self.waits(GOOD, "ann"))
        self.fail(GOOD, "ann")
        self.assertEqual(15, self.waits(GOOD, "ann"))

    def test_forgotten(self) -> None:
        """After a quarter of an hour without a failure an address starts anew."""
        self.fail(EVIL, "ann", 5)
        self.clock.advance(899)
        self.assertEqual(4, self.waits(EVIL, "ann"))
        self.clock.advance(1)
        self.assertEqual(0, self.waits(EVIL, "ann"))

    def test_unix(self) -> None:
        """A Unix socket has no address to blame, the user still waits."""
        self.fail("unix", "ann", 11)
        self.assertEqual(0, self.waits("unix", "bob"))
        self.assertEqual(2, self.waits("unix", "ann"))

    def test_wait_once(self) -> None:
        """What an attempt waited for its address counts when its user becomes known; no thread is held."""
        self.fail(EVIL, "ann", 12)
        self.fail(EVIL, "bob")
        attempt = self.throttle.attempt(EVIL)
        first = attempt.start()
        self.clock.advance(14)
        self.assertNoResult(first)
        self.clock.advance(1)
        self.successResultOf(first)
        attempt.claim("ann")
        self.assertIsNone(attempt.start())
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_bounded_memory(self) -> None:
        """Whoever tries from many addresses fills no memory; the most recent are remembered."""
        counts = Counts(10)
        throttle = LoginThrottle(self.clock, counts=counts)
        for number in range(1000):
            throttle.attempt(f"2001:db8:{number:x}::1", f"user{number}").failed()
            throttle.attempt(f"2001:db8:{number:x}::1", f"user{number}").succeeded()
        for recent in (counts.address_failures, counts.user_failures, counts.known_good):
            self.assertEqual(10, len(recent))

    def test_recent_are_remembered(self) -> None:
        """Whoever fails again and again is not forgotten because others fail once."""
        throttle = LoginThrottle(self.clock, LoginLimits(remembered=3))
        for number in range(10):
            throttle.attempt(EVIL, None).failed()
            for other in range(2):
                throttle.attempt(f"198.51.100.{2 * number + other + 100}", None).failed()
        self.assertEqual(15, throttle.penalty(EVIL, None))

    def test_one_end(self) -> None:
        """An attempt has one end; what is said after it does not count."""
        attempt = self.throttle.attempt(EVIL, "ann")
        for _ in range(9):
            attempt.failed()
        self.assertEqual(1, self.throttle._addresses.count(EVIL))
        attempt.succeeded()
        self.assertEqual(0, len(self.throttle._counts.known_good))

    def test_long_names(self) -> None:
        """Names that are too long to be anybody's fill no memory either."""
        self.throttle.attempt(EVIL, "x" * 12_000).failed()
        self.assertEqual([200], [len(user) for user in self.throttle._counts.user_failures])

    def test_turns(self) -> None:
        """One address has only so many attempts under way; an end of any kind gives a turn back, once."""
        for failures, most in ((0, 32), (3, 8)):
            self.fail(EVIL, "bob", failures)
            attempts = [self.throttle.attempt(EVIL, f"user{number}") for number in range(most)]
            for attempt in attempts:
                attempt.start()
                attempt.start()
            with self.assertRaises(StoreTrouble):
                self.throttle.attempt(EVIL, "ann").start()
            self.assertIsNone(self.throttle.attempt(GOOD, "ann").start())
            attempts[0].dropped()
            attempts[0].dropped()
            attempts[1].rest()
            attempts[1].rest()
            attempts[:2] = [self.throttle.attempt(EVIL, "ann") for _ in range(2)]
            for attempt in attempts[:2]:
                attempt.start()
            with self.assertRaises(StoreTrouble):
                self.throttle.attempt(EVIL, "ann").start()
            for attempt in attempts:
                attempt.dropped()

    def test_opening_is_no_attempt(self) -> None:
        """A maildrop that takes long to open keeps nobody else from logging in."""
        store = FakeStore(later=True)
        throttle = LoginThrottle(self.clock, LoginLimits(attempts_per_address=1, sessions_per_user=9))
        portal = Portal(MailboxRealm(store), [MemoryAccounts({f"user{n}": "x" for n in range(9)})])
        auth = PortalAuthenticator(portal, throttle=throttle)
        for number in range(9):
            self.assertNoResult(auth.password(b"user%d" % number, b"x", session(TLS)))
        store.go_on()

    def test_trusted(self) -> None:
        """A webmail's address speaks for many and is not blamed; its users are."""
        for trusted in (GOOD, "192.0.2.0/24"):
            self.throttle = LoginThrottle(self.clock, LoginLimits(trusted=Networks.of([trusted])))
            self.fail(GOOD, "ann", 11)
            self.assertIsNone(self.throttle.attempt(GOOD, "bob").start())
            self.assertIsNotNone(self.throttle.attempt(GOOD, "ann").start())
            for number in range(100):
                self.throttle.attempt(GOOD, f"bob{number}").start()
            self.fail(EVIL, "carl", 4)
            self.assertIsNotNone(self.throttle.attempt(EVIL, "bob").start())

    def test_loopback(self) -> None:
        """From loopback the wait grows as well, but to 4 seconds; its share holds from the first on."""
        for host in ("127.0.0.1", "127.0.0.9", "::1", "::ffff:127.0.0.2"):
            self.throttle = LoginThrottle(self.clock)
            waiting = [self.throttle.attempt(host, f"user{number}") for number in range(32)]
            for attempt in waiting:
                self.assertIsNone(attempt.start())
            with self.assertRaises(StoreTrouble):
                self.throttle.attempt(host, "x").start()
            for attempt in waiting:
                attempt.succeeded()
            waits = []
            for number in range(8):
                waits.append(self.waits(host, "x"))
                self.fail(host, f"other{number}")
            self.assertEqual([0, 0, 0, 1, 2, 4, 4, 4], waits)
            for number in range(32):
                self.throttle.attempt(host, f"x{number}").start()
            with self.assertRaises(StoreTrouble):
                self.throttle.attempt(host, "y").start()

    def test_share_of_user(self) -> None:
        """One user has only so many attempts under way, from the first on; a friend passes."""
        self.throttle.attempt(GOOD, "ann").succeeded()
        attempts = [self.throttle.attempt(f"198.51.100.{number}", "ann") for number in range(10)]
        for attempt in attempts:
            self.assertIsNone(attempt.start())
        for host in (EVIL, "127.0.0.1", "unix"):
            late = self.throttle.attempt(host)
            self.assertIsNone(late.start())
            late.claim("ANN")
            with self.assertRaises(StoreTrouble):
                late.start()
            self.assertEqual(self.throttle._counts.in_flight.get(host, 0), 0)
            self.assertIsNone(self.throttle.attempt(host, "bob").start())
        self.assertIsNone(self.throttle.attempt(GOOD, "ann").start())
        attempts[0].failed()
        attempts[1].rest()
        self.assertIsNone(self.throttle.attempt("192.0.2.8", "ann").start())

    def test_without_penalties(self) -> None:
        """A toy's throttle keeps sessions and LOGIN-DELAY and lets nobody wait for a mistake."""
        throttle = self.throttle = LoginThrottle(self.clock, without_penalties(LoginLimits(login_delay=60)))
        self.fail(EVIL, "ann", 50)
        for _ in range(50):
            self.assertIsNone(throttle.attempt(EVIL, "ann").start())
        throttle.enter("ann")
        throttle.opened("ann")
        self.assertRaises(LoginDelay, throttle.enter, "ann")


class NetworkTests(SynchronousTestCase):
    """Whom an address stands for."""

    def test_networks(self) -> None:
        """IPv6 counts by its /64, IPv4 by itself, however it is written."""
        for host, expected in (
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002::/64"),
            ("2001:db8:1:2::9", "2001:0db8:0001:0002::/64"),
            ("2001:db8:1:3::9", "2001:0db8:0001:0003::/64"),
            ("fe80::1%eth0", "fe80:0000:0000:0000::/64"),
            ("::1", "::1"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("unix", "unix"),
            ("no:address", "no:address"),
        ):
            self.assertEqual(expected, network(host))

    def test_members(self) -> None:
        """An address is a member of a network however it is written; a name is none of any."""
        trusted = Networks.of(["192.0.2.0/24", "2001:db8::/32"])
        for host in ("192.0.2.255", "::ffff:192.0.2.1", "2001:db8:9::1%eth0"):
            self.assertIn(host, trusted)
        for host in ("192.0.3.1", "unix", "2001:db9::1", "", "192.0.2.0/24"):
            self.assertNotIn(host, trusted)
        for text in ("", "webmail.example", "192.0.2.1/24", "192.0.2.1-9"):
            self.assertRaises(ValueError, Networks.of, [text])

    @given(st.text(max_size=30) | st.ip_addresses().map(str))
    def test_any_text(self, host: str) -> None:
        """Any text stands for something, and is a member or not, and local or not."""
        self.assertIsInstance(network(host), str)
        self.assertIsInstance(host in Networks.of(["::/1"]), bool)
        self.assertEqual(is_local(host), is_local(network(host)))


class SessionLimitTests(SynchronousTestCase):
    """Sessions of a user and LOGIN-DELAY."""

    def setUp(self) -> None:
        self.clock = Clock()

    def authenticator(self, **limits: Any) -> PortalAuthenticator:
        # That a lock is waited for is tested elsewhere.
        self.throttle = LoginThrottle(self.clock, LoginLimits(lock_wait=0, **limits))
        self.store = FakeStore()
        portal = Portal(MailboxRealm(self.store), [MemoryAccounts({"ann": "x", "bob": "x"})])
        return PortalAuthenticator(portal, throttle=self.throttle)

    def test_login_delay(self) -> None:
        """A login too soon after the last is refused, counted from when the maildrop was opened."""
        auth = self.authenticator(login_delay=60)
        self.assertEqual(60, auth.login_delay())
        auth.password(b"ann", b"x", session()).logout()
        auth.password(b"bob", b"x", session()).logout()
        self.clock.advance(59)
        with self.assertRaises(LoginDelay):
            auth.password(b"ann", b"x", session())
        self.clock.advance(1)
        auth.password(b"ann", b"x", session())

    def test_delay_is_for_users(self) -> None:
        """Who does not know the password does not learn that there was a login."""
        auth = self.authenticator(login_delay=60)
        auth.password(b"ann", b"x", session()).logout()
        with self.assertRaises(AuthenticationFailed):
            auth.password(b"ann", b"wrong", session())

    def test_refused_open_is_no_login(self) -> None:
        """A login whose maildrop could not be opened delays nobody."""
        auth = self.authenticator(login_delay=60)
        self.store.trouble = StoreTrouble()
        with self.assertRaises(StoreTrouble):
            auth.password(b"ann", b"x", session())
        self.store.trouble = None
        auth.password(b"ann", b"x", session())

    def test_sessions(self) -> None:
        """A user has only so many sessions; the end of one makes room, told twice or not."""
        auth = self.authenticator(sessions_per_user=2)
        self.store.open_now = _NeverFull()
        first, second = (auth.password(b"ann", b"x", session()) for _ in range(2))
        with self.assertRaises(InUse) as caught:
            auth.password(b"ann", b"x", session())
        self.assertIn("lock", caught.exception.text)
        auth.password(b"bob", b"x", session())
        first.logout()
        first.logout()
        auth.password(b"ann", b"x", session())
        with self.assertRaises(InUse):
            auth.password(b"ann", b"x", session())
        second.logout()

    def test_failed_opening_counts_not(self) -> None:
        """A maildrop that could not be opened, at once or later, is no session."""
        auth = self.authenticator(sessions_per_user=1)
        self.store.trouble = StoreTrouble()
        with self.assertRaises(StoreTrouble):
            auth.password(b"ann", b"x", session())
        self.store.trouble = None
        self.store.later = True
        attempt = auth.password(b"ann", b"x", session())
        [(opening, _)] = self.store.waiting
        opening.errback(StoreTrouble())
        self.failureResultOf(attempt, StoreTrouble)
        self.store.open_now.clear()
        self.store.waiting.clear()
        attempt = auth.password(b"ann", b"x", session())
        self.store.go_on()
        self.assertEqual("ann", self.successResultOf(attempt).user)


class _NeverFull(set):  # type: ignore[type-arg]
    def __contains__(self, user: object) -> bool:
        return False


class SlowChecker:
    """Says no to everybody, when told."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self) -> None:
        self.waiting: list[Deferred[object]] = []

    def requestAvatarId(self, credentials: Any) -> Deferred[object]:
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def refuse_all(self) -> None:
        waiting, self.waiting = self.waiting, []
        for verdict in waiting:
            verdict.errback(UnauthorizedLogin())


class AttackTests(SynchronousTestCase):
    """A flood from one address."""

    def test_thousand_wrong_passwords(self) -> None:
        """A thousand wrong passwords from one address: few are checked, and ann elsewhere logs in at once."""
        clock = Clock()
        throttle = LoginThrottle(clock)
        portal = Portal(MailboxRealm(FakeStore()), [MemoryAccounts({"ann": "x"})])
        auth = PortalAuthenticator(portal, throttle=throttle, allow_cleartext=True)
        evil, good = (Channel(host, local=False, tls=None) for host in (EVIL, GOOD))
        checked = turned_away = 0
        waiting: list[Deferred[Login]] = []
        for number in range(1000):
            try:
                waiting.append(auth.password(b"ann", b"guess%d" % number, session(evil)))
            except AuthenticationFailed:
                checked += 1
            except StoreTrouble:
                turned_away += 1
        self.assertEqual((3, 8, 989), (checked, len(waiting), turned_away))
        self.assertEqual(8, len(clock.getDelayedCalls()))
        login = auth.password(b"ann", b"x", session(good))
        self.assertEqual("ann", login.user)
        clock.advance(15)
        for attempt in waiting:
            self.failureResultOf(attempt, AuthenticationFailed)
        self.assertEqual([], clock.getDelayedCalls())

    def test_right_password_waits_too(self) -> None:
        """Behind a penalty a right password is answered no sooner than a wrong one."""
        clock = Clock()
        auth = PortalAuthenticator(
            Portal(MailboxRealm(FakeStore()), [MemoryAccounts({"ann": "x"})]), throttle=LoginThrottle(clock)
        )
        for _ in range(3):
            with self.assertRaises(AuthenticationFailed):
                auth.password(b"bob", b"x", session())
        right, wrong = (auth.password(b"ann", password, session()) for password in (b"x", b"y"))
        clock.advance(0.99)
        self.assertNoResult(right)
        self.assertNoResult(wrong)
        clock.advance(0.01)
        self.assertEqual("ann", self.successResultOf(right).user)
        self.failureResultOf(wrong, AuthenticationFailed)

    def test_gone_before_the_answer(self) -> None:
        """Who does not wait for the verdict is counted all the same."""
        throttle, checker = LoginThrottle(Clock(), LoginLimits(attempts_per_address=2)), SlowChecker()
        auth = PortalAuthenticator(Portal(MailboxRealm(FakeStore()), [checker]), throttle=throttle)
        for _ in range(2):
            exchange = auth.begin("PLAIN", session(TLS))
            say(exchange, b"\0ann\0guess").addErrback(lambda why: why.trap(AuthenticationFailed))
            exchange.cancel()
        with self.assertRaises(StoreTrouble):
            say(auth.begin("PLAIN", session(TLS)), b"\0ann\0guess")
        checker.refuse_all()
        self.assertEqual(2, throttle._addresses.count(TLS.host))
        last = say(auth.begin("PLAIN", session(TLS)), b"\0ann\0guess")
        checker.refuse_all()
        self.failureResultOf(last, AuthenticationFailed)

    def test_gone_while_waiting(self) -> None:
        """Who goes away during his penalty is not checked any more."""
        clock, checker = Clock(), SlowChecker()
        throttle = LoginThrottle(clock)
        auth = PortalAuthenticator(Portal(MailboxRealm(FakeStore()), [checker]), throttle=throttle)
        for _ in range(3):
            throttle.attempt("127.0.0.1", "ann").failed()
        exchange = auth.begin("PLAIN", session())
        answer = say(exchange, b"\0ann\0guess")
        exchange.cancel()
        clock.advance(1)
        self.failureResultOf(answer, BadCommand)
        self.assertEqual([], checker.waiting)
        self.assertEqual(0, len(throttle._counts.in_flight))

    def test_what_counts(self) -> None:
        """Bad credentials count, however they are found to be bad; trouble and malformed responses do not."""
        throttle, store = LoginThrottle(Clock()), FakeStore()
        auth = PortalAuthenticator(
            Portal(MailboxRealm(store), [MemoryAccounts({"ann": "x"})]), throttle=throttle
        )
        store.trouble = StoreTrouble()
        with self.assertRaises(StoreTrouble):
            auth.password(b"ann", b"x", session())
        with self.assertRaises(BadCommand):
            say(auth.begin("PLAIN", session()), b"nonsense")
        checker = SlowChecker()
        slow = PortalAuthenticator(Portal(MailboxRealm(store), [checker]), throttle=throttle)
        attempt = slow.password(b"ann", b"x", session())
        checker.waiting[0].errback(StoreTrouble())
        self.failureResultOf(attempt, StoreTrouble)
        self.assertEqual((0, 0), (throttle._addresses.count("127.0.0.1"), throttle._users.count("ann")))
        scram = auth.begin("SCRAM-SHA-256", session())
        [nonce] = re.findall(rb"r=[^,]+", say(scram, b"n,,n=ann,r=x").data)
        with self.assertRaises(AuthenticationFailed):
            say(scram, b"c=biws," + nonce + b",p=AAAA")
        self.assertEqual((1, 1), (throttle._addresses.count("127.0.0.1"), throttle._users.count("ann")))

    def test_clients_turn(self) -> None:
        """An exchange in which it is the client's turn keeps nobody else from his."""
        throttle = LoginThrottle(Clock(), LoginLimits(attempts_per_address=1))
        portal = Portal(MailboxRealm(FakeStore()), [MemoryAccounts({"ann": "x"})])
        auth = PortalAuthenticator(portal, throttle=throttle)
        for _ in range(5):
            say(auth.begin("SCRAM-SHA-256", session(TLS)), b"n,,n=ann,r=x")
        self.assertEqual("ann", auth.password(b"ann", b"x", session(TLS)).user)

    def test_unguarded(self) -> None:
        """Without a throttle nobody waits, and nothing is remembered."""
        auth = PortalAuthenticator(Portal(MailboxRealm(FakeStore()), [MemoryAccounts({"ann": "x"})]))
        for _ in range(50):
            with self.assertRaises(AuthenticationFailed):
                auth.password(b"ann", b"y", session())
        self.assertEqual("ann", auth.password(b"ann", b"x", session()).user)
        counts = auth._throttle._counts
        self.assertEqual((0, 0), (len(counts.address_failures), len(counts.known_good)))


class ConnectionLimiterTests(SynchronousTestCase):
    """Connections are counted, and evicted where there are too many."""

    def setUp(self) -> None:
        self.evicted: list[int] = []

    def acquire(self, limiter: ConnectionLimiter, number: int, host: str | None = None) -> Any:
        host = host if host is not None else f"2001:db8:{number // 4:x}::1"
        return limiter.acquire(host, lambda: self.evicted.append(number))

    def test_strangers_make_room(self) -> None:
        """2,000 idle clients do not keep a user out: they are evicted for one another."""
        limiter = ConnectionLimiter(ConnectionLimits(unauthenticated=100))
        for number in range(2000):
            self.acquire(limiter, number)
        self.assertEqual((100, 100), (limiter.connections, limiter.unauthenticated))
        self.assertEqual((1900, 1900), (len(self.evicted), len(set(self.evicted))))
        user = self.acquire(limiter, 5000, GOOD)
        user.logged_in()
        for number in range(2000, 4000):
            self.acquire(limiter, number)
        self.assertNotIn(5000, self.evicted)
        self.assertEqual((101, 100), (limiter.connections, limiter.unauthenticated))

    def test_churn_of_one_network(self) -> None:
        """New connections of one network, however fast, send no stranger of another away."""
        for hosts in ("198.51.100.{}", "2001:db8:1:{:x}::1", "unix"):
            limiter = ConnectionLimiter(ConnectionLimits(connections=50))
            self.acquire(limiter, 7_000, GOOD)
            for number in range(2_000):
                self.acquire(limiter, number, hosts.format(number % 250))
            self.assertNotIn(7_000, self.evicted)
            self.assertEqual((limiter.connections, limiter.unauthenticated), (50, 50))

    def test_churn_of_many_networks(self) -> None:
        """Where all strangers are of networks of their own, each may have to go, and not the oldest first."""
        chosen: list[int] = []

        def choose(slots: Sequence[ConnectionSlot]) -> ConnectionSlot:
            chosen.append(len(slots))
            return slots[-1]

        limiter = ConnectionLimiter(ConnectionLimits(connections=50), choose=choose)
        for number in range(60):
            self.acquire(limiter, number, f"198.51.{number}.1")
        self.assertEqual((chosen, self.evicted), ([50] * 10, list(range(49, 59))))

    def test_idle_first(self) -> None:
        """Who loses little by it makes room before strangers do, the longest idle first; not while busy."""
        limiter = ConnectionLimiter(ConnectionLimits(connections=4))
        slots = [self.acquire(limiter, number) for number in range(4)]
        for number in (2, 0, 1):
            slots[number].idle()
        slots[2].logged_in()
        for number in range(10, 13):
            self.acquire(limiter, number)
        self.assertEqual(self.evicted[:2], [0, 1])
        self.assertNotIn(2, self.evicted)
        slots[2].idle()
        self.acquire(limiter, 13)
        self.assertEqual(self.evicted[3:], [2])
        for slot in slots:
            slot.release()
            slot.idle()

    def test_room_and_no_room(self) -> None:
        """A client that has not logged in is evicted, a user never: then there is no room for another."""
        limiter = ConnectionLimiter(ConnectionLimits(connections=2))
        first = self.acquire(limiter, 0)
        self.acquire(limiter, 1)
        first.logged_in()
        third = self.acquire(limiter, 2)
        third.logged_in()
        with self.assertRaises(StoreTrouble):
            self.acquire(limiter, 3)
        first.release()
        first.release()
        self.acquire(limiter, 4).logged_in()
        with self.assertRaises(StoreTrouble):
            self.acquire(limiter, 5)
        self.assertEqual([1], self.evicted)

    def test_per_address(self) -> None:
        """One address, or one IPv6 network, has only so many; a Unix socket has no such bound."""
        for hosts in (["192.0.2.7"] * 9, [f"2001:db8::{number:x}" for number in range(9)]):
            limiter = ConnectionLimiter(ConnectionLimits(per_address=8))
            slots = [self.acquire(limiter, number, host) for number, host in enumerate(hosts[:8])]
            with self.assertRaises(StoreTrouble):
                self.acquire(limiter, 9, hosts[8])
            self.acquire(limiter, 9, "192.0.2.8")
            slots[0].logged_in()
            slots[0].release()
            self.acquire(limiter, 9, hosts[8])
        limiter = ConnectionLimiter(ConnectionLimits(per_address=8, trusted=Networks.of(["198.51.100.0/24"])))
        for number, host in enumerate(("unix", EVIL, "127.0.0.1", "::1") * 20):
            self.acquire(limiter, number, host)
        self.assertEqual(80, limiter.connections)

    def test_loopback(self) -> None:
        """From loopback any number comes, unless the administrator gives a number."""
        limiter = ConnectionLimiter(ConnectionLimits(per_local_address=2))
        for number in range(2):
            self.acquire(limiter, number, "127.0.0.1")
        self.acquire(limiter, 2, "::1")
        with self.assertRaises(StoreTrouble):
            self.acquire(limiter, 3, "127.0.0.1")

    def test_release_when_evicted(self) -> None:
        """The connection that is closed reports its end, at once or later, without harm."""
        limiter = ConnectionLimiter(ConnectionLimits(unauthenticated=1))
        slot = limiter.acquire("192.0.2.1", lambda: slot.release())
        second = self.acquire(limiter, 2)
        slot.release()
        self.assertEqual((1, 1), (limiter.connections, limiter.unauthenticated))
        second.release()
        self.assertEqual((0, 0), (limiter.connections, limiter.unauthenticated))


class SenderTests(SynchronousTestCase):
    """The throttle of submission ports."""

    def test_penalties_are_shared(self) -> None:
        """A password that was guessed wrongly at one port costs time at the other."""
        throttle = LoginThrottle(Clock(), LoginLimits(free_failures=1, login_delay=60))
        senders = throttle.for_senders()
        throttle.attempt("192.0.2.1", "ann").failed()
        self.assertGreater(senders.penalty("192.0.2.1", "ann"), 0)
        senders.attempt("192.0.2.2", "bob").failed()
        self.assertGreater(throttle.penalty("192.0.2.2", "bob"), 0)

    def test_no_login_delay(self) -> None:
        """Sending twice in a row is no reason to wait, fetching twice is."""
        throttle = LoginThrottle(Clock(), LoginLimits(login_delay=60, sessions_per_user=1))
        senders = throttle.for_senders()
        # Nor do those who send take a session from who fetches.
        for one in (senders, senders, throttle):
            one.enter("ann")
            one.opened("ann")
        self.assertRaises(LoginDelay, throttle.enter, "ann")
