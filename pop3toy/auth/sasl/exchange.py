"""SASL: what a mechanism is, and one exchange with one (RFC 4422), for POP3 (RFC 5034) and SMTP (RFC 4954).

A mechanism decides what is asked and what the answers prove; the exchange
around it knows base64, ``=`` and ``*`` and keeps the order, the penalties and
the way to the maildrop.  The mechanisms are in files of their own, the table of
them is in ``mechanisms``.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

from twisted.cred.credentials import ICredentials
from zope.interface.interface import InterfaceClass

from ...errors import AuthenticationCancelled, AuthenticationFailed, BadCommand, NotBase64
from ...interfaces import Challenge, Channel, Login, MaybeDeferred
from ..chain import AnyOf
from ..maybe_deferred import maybe_deferred, resolved
from ..names import LoginNames
from ..throttle.login_throttle import Attempt

__all__ = ["AuthResult", "Mechanism", "MechanismContext", "SASLExchange", "decode_base64", "text"]


@dataclass(frozen=True)
class MechanismContext:
    """What can work on one connection."""

    channel: Channel
    #: Whether a secret may be sent as it is.
    clear_text: bool
    #: The kinds of credentials that the Portal takes.
    credentials: Collection[InterfaceClass]
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


class AuthResult(NamedTuple):
    """What a mechanism has got in the end, for the checkers."""

    credentials: ICredentials
    #: The name that the client claims.
    user: str
    #: Whose maildrop is asked for, if the client said so.
    authzid: str | None = None


class Mechanism(Protocol):
    """The state of one mechanism in one exchange."""

    #: The registered name.
    name: ClassVar[str]
    #: Whether the client speaks first (RFC 4422 section 5, point 2a).
    client_first: ClassVar[bool]
    #: The claimed name, once it is known.
    user: str | None

    def __init__(self, context: MechanismContext) -> None: ...

    @classmethod
    def available(cls, context: MechanismContext) -> bool:
        """Whether it can work on this connection for any user."""

    async def step(self, response: bytes | None) -> Challenge | AuthResult:
        """Take a response, give the next challenge or what is to be proven.

        :param response: raw octets; ``None`` only for a mechanism in which the server
            speaks first, if there is no initial response.
        :raises pop3toy.errors.BadCommand: if it is malformed.
        :raises pop3toy.errors.AuthenticationFailed: if the client is proven to be
            another user.
        """


class SASLExchange:
    """An :class:`~pop3toy.interfaces.Exchange` with any mechanism.

    :param attempt: keeps the penalties.
    :param log_in: opens the maildrop with the result.
    """

    def __init__(
        self,
        mechanism: Mechanism,
        attempt: Attempt,
        log_in: Callable[[AuthResult, Attempt], MaybeDeferred[Login]],
    ) -> None:
        #: Why it has failed, if the last challenge said so.
        self.refusal: AuthenticationFailed | None = None
        self._mechanism = mechanism
        self._attempt = attempt
        self._log_in = log_in
        self._begun = False
        self._over = False

    @property
    def mechanism(self) -> str:
        """The mechanism's registered name."""
        return self._mechanism.name

    @property
    def user(self) -> str | None:
        """The name that the client claims, once it is known."""
        return self._mechanism.user

    def respond(self, line: bytes | None) -> MaybeDeferred[Challenge | Login]:
        """Take the client's line; see :class:`~pop3toy.interfaces.Exchange`."""
        initial, self._begun = not self._begun, True
        if self._over or (line is None and not initial):
            self._over = True
            raise BadCommand("the authentication exchange is over")
        if self.refusal is not None:
            self._over = True
            raise self.refusal from (AuthenticationCancelled() if line == b"*" else None)
        if line is None:
            # RFC 5034 section 4: an empty challenge asks for the initial response.
            return Challenge(b"") if self._mechanism.client_first else self._step(None)
        try:
            response = _response(line, initial)
        except BadCommand:
            self.cancel()
            raise
        return self._step(response)

    def cancel(self) -> None:
        """The client gave up or went away, or its line was too long.

        What is being checked is checked to its end, and counts: else a client
        that does not wait for the answer could guess without a penalty.
        """
        self._over = True

    @maybe_deferred
    async def _step(self, response: bytes | None) -> Challenge | Login:
        try:
            await resolved(self._attempt.start())
            if self._over:
                # The client has gone while it had to wait.
                raise BadCommand("the authentication exchange is over")
            outcome = await self._mechanism.step(response)
            self._attempt.claim(self._mechanism.user)
            if isinstance(outcome, Challenge):
                self.refusal = outcome.refusal
                if self.refusal is not None:
                    # The verdict counts now: the client need not wait for its last line.
                    self._attempt.failed()
                self._attempt.rest()
                return outcome
            self._over = True
            return await resolved(self._log_in(outcome, self._attempt))
        except Exception as error:
            self._over = True
            self._attempt.claim(self._mechanism.user)
            if isinstance(error, AuthenticationFailed):
                self._attempt.failed()
            else:
                self._attempt.dropped()
            raise


def decode_base64(line: bytes) -> bytes:
    """Decode base64 strictly (RFC 4648 section 4).

    :raises ValueError: if it is anything else.
    """
    # Python takes a surplus "=" behind a whole group, even when it is strict.
    if len(line) % 4 or line.endswith(b"==="):
        raise ValueError("not base64")
    return binascii.a2b_base64(line, strict_mode=True)


def text(octets: bytes) -> str:
    """A name in UTF-8.

    :raises pop3toy.errors.BadCommand: if it is not.
    """
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise BadCommand("the user name is not UTF-8") from None


def _response(line: bytes, initial: bool) -> bytes:
    """The octets of a line of the client (RFC 4954 and RFC 5034, each in section 4)."""
    if initial and line == b"=":
        return b""
    if line == b"*" and not initial:
        raise AuthenticationCancelled
    try:
        return decode_base64(line)
    except ValueError:
        raise NotBase64 from None
