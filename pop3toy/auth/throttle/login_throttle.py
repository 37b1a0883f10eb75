"""Penalties for failed logins, and limits of logins in flight, of sessions of a user, and of LOGIN-DELAY.

Counts and nothing else: no password, no mailbox, no connection.  A penalty is a Deferred
on the clock that was passed in and holds no thread.  The counts themselves are in ``counts``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from ...clock import steady
from ...errors import InUse, LoginDelay, StoreTrouble
from ...interfaces import Login, MaybeDeferred
from ..names import folded
from .connection_limiter import divided
from .counts import NEVER, Counts, Recent, Tally
from .lock_queue import LockQueue
from .origins import NOWHERE, Networks, is_local, network
from .peer_workers import PeerWorkers

__all__ = ["VISITORS", "Attempt", "LoginLimits", "LoginThrottle", "unguarded", "without_penalties"]


#: Unix sockets have no address: behind one is a proxy or a webmail for everybody.
_EVERYBODY = "unix"
#: Under which all anonymous visitors are counted; no user has a name with a NUL.
VISITORS = "\0visitors"


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """The numbers, each with its reason."""

    #: Failures of an address that cost nothing: a person mistypes, twice.
    free_failures: int = 3
    #: Seconds that the next one waits; doubled by each further one, up to the
    #: 15 seconds at which Dovecot stops too: clients give up after 30.
    first_penalty: float = 1.0
    most_penalty: float = 15.0
    #: The same from loopback: guesses are slowed there too, but a person who tries
    #: a mail client on this machine does not wait for long.
    local_most_penalty: float = 4.0
    #: The same for a user who is attacked from many addresses: later and less,
    #: because it is the user who suffers.
    user_free_failures: int = 10
    user_most_penalty: float = 4.0
    #: Seconds without a failure after which an address or user starts anew.
    forgotten_after: float = 900.0
    #: Attempts of one address, loopback too, that may wait or be checked at once: an
    #: office's clients after a restart, but only a part of what the hashing queue takes.
    attempts_per_address: int = 32
    #: The same for one user, from addresses from which the user has not logged in before:
    #: more than all devices of a person.
    attempts_per_user: int = 10
    #: The same while another address has to wait: with penalties of 15 seconds
    #: it is one guess in two seconds.
    attempts_under_penalty: int = 8
    #: Addresses that speak for many, such as a webmail's: not counted as one.
    trusted: Networks = NOWHERE
    #: Sessions of one user at once, as Dovecot's mail_max_userip_connections.
    #: Maildrops are exclusive, so this is for stores that are not.
    sessions_per_user: int = 10
    #: Anonymous visitors at once: there may be any number of them, and all users together
    #: should find the disks with time for them.
    visitors: int = 64
    #: Seconds between two logins of a user (RFC 2449 section 6.5); 0 is none.
    login_delay: int = 0
    #: Seconds that a login waits for a maildrop that another session holds: most
    #: sessions are over in one, and people begin to wonder after five.  0 waits for
    #: none but those that are ending.
    lock_wait: float = 5.0
    #: Logins of one user that wait at once, and of all: as many devices as a person
    #: may have, and no more tries than take a twentieth of a core.
    waits_per_user: int = 10
    waits: int = 256
    #: Addresses, users and pairs of both that are remembered: some 10 MB.
    remembered: int = 20_000

    def shared_by(self, workers: int) -> LoginLimits:
        """The limits of one of so many processes: of what is in flight a part each, rounded up."""
        return replace(
            self,
            attempts_per_address=divided(self.attempts_per_address, workers),
            attempts_per_user=divided(self.attempts_per_user, workers),
            attempts_under_penalty=divided(self.attempts_under_penalty, workers),
            visitors=divided(self.visitors, workers),
        )


class _Failures:
    """Failures by key, forgotten after a while without one."""

    def __init__(self, clock: IReactorTime, kept: Recent, forgotten_after: float) -> None:
        self._clock = clock
        self._kept = kept
        self._forgotten_after = forgotten_after

    def count(self, key: str) -> int:
        failures, since = self._kept.get(key, NEVER)
        return failures if failures and self._clock.seconds() - since < self._forgotten_after else 0

    def add(self, key: str, when: float) -> None:
        self._kept.put(key, self.count(key) + 1, when)


class LoginThrottle:
    """What is remembered about logins: makes clients that guess wait, and bounds the sessions of a user.

    Give it to a :class:`~pop3toy.auth.authenticator.PortalAuthenticator` as its ``throttle``; several may
    share one.

    :param clock: the reactor (``IReactorTime``): tells the time and lets penalties pass.
    :param limits: seconds and numbers, ``LoginThrottle.Limits(lock_wait=0.0, login_delay=60)``; its
        defaults if not given.
    :param counts: where it remembers; of its own if not given.
    :param peers: other processes of the same server, which remember the same failures and logins.
    """

    #: What may be limited: a frozen dataclass in which each number has a default, and a comment that
    #: says what it is.
    Limits = LoginLimits

    def __init__(
        self,
        clock: IReactorTime,
        limits: LoginLimits | None = None,
        counts: Counts | None = None,
        peers: PeerWorkers | None = None,
    ) -> None:
        self.limits = limits = limits if limits is not None else LoginLimits()
        self._clock = clock = steady(clock)
        self._counts = counts = counts if counts is not None else Counts(limits.remembered)
        self._addresses = _Failures(clock, counts.address_failures, limits.forgotten_after)
        self._users = _Failures(clock, counts.user_failures, limits.forgotten_after)
        self._sessions = counts.sessions
        #: Logins that wait or are checked, by address and by user.
        self.in_flight = counts.in_flight
        #: How often a user may mistype who has come in from an address, by both (:func:`_both`).
        self.known_good = counts.known_good
        self._peers = peers
        #: What a name is remembered as.
        self.pseudonym: Callable[[str], str] = peers.pseudonym if peers is not None else str
        if peers is not None:
            peers.note = self._note
        #: Where logins wait for a maildrop that is locked.
        self.lock_queue: LockQueue[Login] = LockQueue(
            clock,
            limits.lock_wait,
            limits.waits_per_user,
            limits.waits,
            counts.waiting,
            counts.ending,
            alone=peers is None,
        )

    def use(self, limits: LoginLimits) -> None:
        """From now on these; what is remembered stays.

        How much is remembered, how long, and how many logins wait for maildrops is decided at the start.
        """
        self.limits = limits
        self.lock_queue.seconds = limits.lock_wait

    # -- attempts ----------------------------------------------------------------------

    def attempt(self, host: str, user: str | None = None, key: Callable[[str], str] = folded) -> Attempt:
        """A client begins to log in.

        :param host: the client's address in text.
        :param user: the claimed name, if it is known already.
        :param key: one word for all spellings of a name.
        """
        address = _EVERYBODY if host in self.limits.trusted else network(host)
        return Attempt(self, address, user, key)

    def penalty(self, address: str, user: str | None) -> float:
        """Seconds that an attempt has to wait now.

        A user who came in from the same address before does not wait for others'
        failures, but for failures of their own.
        """
        if user is not None and _both(address, user) in self.known_good:
            return 0.0
        limits = self.limits
        failures = self._addresses.count(address) - limits.free_failures
        most = limits.local_most_penalty if is_local(address) else limits.most_penalty
        seconds = 0.0 if failures < 0 else _doubled(limits.first_penalty, failures, most)
        if user is not None:
            failures = self._users.count(user) - limits.user_free_failures
            if failures >= 0:
                seconds = max(seconds, _doubled(limits.first_penalty, failures, limits.user_most_penalty))
        return seconds

    def most_in_flight(self, address: str) -> int:
        """How many attempts of this address may wait or be checked now."""
        limits = self.limits
        if address == _EVERYBODY:
            return sys.maxsize
        if is_local(address) or self._addresses.count(address) < limits.free_failures:
            return limits.attempts_per_address
        return limits.attempts_under_penalty

    def sleep(self, seconds: float) -> Deferred[None]:
        """A penalty."""
        over: Deferred[None] = Deferred()
        self._clock.callLater(seconds, over.callback, None)
        return over

    def failed(self, address: str, user: str | None) -> None:
        """A password was wrong."""
        self._happened("failed", address, user)

    def succeeded(self, address: str, user: str) -> None:
        """A password was right."""
        pair, patience = _both(address, user), self.limits.free_failures
        if self.known_good.get(pair, NEVER)[0] == patience:
            # The other workers know of it.
            self.known_good.put(pair, patience, self._clock.seconds())
        else:
            self._happened("succeeded", address, user)

    def _happened(self, what: str, address: str, user: str | None) -> None:
        now = self._clock.seconds()
        self._note(what, address, user, now)
        if self._peers is not None:
            self._peers.tell(what, address, user, now)

    def _note(self, what: str, address: str, user: str | None, when: float) -> None:
        """Remember what happened, in this process or in another.

        :param user: by the pseudonym.
        """
        if what == "failed":
            if address != _EVERYBODY:
                self._addresses.add(address, when)
            if user is not None:
                self._users.add(user, when)
                pair = _both(address, user)
                patience, _ = self.known_good.get(pair, NEVER)
                if patience:
                    self.known_good.put(pair, patience - 1, when)
        elif user is not None and what == "succeeded":
            self.known_good.put(_both(address, user), self.limits.free_failures, when)
        elif user is not None and what == "opened":
            self._counts.logins.put(user, 1, when)

    def for_senders(self) -> LoginThrottle:
        """A throttle with the same penalties, which counts no sessions and keeps no LOGIN-DELAY.

        Those are about maildrops; a password is guessed at whichever port is open.
        """
        limits = replace(self.limits, login_delay=0, sessions_per_user=sys.maxsize)
        throttle = LoginThrottle(self._clock, limits, self._counts, self._peers)
        throttle._sessions = Tally()
        return throttle

    # -- sessions -----------------------------------------------------------------------

    def enter(self, user: str) -> None:
        """A user who has proven to be this one, or a visitor, opens a maildrop; :meth:`left` must follow.

        :param user: the name, or :data:`VISITORS`.
        :raises pop3toy.errors.InUse: if the user has too many sessions.
        :raises pop3toy.errors.LoginDelay: if the user's last login is too recent.
        :raises pop3toy.errors.StoreTrouble: if there are too many visitors.
        """
        limits, sessions = self.limits, self._sessions.get(user, 0)
        if user == VISITORS:
            if sessions >= limits.visitors:
                raise StoreTrouble("too many visitors at the moment, try later")
        else:
            if limits.login_delay:
                known, last = self._counts.logins.get(self.pseudonym(user), NEVER)
                if known and self._clock.seconds() - last < limits.login_delay:
                    raise LoginDelay
            if sessions >= limits.sessions_per_user:
                raise InUse("too many sessions, the maildrop is locked by others of yours")
        self._sessions.add(user)

    def opened(self, user: str) -> None:
        """The user's maildrop is open: the delay until the next login begins."""
        if self.limits.login_delay:
            self._happened("opened", "", self.pseudonym(user))

    def left(self, user: str) -> None:
        """One session of the user is over, or did not come about."""
        self._sessions.remove(user)


