"""An SMTP session around its messages: greeting, extensions, TLS, and the commands that carry no mail.

What must not live here: octets and order (``connection.py``), mail (``smtp.py``).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from ..clock import steady
from ..interfaces import Gatekeeper, IDelivery, ITranscript
from ..pop3.commands import Malformed, Public, mechanism_alone, name_alone
from ..routing.recipients import Recipients
from . import limits
from .connection import Connection
from .envelope import path_alone

__all__ = ["Dialogue", "Settings"]

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

#: Verbs that stand in RFCs and do nothing here: RFC 5321 section 4.2.4 has 502 for them.
#: SEND and the like are obsolete, TURN is refused by RFC 5321 appendix F.1.
_NOT_IMPLEMENTED: Final = frozenset(
    (b"ATRN", b"AUTH", b"BDAT", b"BURL", b"ETRN", b"EXPN", b"SAML", b"SEND", b"SOML", b"TURN")
)
#: RFC 5321 section 4.1.1: 501 if something stands behind them.
_ALONE: Final = frozenset((b"DATA", b"QUIT", b"RSET", b"STARTTLS"))
#: RFC 5321 section 4.1.3; one of IPv6 has colons.
_ADDRESS_LITERAL: Final = re.compile(rb"\[[0-9A-Za-z.:]*\](?=\s|$)")


def _host_alone(rest: bytes) -> bytes:
    literal = _ADDRESS_LITERAL.match(rest)
    if literal is None:
        return name_alone(rest)
    return literal[0] + (b" ****" if rest[literal.end() :].strip() else b"")


#: What may be shown of what stands behind a verb.  Of all other verbs nothing is: passwords
#: are typed everywhere, and too early.
_PUBLIC: Final[dict[bytes, Callable[[bytes], bytes]]] = {
    b"AUTH": mechanism_alone,
    b"EHLO": _host_alone,
    b"HELO": _host_alone,
    b"LHLO": _host_alone,
    b"MAIL": path_alone,
    b"RCPT": path_alone,
    b"VRFY": name_alone,
}


def _public(verb: bytes, argument: bytes) -> Public:
    """What a transcript that hides secrets shows of a command."""
    shown = _PUBLIC.get(verb, lambda _: b"****")(argument) if argument else b""
    return Public(b"%b %b" % (verb, shown) if shown else verb)


@dataclass(frozen=True)
class Settings:
    """What all connections of one port have in common."""

    delivery: IDelivery
    recipients: Recipients
    clock: IReactorTime
    #: This server's name, in the greeting and in Received headers.
    host: str
    #: A context factory for STARTTLS, or ``None``.
    tls: object | None = None
    transcript: ITranscript | None = None
    #: Counts connections; ``None`` lets all in.
    gatekeeper: Gatekeeper | None = None
    largest_message: int = limits.MESSAGE
    recipients_limit: int = limits.RECIPIENTS
    smtputf8: bool = True
    idle: int = limits.IDLE
    #: The time of day, for Received headers.
    wall: Callable[[], float] = time.time
    #: Write the recipients of a message into it: for a mail trap, where one user
    #: gets what is for everybody.
    original_to: bool = False


class Dialogue(Connection):
    """A session that carries no mail.

    :param settings: what it shares with the others.
    :param number: under which transcript and log know it.
    :param lost: called when it is over.
    """

    def __init__(self, settings: Settings, number: int, lost: Callable[[Connection], None]) -> None:
        super().__init__(
            number,
            settings.host,
            steady(settings.clock),
            idle=settings.idle,
            tls=settings.tls,
            transcript=settings.transcript,
            gatekeeper=settings.gatekeeper,
            lost=lost,
        )
        self.settings = settings
        #: What the client calls itself, once it has said so.
        self.client_name: bytes | None = None
        #: Whether it knows extensions.
        self.extended = False
        #: How the line ended that is being carried out.
        self.line_was_crlf = True
        self.commands: dict[bytes, Callable[[bytes], None]] = {
            b"EHLO": self.do_EHLO,
            b"HELO": self.do_HELO,
            b"HELP": self.do_HELP,
            b"NOOP": self.do_NOOP,
            b"QUIT": self.do_QUIT,
            b"RSET": self.do_RSET,
            b"STARTTLS": self.do_STARTTLS,
            b"VRFY": self.do_VRFY,
        }

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over."""
        super().connectionLost(reason)
        # They know this object.
        self.commands = {}

    def reset(self) -> None:
        """Forget the message that was begun (RFC 5321 section 4.1.1.5)."""
        raise NotImplementedError

    def greeting(self) -> bytes:
        """What stands behind 220 (RFC 5321 section 4.2)."""
        return self.host + b" ESMTP pop3toy"

    def command_received(self, line: bytes, *, crlf: bool) -> None:
        """See :class:`Connection`."""
        verb, _, rest = line.strip(b" \t").partition(b" ")
        verb, argument = verb.upper(), rest.strip(b" \t")
        command = self.commands.get(verb)
        if command is None or _CONTROL.search(line):
            self.heard(line, Malformed("unknown command"))
            if verb in _NOT_IMPLEMENTED:
                self.error(502, "5.5.1", "command not implemented")
            else:
                self.error(500, "5.5.2", "command not understood; HELP lists them")
            return
        if self.transcript is not None:
            self.heard(line, _public(verb, argument))
        self.line_was_crlf = crlf
        if argument and verb in _ALONE:
            self.error(501, "5.5.4", f"{verb.decode('ascii')} takes no argument")
            return
        command(argument)

    def do_HELO(self, rest: bytes) -> None:
        """RFC 5321 section 4.1.1.1."""
        if self.hello(rest, extended=False):
            self.sendCode(250, self.host)

    def do_EHLO(self, rest: bytes) -> None:
        """RFC 5321 section 4.1.1.1: what we can do."""
        if self.hello(rest, extended=True):
            self.sendCode(250, b"\n".join([self.host, *self._announced()]))

    def _announced(self) -> list[bytes]:
        """The extensions, a line each; one that needs arguments and has none is left out."""
        return [
            b" ".join([name, *(arguments or ())])
            for name, arguments in self.extensions().items()
            if arguments is None or arguments
        ]

    def hello(self, rest: bytes, *, extended: bool) -> bool:
        """Begin anew (RFC 5321 section 4.1.4); false if the client does not say who it is."""
        if not rest:
            self.error(501, "5.5.4", "say who you are, for example: EHLO my.host.name")
            return False
        self.reset()
        self.client_name = rest
        self.extended = extended
        return True

    def extensions(self) -> dict[bytes, list[bytes] | None]:
        """What EHLO announces: nothing that does not work here and now."""
        offered: dict[bytes, list[bytes] | None] = {
            b"PIPELINING": None,
            b"SIZE": [b"%d" % self.settings.largest_message],
            b"8BITMIME": None,
            b"ENHANCEDSTATUSCODES": None,
        }
        if self.settings.smtputf8:
            offered[b"SMTPUTF8"] = None
        if self.can_start_tls and not self.started_tls:
            offered[b"STARTTLS"] = None
        return offered

    def do_NOOP(self, rest: bytes) -> None:
        """RFC 5321 section 4.1.1.9."""
        self.reply(250, "2.0.0", "ok")

    def do_RSET(self, rest: bytes) -> None:
        """RFC 5321 section 4.1.1.5."""
        self.reset()
        self.reply(250, "2.0.0", "ok")

    def do_QUIT(self, rest: bytes) -> None:
        """RFC 5321 section 4.1.1.10."""
        self.reply(221, "2.0.0", "goodbye")
        self.close("quit")

    def do_HELP(self, rest: bytes) -> None:
        """RFC 5321 section 4.1.1.8."""
        self.reply(214, "2.0.0", b" ".join(sorted(self.commands)).decode("ascii"))

    def do_VRFY(self, rest: bytes) -> None:
        """RFC 5321 section 7.3: nobody is told who is here."""
        if rest:
            self.reply(252, "2.1.5", "send a message and see")
        else:
            self.error(501, "5.5.4", "VRFY whom?")

    def do_STARTTLS(self, rest: bytes) -> None:
        """RFC 3207: from here on TLS, and what was said before does not count."""
        if self.started_tls:
            self.reply(503, "5.5.1", "TLS already negotiated")
        elif not self.can_start_tls:
            self.reply(454, "4.7.0", "TLS not available")
        else:
            # What was sent behind it in clear text may be somebody else's; RFC 3207
            # section 5 knows the attack, and Twisted would carry out the commands.
            discarded = self.lines.take()
            if discarded:
                self.note(f"{len(discarded)} octets behind STARTTLS thrown away")
            self.forget()
            self.sendCode(220, b"Begin TLS negotiation now")
            self.start_tls()

    def forget(self) -> None:
        """Know nothing of the client any more."""
        self.abandon()
        self.client_name = None
