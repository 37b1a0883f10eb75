"""The lines of a SASL exchange for POP3 and SMTP: base64, ``=``, ``*``, the refusal still to be said."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.auth.sasl.exchange import AuthResult, SASLExchange, decode_base64
from pop3toy.auth.throttle.login_throttle import unguarded
from pop3toy.errors import (
    AuthenticationCancelled,
    AuthenticationFailed,
    BadCommand,
    NotBase64,
    Refusal,
    StoreTrouble,
)
from pop3toy.interfaces import Challenge

#: RFC 4648 section 4.
BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)?")
LINES = st.binary(max_size=30) | st.text("AQgZz09+/= *\r\n", max_size=9).map(str.encode)


class Asking:
    """A mechanism that asks again and again, or does what the script says."""

    name = "PLAIN"

    def __init__(self, *script: Any, client_first: bool = True) -> None:
        self.user: str | None = None
        self.client_first = client_first
        self.heard: list[bytes | None] = []
        self._script = list(script)

    async def step(self, response: bytes | None) -> Any:
        self.heard.append(response)
        step = self._script.pop(0) if self._script else Challenge(b"more")
        if isinstance(step, Exception):
            raise step
        return await step if isinstance(step, Deferred) else step


class LineTests(SynchronousTestCase):
    """What a line of the client means (RFC 4954 and RFC 5034, each in section 4)."""

    def exchange(self, *script: Any, client_first: bool = True) -> SASLExchange:
        self.mechanism = Asking(*script, client_first=client_first)
        self.attempt = unguarded().attempt("192.0.2.7", "ann")
        self.log_ins: list[AuthResult] = []
        return SASLExchange(self.mechanism, self.attempt, self._log_in)  # type: ignore[arg-type]

    def _log_in(self, result: AuthResult, attempt: object) -> Any:
        self.log_ins.append(result)
        return "in"

    def refused(self, exchange: SASLExchange, line: bytes | None, error: type[Refusal]) -> Refusal:
        """The line is refused with exactly this error, and then the exchange is over."""
        with self.assertRaises(error) as caught:
            exchange.respond(line)
        self.assertIs(type(caught.exception), error, line)
        heard = len(self.mechanism.heard)
        for late in (line, b"", b"QQ==", b"*"):
            with self.assertRaisesRegex(BadCommand, "over"):
                exchange.respond(late)
        self.assertEqual(len(self.mechanism.heard), heard)
        refusal: Refusal = caught.exception
        return refusal

    def test_decode(self) -> None:
        """Base64 is decoded if it is that and nothing else."""
        self.assertEqual(decode_base64(b"AGEAYg=="), b"\0a\0b")
        self.assertEqual(decode_base64(b""), b"")
        for wrong in (
            b"A",
            b"AAAA=",
            b"AAAA====",
            b"AGEAYg",
            b"AGEAYg=",
            b"AGEA Yg==",
            b"AGEAYg==x",
            b"A===",
            b"\xff" * 4,
            b"AG\0A",
        ):
            with self.assertRaises(ValueError, msg=repr(wrong)):
                decode_base64(wrong)

    @given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
    def test_any_octets(self, responses: list[bytes]) -> None:
        """The mechanism hears the octets that the client has encoded, whatever they are."""
        exchange = self.exchange()
        for response in responses:
            self.assertEqual(exchange.respond(b64encode(response)), Challenge(b"more"))
        self.assertEqual(self.mechanism.heard, responses)

    @given(LINES, st.booleans())
    @example(b"=", False)
    @example(b"====", True)
    @example(b"AAAA====", True)
    @example(b"AAAA=", False)
    @example(b"QQ==QQ==", True)
    @example(b"QQ==\n", False)
    def test_any_line(self, line: bytes, initial: bool) -> None:
        """A line that is base64 reaches the mechanism, any other ends the exchange."""
        exchange = self.exchange(client_first=False)
        if not initial:
            exchange.respond(None)
        del self.mechanism.heard[:]
        if BASE64.fullmatch(line) or (initial and line == b"="):
            self.assertEqual(exchange.respond(line), Challenge(b"more"))
            self.assertEqual(len(self.mechanism.heard), 1)
        else:
            cancelled = line == b"*" and not initial
            self.refused(exchange, line, AuthenticationCancelled if cancelled else NotBase64)
            self.assertEqual(self.mechanism.heard, [])

    def test_no_initial_response(self) -> None:
        """Without one the server begins, with an empty challenge where the client speaks first."""
        self.assertEqual(self.exchange().respond(None), Challenge(b""))
        self.assertEqual(self.mechanism.heard, [])
        self.assertEqual(self.exchange(client_first=False).respond(None), Challenge(b"more"))
        self.assertEqual(self.mechanism.heard, [None])

    def test_no_line_twice(self) -> None:
        """Only AUTH's own line can be without a response."""
        exchange = self.exchange(client_first=False)
        exchange.respond(b"QQ==")
        self.refused(exchange, None, BadCommand)
        self.assertEqual(self.mechanism.heard, [b"A"])

    def test_empty_initial_response(self) -> None:
        """``=`` is the empty response in AUTH's own line, and there alone; later that is an empty line."""
        exchange = self.exchange()
        exchange.respond(b"=")
        exchange.respond(b"")
        self.assertEqual(self.mechanism.heard, [b"", b""])
        self.refused(exchange, b"=", NotBase64)
        for initial in (None, b"QQ=="):
            exchange = self.exchange()
            exchange.respond(initial)
            self.refused(exchange, b"=", NotBase64)

    def test_cancel(self) -> None:
        """``*`` cancels, and is no initial response."""
        for initial in (None, b"=", b"QQ=="):
            exchange = self.exchange()
            exchange.respond(initial)
            self.refused(exchange, b"*", AuthenticationCancelled)
        self.refused(self.exchange(), b"*", NotBase64)

    def test_cancelled(self) -> None:
        """An exchange that the session has cancelled takes no line more, not even its first."""
        for lines in ([], [None], [b"QQ=="]):
            exchange = self.exchange()
            for line in lines:
                exchange.respond(line)
            exchange.cancel()
            self.refused(exchange, b"QQ==", BadCommand)

    def test_over(self) -> None:
        """Nor does one in which somebody is in."""
        exchange = self.exchange(AuthResult(None, "ann"))  # type: ignore[arg-type]
        self.assertEqual((exchange.respond(b"QQ=="), len(self.log_ins)), ("in", 1))
        self.refused(exchange, b"QQ==", BadCommand)
        self.assertEqual(len(self.log_ins), 1)

    def test_mechanism_refuses(self) -> None:
        """What a mechanism raises, at once or late, ends the exchange and comes out as it is."""
        for error in (AuthenticationFailed, BadCommand, StoreTrouble):
            self.refused(self.exchange(error("no")), b"QQ==", error)
            late: Deferred[Any] = Deferred()
            exchange = self.exchange(late)
            outcome = exchange.respond(b"QQ==")
            assert isinstance(outcome, Deferred)
            self.assertNoResult(outcome)
            late.errback(error("no"))
            self.failureResultOf(outcome, error)
            self.refused(exchange, b"QQ==", BadCommand)

    @given(LINES)
    @example(b"*")
    @example(b"=")
    @example(b"")
    @example(b"AQ==")
    @example(b"no base64")
    def test_refusal_still_to_be_said(self, line: bytes) -> None:
        """A challenge that explains a refusal is followed by that, whatever the client's next line is."""
        refusal = AuthenticationFailed("the token was not accepted")
        exchange = self.exchange(Challenge(b"{}", refusal))
        self.assertIsNone(exchange.refusal)
        self.assertEqual(exchange.respond(b"QQ=="), Challenge(b"{}", refusal))
        self.assertIs(exchange.refusal, refusal)
        said = self.refused(exchange, line, AuthenticationFailed)
        self.assertIs(said, refusal)
        self.assertEqual(isinstance(said.__cause__, AuthenticationCancelled), line == b"*")
        self.assertEqual((len(self.mechanism.heard), self.log_ins), (1, []))

    def test_refusal_and_cancel(self) -> None:
        """A session that ends such an exchange itself can tell why it had failed."""
        refusal = AuthenticationFailed()
        exchange = self.exchange(Challenge(b"{}", refusal))
        exchange.respond(b"QQ==")
        exchange.cancel()
        self.assertIs(exchange.refusal, refusal)
        self.refused(exchange, b"", BadCommand)
