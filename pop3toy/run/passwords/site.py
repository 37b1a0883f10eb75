"""Answers the requests for the page where users change their password.

A password is looked at behind the same penalties as at POP3 and submission.  No password is in a URL, a log
or an exception; nothing is kept between two requests.  What another site has a browser send is refused: it
lacks the token that a cookie and the form have alike, and its origin is another one.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Iterator
from typing import Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from ...auth.authenticator import PortalAuthenticator
from ...auth.maybe_deferred import resolved
from ...clock import steady
from ...errors import AuthenticationFailed, Refusal
from ...events import LoginFailed, PasswordChanged
from ...interfaces import Channel, SessionRecord
from ...languages import LANGUAGES, language_accepted
from ...masking import name_alone
from ...net.transport import channel_of
from ...net.types import IStreamTransport
from ...observe.explain.explanation import N_, say_in
from ...observe.site import BoundedRequest, EndingSite, QuietSite
from .page import HEADERS, changed, form

__all__ = ["PasswordPage", "PasswordSite"]

log = Logger()

#: Characters that a new password has at least (NIST SP 800-63B), and octets at the most.
SHORTEST: Final = 8
_LONGEST: Final = 255
#: Octets of a request's body, and connections at once.
_BODY: Final = 8192
_CONNECTIONS: Final = 64
#: Seconds without an octet after which a connection ends: longer than any penalty.
_PATIENCE: Final = 60
#: As observers are told of it.
PROTOCOL: Final = "HTTP"
MECHANISM: Final = "PASSWORD"
_TOKEN = re.compile(rb"[0-9a-f]{32}")


class PasswordPage(Resource):
    """The page.

    :param authenticator: checks the password that the user has now.
    :param change: gives a user another password; the Deferred fails if that cannot be.
    :param numbers: of sessions.
    :param happened: is told of failures and changes: the kind of event, and its fields behind ``at``.
    """

    isLeaf = True

    def __init__(
        self,
        authenticator: PortalAuthenticator,
        change: Callable[[str, str], Deferred[None]],
        numbers: Iterator[int],
        happened: Callable[..., object],
    ) -> None:
        super().__init__()
        self._authenticator = authenticator
        self._change = change
        self._numbers = numbers
        self._happened = happened
        # Read now: catalogues are files.
        self._say = {language: say_in(language) for language in LANGUAGES}

    def render_GET(self, request: HTTPRequest) -> bytes:
        """The empty form."""
        if not _private(request):
            return _refusal(request)
        return _answer(request, 200, self._form(request, ""))

    def render_POST(self, request: HTTPRequest) -> bytes | int:
        """Change the password, if all is right."""
        if not _private(request):
            return _refusal(request)
        if getattr(request, "too_large", False):
            return _answer(request, 413, self._form(request, N_("That is too long.")))
        gone: list[object] = []
        request.notifyFinish().addBoth(gone.append)

        def send(answer: tuple[int, bytes]) -> None:
            if not gone:
                request.write(_answer(request, *answer))
                request.finish()

        def bug(why: Failure) -> None:
            log.failure("the page for passwords", why)
            problem = N_("Something went wrong here; the password may not be changed.")
            send((500, self._form(request, problem)))

        Deferred.fromCoroutine(self._post(request)).addErrback(_as_bug).addCallbacks(send, bug)
        return NOT_DONE_YET

    async def _post(self, request: HTTPRequest) -> tuple[int, bytes]:
        user, old, new, again = (_field(request, name) for name in ("user", "old", "new", "again"))
        cookie = request.getCookie(_cookie_name(request)) or b""
        sent = _field(request, "token").encode("utf-8", "replace")
        if not _TOKEN.fullmatch(cookie) or not hmac.compare_digest(cookie, sent) or _is_of_another(request):
            problem = N_("Please try once more: this page had been open for too long.")
            return 403, self._form(request, problem)
        if problem := _problem(user, old, new, again):
            return 400, self._form(request, problem, user)
        channel = _channel(request)
        record = SessionRecord(next(self._numbers), channel, protocol="passwords")
        try:
            login = await resolved(
                self._authenticator.main_password(user.encode("utf-8"), old.encode("utf-8"), record)
            )
        except AuthenticationFailed as refusal:
            self._failed(channel, user, refusal)
            problem = N_("The name or the password that you have now is wrong.")
            return 403, self._form(request, problem, user)
        except Refusal as refusal:
            self._failed(channel, user, refusal)
            problem = N_("That is not possible at the moment: please try later.")
            return 503, self._form(request, problem, user)
        name = login.user
        login.logout()
        try:
            await self._change(name, new)
        except (OSError, ValueError, Refusal) as error:
            why = getattr(error, "detail", "") or getattr(error, "strerror", "") or type(error).__name__
            log.error("the password of {user!r} could not be changed: {why}", user=name, why=why)
            problem = N_("The password could not be changed here: please tell your postmaster.")
            return 503, self._form(request, problem, user)
        self._happened(PasswordChanged, PROTOCOL, channel, name)
        language = _language(request)
        return 200, changed(self._say[language], language, name)

    def _failed(self, channel: Channel, user: str, why: Refusal) -> None:
        claimed = name_alone(user.encode("utf-8", "replace")).decode("utf-8")
        self._happened(LoginFailed, PROTOCOL, channel, claimed, MECHANISM, why.code or "refused")

    def _form(self, request: HTTPRequest, problem: str, user: str = "") -> bytes:
        """The form, in the language of its reader.

        :param problem: in English, as the catalogue has it.
        """
        language = _language(request)
        say = self._say[language]
        said = say(problem, shortest=SHORTEST) if problem else ""
        return form(say, language, _token(request), shortest=SHORTEST, user=user, problem=said)


def _problem(user: str, old: str, new: str, again: str) -> str:
    """What is wrong with what was filled in, a sentence of the catalogue; empty if nothing is."""
    if not user or not old or not new:
        return N_("Please fill in all fields.")
    if new != again:
        return N_("The new password is not the same both times.")
    if len(new) < SHORTEST:
        return N_("The new password is too short: it needs {shortest} characters.")
    if len(new.encode("utf-8", "replace")) > _LONGEST:
        return N_("The new password is too long.")
    if not new.isprintable():
        return N_("The new password holds a character that cannot be typed.")
    if new == old:
        return N_("The new password is the old one.")
    if new.casefold() == user.casefold():
        return N_("The new password is the name.")
    return ""


def _as_bug(why: Failure) -> Failure:
    # Locals of a traceback may hold a password.
    why.cleanFailure()
    return why


def _channel(request: HTTPRequest) -> Channel:
    return channel_of(cast(IStreamTransport, request.channel.transport))


def _language(request: HTTPRequest) -> str:
    return language_accepted(request.getHeader("accept-language") or "")


def _private(request: HTTPRequest) -> bool:
    """Whether nobody on a network can listen."""
    return bool(request.isSecure()) or _channel(request).local


def _refusal(request: HTTPRequest) -> bytes:
    request.setResponseCode(403)
    request.setHeader("content-type", "text/plain; charset=utf-8")
    return b"This page is for TLS alone: https.\n"


def _field(request: HTTPRequest, name: str) -> str:
    """A field of the form; of the body alone, never of the URL."""
    if b"?" in request.uri:
        return ""
    return str(request.args.get(name.encode("ascii"), [b""])[0].decode("utf-8", "replace"))


def _is_of_another(request: HTTPRequest) -> bool:
    """Whether the page of another site has a browser send this."""
    origin, host = request.getHeader("origin"), request.getHeader("host") or ""
    site = request.getHeader("sec-fetch-site")
    scheme = "https" if request.isSecure() else "http"
    # A proxy may speak TLS in front of this machine's own port.
    allowed = {f"{scheme}://{host}", *({f"https://{host}"} if not request.isSecure() else ())}
    return (origin is not None and origin not in allowed) or site not in (None, "same-origin", "none")


def _cookie_name(request: HTTPRequest) -> bytes:
    return b"__Host-pop3toy-password" if request.isSecure() else b"pop3toy-password"


def _token(request: HTTPRequest) -> str:
    """What the form has to bring along: the browser's, or a new one, which becomes its cookie."""
    known: bytes = request.getCookie(_cookie_name(request)) or b""
    if _TOKEN.fullmatch(known):
        return known.decode("ascii")
    token = secrets.token_hex(16)
    request.addCookie(
        _cookie_name(request),
        token.encode("ascii"),
        path=b"/",
        secure=bool(request.isSecure()),
        httpOnly=True,
        sameSite=b"strict",
    )
    return token


def _answer(request: HTTPRequest, code: int, body: bytes) -> bytes:
    request.setResponseCode(code)
    for name, value in HEADERS:
        request.setHeader(name, value)
    if request.isSecure():
        request.setHeader("Strict-Transport-Security", "max-age=31536000")
    request.setHeader("content-type", "text/html; charset=utf-8")
    request.setHeader("content-length", str(len(body)))
    return body


class _Request(BoundedRequest):
    most = _BODY


class PasswordSite(EndingSite):
    """The factory of the page's connections."""

    def __init__(self, page: PasswordPage, clock: IReactorTime) -> None:
        site = QuietSite(page, requestFactory=_Request, reactor=steady(clock), timeout=_PATIENCE)
        super().__init__(site, _CONNECTIONS)
