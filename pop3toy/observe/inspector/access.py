"""Who may ask: the token, the Host header, and what a page of somebody else's may not have a browser do.

On a Unix socket the file's mode is the authorisation.  On TCP the token is asked for always, also on
loopback, where other users of the machine are.  It comes as ``Authorization: Bearer``, or once as
``?token=``, which sets a cookie that scripts cannot read.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from ipaddress import ip_address

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.web.http import Request

from .problem import Problem

__all__ = ["FOR_MAIL", "HEADERS", "Access"]

#: With every answer.
HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " frame-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)

#: The policy of HTML in mail: no scripts, nothing from elsewhere, an origin that has no part in anything.
FOR_MAIL = (
    "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'self'"
)

_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>\d{1,5}))?")


class Access:
    """Decides who may ask.

    :param token: text that whoever asks over TCP has to know.
    :param names: by which this server may be called in a Host header, besides its addresses and localhost.
    """

    def __init__(self, token: str, names: tuple[str, ...] = ()) -> None:
        self.use(token, names)

    def use(self, token: str | None, names: tuple[str, ...]) -> None:
        """From now on these; without a token the one before."""
        self._names = {"localhost", *(name.lower().rstrip(".") for name in names)}
        if token is None:
            return
        self._token = token.encode("utf-8")
        # Cookies go to all ports of a host: another server there is not to learn the token itself.
        self._cookie = hmac.new(self._token, b"pop3toy inspector cookie", hashlib.sha256).hexdigest().encode()

    def check(self, request: Request) -> None:
        """See that the request may be answered.

        :raises Problem: if not.
        """
        local = request.getHost()
        on_network = isinstance(local, IPv4Address | IPv6Address)
        if on_network:
            self._check_host(request, local.host)
        origin = request.getHeader("origin")
        host = request.getHeader("host") or ""
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            raise Problem(403, "A page of another server has sent this.")
        if on_network and not self.knows_token(request):
            raise Problem(
                401, "The token is missing or wrong: it is in the link that the server's log shows."
            )
        acts = request.method not in (b"GET", b"HEAD")
        # A browser has sent the cookie: it says who made it do so.
        own = origin is not None or request.getHeader("sec-fetch-site") == "same-origin"
        if acts and on_network and not own and not self._by_bearer(request):
            raise Problem(403, "With the cookie only this server's own page may change anything.")

    def check_link(self, request: Request, token: str) -> None:
        """See that somebody may come in who has followed the link with the token.

        :raises Problem: if not.
        """
        local = request.getHost()
        if isinstance(local, IPv4Address | IPv6Address):
            self._check_host(request, local.host)
            if not self.is_token(token):
                raise Problem(401, "The token is wrong: it is in the link that the server's log shows.")

    def _check_host(self, request: Request, local: str) -> None:
        # A name of somebody else's may lead here (DNS rebinding): then their page would be this one's.
        found = _HOST.fullmatch(request.getHeader("host") or "")
        name = (found["six"] or found["name"]).lower().rstrip(".") if found else ""
        try:
            address = ip_address(name)
            known = address.is_loopback or address == ip_address(local.partition("%")[0])
        except ValueError:
            known = name in self._names
        if not known:
            raise Problem(421, "This server is not called so: use localhost or its address.")

    def knows_token(self, request: Request) -> bool:
        """Whether it brings the token or the cookie, or needs none."""
        if not isinstance(request.getHost(), IPv4Address | IPv6Address):
            return True
        cookie = request.getCookie(self.cookie_name(request)) or b""
        return self._by_bearer(request) or hmac.compare_digest(cookie, self._cookie)

    def _by_bearer(self, request: Request) -> bool:
        scheme, _, token = (request.getHeader("authorization") or "").partition(" ")
        return scheme.lower() == "bearer" and self.is_token(token.strip())

    def is_token(self, token: str) -> bool:
        """Whether this is the token; takes as long if it is not."""
        return hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._token)

    def cookie_name(self, request: Request) -> bytes:
        """Servers on other ports of this host have cookies of their own."""
        return b"pop3toy_%d" % getattr(request.getHost(), "port", 0)

    def set_cookie(self, request: Request) -> None:
        """Let the browser in from now on."""
        request.addCookie(
            self.cookie_name(request), self._cookie, path=b"/", httpOnly=True, sameSite=b"strict"
        )
