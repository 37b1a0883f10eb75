"""SASL: what a mechanism is, and one dialogue with one (RFC 4422, RFC 5034).

A mechanism decides what is asked and what the answers prove; the dialogue
around it keeps the order, the penalties and the way to the maildrop.
Base64, ``=`` and ``*`` are the session's.  The mechanisms are in files of their
own, the table of them is in ``mechanisms``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

from twisted.cred.credentials import ICredentials
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ...errors import AuthenticationFailed, BadCommand
from ...interfaces import Challenge, Channel, Login, MaybeDeferred
from ..chain import AnyOf
from ..later import then
from ..names import LoginNames
from ..throttle.login_throttle import Attempt

__all__ = ["Circumstances", "Dialogue", "Mechanism", "Proof", "text"]


@dataclass(frozen=True)
class Circumstances:
    """What can work on one connection."""

    channel: Channel
    #: Whether a secret may be sent as it is.
    clear_text: bool
    #: The kinds of credentials that the Portal takes.
    credentials: Collection[Any]
    accounts: AnyOf
    #: Which account a claimed name means.
    names: LoginNames = field(repr=False)
    #: A fresh random word.
    nonce: Callable[[], str] = field(repr=False)
    #: Whether a mechanism of this name may be offered at all.
    wanted: Callable[[str], bool] = field(repr=False)
    #: Who judges bearer tokens, an :class:`~pop3toy.auth.sasl.oauth.ITokenChecker`.
    tokens: Any = None
    #: Whether a client certificate's name is a user's name.
    certificates: bool = False


class Proof(NamedTuple):
    """What a mechanism has got in the end, for the checkers."""

    credentials: ICredentials
    #: The name that the client claims.
    user: str
    #: Whose maildrop is asked for, if the client said so.
    act_as: str | None = None


class Mechanism(Protocol):
    """One dialogue's state of one mechanism."""

    #: The registered name.
    name: ClassVar[str]
    #: Whether the client speaks first (RFC 4422 section 5, point 2a).
    client_first: ClassVar[bool]
    #: The claimed name, once it is known.
    user: str | None

    def __init__(self, here: Circumstances) -> None: ...

    @classmethod
    def offered(cls, here: Circumstances) -> bool:
        """Whether it can work here for somebody."""

    def step(self, response: bytes | None) -> MaybeDeferred[Challenge | Proof]:
        """Take a response, give the next challenge or what is to be proven.

        :param response: ``None`` only for a mechanism in which the server
            speaks first, if there is no initial response.
        :raises pop3toy.errors.BadCommand: if it is malformed.
        :raises pop3toy.errors.AuthenticationFailed: (or fails with) if it
            proves that the client is somebody else.
        """


class Dialogue:
    """An :class:`~pop3toy.interfaces.Exchange` with any mechanism.

    :param attempt: keeps the penalties.
    :param enter: opens the maildrop with the proof.
    """

    def __init__(
        self, mechanism: Mechanism, attempt: Attempt, enter: Callable[[Proof, Attempt], MaybeDeferred[Login]]
    ) -> None:
        self._mechanism = mechanism
        self._attempt = attempt
        self._enter = enter
        self._begun = False
        self._pending = False
        self._over = False
        self._refusal: AuthenticationFailed | None = None

    @property
    def mechanism(self) -> str:
        """The mechanism's registered name."""
        return self._mechanism.name

    @property
    def user(self) -> str | None:
        """The name that the client claims, once it is known."""
        return self._mechanism.user

    def respond(self, response: bytes | None) -> MaybeDeferred[Challenge | Login]:
        """Take the client's response; see :class:`~pop3toy.interfaces.Exchange`."""
        if self._over or (response is None and self._begun):
            self.cancel()
            raise BadCommand("the authentication exchange is over")
        if self._refusal is not None:
            self._over = True
            raise self._refusal
        begun, self._begun = self._begun, True
        if response is None and self._mechanism.client_first and not begun:
            # RFC 5034 section 4: an empty challenge asks for the initial response.
            return Challenge(b"")
        try:
            turn = self._attempt.start()
            outcome: MaybeDeferred[Challenge | Login] = then(turn, lambda _: self._step(response))
        except Exception:
            self._failed(Failure())
            raise
        if isinstance(outcome, Deferred):
            self._pending = not outcome.called
            outcome.addCallbacks(self._answered, self._failed)
        return outcome

    def cancel(self) -> None:
        """The client sent ``*`` or went away.

        What is being checked is checked to its end, and counts: else whoever
        does not wait for the answer would guess for nothing.
        """
        self._over = True
        if not self._pending:
            self._attempt.dropped()

    def _answered(self, outcome: Challenge | Login) -> Challenge | Login:
        self._pending = False
        return outcome

    def _step(self, response: bytes | None) -> Any:
        if self._over:
            # Gone while he had to wait.
            raise BadCommand("the authentication exchange is over")
        step: MaybeDeferred[Any] = self._mechanism.step(response)
        return then(step, self._stepped)

    def _stepped(self, outcome: Challenge | Proof) -> Any:
        self._attempt.user = self._mechanism.user
        if isinstance(outcome, Challenge):
            self._refusal = outcome.refusal
            if self._refusal is not None:
                # The verdict counts now: the client need not wait for its last line.
                self._attempt.failed()
            self._attempt.rest()
            return outcome
        self._over = True
        return self._enter(outcome, self._attempt)

    def _failed(self, why: Failure) -> Failure:
        self._over = True
        self._pending = False
        self._attempt.user = self._mechanism.user
        if why.check(AuthenticationFailed):
            self._attempt.failed()
        else:
            self._attempt.dropped()
        return why


def text(octets: bytes) -> str:
    """A name in UTF-8.

    :raises pop3toy.errors.BadCommand: if it is not.
    """
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise BadCommand("the user name is not UTF-8") from None
