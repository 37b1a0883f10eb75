"""Asks the authorization server to which user a bearer token belongs (RFC 7662).

Asks over HTTP with treq, waits no longer than it may, and remembers good
answers for a short while.  What SASL does with them is in ``oauth``.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ...clock import steady
from ...errors import StoreTrouble
from ...installation import install_hint
from ...interfaces import MaybeDeferred
from ..accounts.schemes import MissingLibrary
from .oauth import ITokenChecker

__all__ = ["HTTPClient", "Introspection", "treq_client"]

#: Octets of an answer; a few hundred are usual.
_MOST_OCTETS = 65_536


class HTTPClient(Protocol):
    """The part of :class:`treq.client.HTTPClient` that is needed."""

    def post(self, url: str, /, **kwargs: Any) -> Deferred[Any]:
        """Fires with the response when its headers are there."""


def treq_client(reactor: IReactorTime) -> HTTPClient:
    """An HTTP client that verifies certificates.

    :raises MissingLibrary: if treq is not installed.
    """
    try:
        from treq.client import HTTPClient as TreqClient
    except ImportError:
        raise MissingLibrary(f"asking about tokens needs treq: {install_hint('oauth')}") from None
    from twisted.web.client import Agent, HTTPConnectionPool, _HTTP11ClientFactory

    class Quiet(_HTTP11ClientFactory):
        # It would say that it starts and stops, at each question.
        noisy = False

    pool = HTTPConnectionPool(reactor)
    pool._factory = Quiet
    return cast(HTTPClient, TreqClient(Agent(reactor, pool=pool)))


@implementer(ITokenChecker)
class Introspection:
    """Asks one introspection endpoint.

    :param http: sends the questions (see :func:`treq_client`).
    :param url: the endpoint: ``https:``, or ``http:`` on this machine.
    :param clock: for timeout and cache.
    :param credentials: this server's client id and secret at the authorization
        server.
    :param claim: the member of the answer that names the user: ``username``,
        ``sub``, ``email``.
    :param scope: a scope that the token must have.
    :param audience: an audience that the token must be for.
    :param timeout: seconds until an unanswered question is given up; mail
        clients wait for 30 or more.
    :param remembered: seconds for which a good answer counts, unless the token
        ends before: a revoked token works that long.
    :param most: questions at once, and (a hundred times that) answers remembered.
    :param wall: the world's time, in seconds, for ``exp``.
    :raises ValueError: if the URL would send tokens over a network in clear text.
    """

    def __init__(
        self,
        http: HTTPClient,
        url: str,
        clock: IReactorTime,
        *,
        credentials: tuple[str, str] | None = None,
        claim: str = "username",
        scope: str | None = None,
        audience: str | None = None,
        timeout: float = 5.0,
        remembered: float = 60.0,
        most: int = 100,
        wall: Callable[[], float] = time.time,
    ) -> None:
        parts = urlsplit(url)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if parts.hostname is None or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
            raise ValueError("an introspection endpoint is an https: address (http: only on this machine)")
        self._http = http
        self._url = url
        self._clock: IReactorTime = steady(clock)
        self._credentials = credentials
        self._claim = claim
        self._scope = scope
        self._audience = audience
        self._timeout = timeout
        self._remembered = remembered
        self._most = most
        self._wall = wall
        self._asking = 0
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, tuple[str, float, float]] = OrderedDict()

    def owner(self, token: str) -> MaybeDeferred[str | None]:
        """The user that the token was given to; see :class:`~pop3toy.auth.sasl.oauth.ITokenChecker`."""
        digest = blake2b(token.encode("utf-8"), key=self._key, digest_size=32).digest()
        name, until, expires = self._known.get(digest, (None, 0.0, 0.0))
        if name is not None and until > self._clock.seconds() and expires > self._wall():
            return name
        self._known.pop(digest, None)
        if self._asking >= self._most:
            raise StoreTrouble("too many logins at the moment, try later")
        return Deferred.fromCoroutine(self._ask(token, digest))

    async def _ask(self, token: str, digest: bytes) -> str | None:
        self._asking += 1
        try:
            body = await Deferred.fromCoroutine(self._post(token)).addTimeout(self._timeout, self._clock)
        except StoreTrouble:
            raise
        except Exception as error:
            # The text of an error of HTTP may hold the question and with it the token.
            raise _unavailable(type(error).__name__) from None
        finally:
            self._asking -= 1
        return self._judge(body, digest)

    async def _post(self, token: str) -> bytes:
        response = await self._http.post(
            self._url,
            data={"token": token, "token_type_hint": "access_token"},
            headers={"Accept": "application/json"},
            auth=self._credentials,
            # A redirection would send the token elsewhere.
            allow_redirects=False,
        )
        if response.code != 200:
            raise _unavailable(f"it answers with status {response.code}")
        body = bytearray()

        def collect(chunk: bytes) -> None:
            if len(body) + len(chunk) > _MOST_OCTETS:
                raise _unavailable("the answer is too long")
            body.extend(chunk)

        await response.collect(collect)
        return bytes(body)

    def _judge(self, body: bytes, digest: bytes) -> str | None:
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            # The latter for thousands of brackets.
            raise _unavailable("the answer is not JSON") from None
        if not isinstance(answer, dict):
            raise _unavailable("the answer is not a JSON object")
        # RFC 7662 section 2.2: nothing but "active" need be there.
        if answer.get("active") is not True:
            return None
        expires = self._expiry(answer)
        seconds = min(expires - self._wall(), self._remembered)
        user = answer.get(self._claim)
        # JSON can hold what cannot be printed, such as a lone surrogate; no user is called so.
        if not isinstance(user, str) or not user.isprintable() or not user:
            return None
        if not seconds > 0 or not self._is_for_us(answer):
            return None
        self._known[digest] = user, self._clock.seconds() + seconds, expires
        if len(self._known) > 100 * self._most:
            self._known.popitem(last=False)
        return user

    def _expiry(self, answer: dict[str, object]) -> float:
        """Until which time of day the answer counts; 0 for NaN, which JSON has in Python, and its like."""
        expires = answer.get("exp", self._wall() + self._remembered)
        try:
            if not isinstance(expires, int | float) or not math.isfinite(expires):
                return 0.0
        except OverflowError:
            # An integer of hundreds of digits.
            return 0.0
        return expires

    def _is_for_us(self, answer: dict[str, object]) -> bool:
        scopes, audience = answer.get("scope"), answer.get("aud")
        if self._scope is not None and self._scope not in (scopes.split() if isinstance(scopes, str) else ()):
            return False
        audiences = audience if isinstance(audience, list) else [audience]
        return self._audience is None or self._audience in audiences


def _unavailable(why: str) -> StoreTrouble:
    return StoreTrouble("logins are not possible at the moment", detail=f"token introspection: {why}")