def unguarded() -> LoginThrottle:
    """A throttle without penalties and limits, which needs no real clock."""
    limits = LoginLimits(sessions_per_user=sys.maxsize, visitors=sys.maxsize, waits=0, remembered=0)
    return LoginThrottle(Clock(), without_penalties(limits))


def without_penalties(limits: LoginLimits) -> LoginLimits:
    """The limits, without penalties for failed logins."""
    never = sys.maxsize
    return replace(
        limits,
        free_failures=never,
        user_free_failures=never,
        attempts_per_address=never,
        attempts_per_user=never,
        attempts_under_penalty=never,
    )


class Attempt:
    """One login, from the first word of it to its end.

    :param address: see :func:`network`.
    :param user: the claimed name, if it is known already.
    :param key: one word for all spellings of a name: else each spelling would be tried anew.
    """

    def __init__(
        self, throttle: LoginThrottle, address: str, user: str | None, key: Callable[[str], str]
    ) -> None:
        self._throttle = throttle
        self._address = address
        self._key = key
        # The pseudonym of the claimed name, and that name.
        self._user: str | None = None
        self._claimed: str | None = None
        self._waited = 0.0
        # What it is counted under while it is in flight: the address, and then the user.
        self._turns: list[str] = []
        self._over = False
        self.claim(user)

    def claim(self, user: str | None) -> None:
        """The name that the client claims, as soon as it is known."""
        if user != self._claimed:
            self._claimed = user
            # What a client claims can be 12,288 octets long (RFC 5034 section 4).
            self._user = None if user is None else self._throttle.pseudonym(self._key(user)[:200])

    def start(self) -> MaybeDeferred[None]:
        """Wait for the penalty to be over: ``None`` if there is nothing to wait for.

        To be called before any secret is looked at, and again when the user
        becomes known; what was waited already counts.

        :raises pop3toy.errors.StoreTrouble: at once, if too many attempts of
            the address or of the user are in flight.
        """
        throttle, address, user, turns = self._throttle, self._address, self._user, self._turns
        in_flight = throttle.in_flight
        if not turns:
            if in_flight.get(address, 0) >= throttle.most_in_flight(address):
                raise StoreTrouble("too many logins from your address at the moment, try later")
            in_flight.add(address)
            turns.append(address)
        if len(turns) == 1 and user is not None:
            turn = f"user {user}"
            # A user who came in from this address before is not kept out by others' attempts.
            full = in_flight.get(turn, 0) >= throttle.limits.attempts_per_user
            if full and _both(address, user) not in throttle.known_good:
                self.rest()
                raise StoreTrouble("too many logins of this user at the moment, try later")
            in_flight.add(turn)
            turns.append(turn)
        remaining = throttle.penalty(address, user) - self._waited
        if remaining <= 0:
            return None
        self._waited += remaining
        return throttle.sleep(remaining)

    def rest(self) -> None:
        """It is the client's turn now; :meth:`start` comes before the next step."""
        turns, self._turns = self._turns, []
        for turn in turns:
            self._throttle.in_flight.remove(turn)

    def failed(self) -> None:
        """The credentials were bad.  The first end counts."""
        if self.dropped():
            self._throttle.failed(self._address, self._user)

    def succeeded(self) -> None:
        """The credentials were good.  The first end counts."""
        if self.dropped() and self._user is not None:
            self._throttle.succeeded(self._address, self._user)

    def dropped(self) -> bool:
        """It ends without a verdict, if that follows from nothing else; whether this is the first end."""
        self.rest()
        first, self._over = not self._over, True
        return first


def _doubled(first: float, times: int, most: float) -> float:
    # 2.0 ** 1024 is too large for a float.
    return min(first * 2.0 ** min(times, 60), most)


def _both(address: str, user: str) -> str:
    # No address has a blank in it.
    return f"{address} {user}"
