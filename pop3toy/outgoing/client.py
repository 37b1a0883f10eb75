"""One message handed to the smarthost, over Twisted's SMTP client.

Twisted's has greeting, EHLO, STARTTLS, AUTH and timeouts; from MAIL on the states are ours, because it knows
neither the parameters of MAIL and RCPT nor a message that is read in threads.  ``twisted.mail.smtp`` installs
a reactor when it is imported, so that is done when the first message goes out.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IConsumer, IProtocol, IPushProducer, IReactorTime
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from ..clock import steady
from ..mail.octets import Encoder
from ..net.types import IReactor
from ..printable import printable
from .attempt import Content, Result, Trouble, impossible, mail_parameters, outcome_of
from .entry import Entry, Outcome, Status
from .smarthost import Credentials, Smarthost

__all__ = ["Handing", "hand_on"]

#: Seconds that the smarthost may take for a reply: RFC 5321 section 4.5.3.2.6, ten minutes behind a message.
SILENCE: Final = 600.0
#: Seconds for a connection.
CONNECTING: Final = 30.0
#: Lines that a reply may have: EHLO's has a dozen.
LINES: Final = 1000
#: Octets that a line of one may have: RFC 5321 section 4.5.3.1.5 says 512.
LINE: Final = 4096
#: Challenges of AUTH: LOGIN has two.  A smarthost that asks on and on gets no password each time.
CHALLENGES: Final = 2
#: Octets that are read of a message at once.
CHUNK: Final = 64 * 1024

#: How a line of a reply begins.  (Twisted's client takes all that is a number, and waits behind ``0``.)
_REPLY: Final = re.compile(rb"[1-9][0-9]{2}")
#: RFC 4954 section 6: replies to MAIL that are about the login, and so about the settings here, not the mail.
_OF_LOGIN: Final = (530, 534, 535, 538)
#: RFC 5321 section 3.8: it may come behind any command, and is about the connection.
_CLOSING: Final = 421
#: Replies to MAIL that are about neither, and pass.
_PASSES: Final = (_CLOSING, 454)


class Handing(NamedTuple):
    """How mail is handed on."""

    smarthost: Smarthost
    credentials: Credentials | None
    #: What Twisted makes TLS of; ``None`` for a smarthost on loopback.
    tls: Any
    #: This server's name, for EHLO.
    host: str


async def hand_on(
    reactor: IReactor,
    handing: Handing,
    entry: Entry,
    content: Content,
    *,
    endpoint: Any = None,
    stop: Callable[[Callable[[], object]], object] = lambda abort: None,
) -> Result:
    """Hand a message to the smarthost, for the recipients that are waiting.

    :param reactor: connects and tells the time.
    :param endpoint: for tests: in the place of the smarthost's.
    :param stop: is given what ends the attempt at once.
    """
    done: Deferred[Result] = Deferred()
    client = _client_class()(handing, entry, content, steady(reactor), done)
    where = endpoint or HostnameEndpoint(reactor, handing.smarthost.host, handing.smarthost.port, CONNECTING)
    factory: Any = _Once(client)
    if handing.smarthost.scheme == "smtps":
        from twisted.protocols.tls import TLSMemoryBIOFactory

        # Without a clock it would import the reactor of the process, which may be another one.
        factory = TLSMemoryBIOFactory(handing.tls, True, factory, reactor)
    connecting: Deferred[IProtocol] = where.connect(factory)
    stop(lambda: client.give_up() if client.connected else connecting.cancel())
    try:
        await connecting
    except Exception as error:
        return Result({}, Trouble(f"cannot connect to {handing.smarthost.host}: {_why(Failure(error))}"))
    return await done


class _Once(Factory):
    """Gives the one protocol; without the log lines of ClientFactory."""

    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> Any:
        return self._protocol


def _why(failure: Failure) -> str:
    """What a connection failed of, in a line."""
    error = failure.value
    reasons = getattr(error, "args", ())
    if reasons and isinstance(reasons[0], list):
        # OpenSSL's are tuples; others are of service_identity, and about the name.
        words = [
            " ".join(filter(None, reason))
            if isinstance(reason, tuple)
            else "its certificate is for another name"
            for reason in reasons[0]
        ]
        return printable(f"TLS failed: {', '.join(words) or type(error).__name__}")
    return printable(" ".join(str(error).split()) or type(error).__name__)[:300]


@implementer(IPushProducer)
class _Sending:
    """Sends a text as fast as the transport takes it; read in threads."""

    def __init__(self, content: Content, consumer: IConsumer) -> None:
        self._content = content
        self._consumer = consumer
        self._waiting: Deferred[None] | None = None
        self._paused = self._stopped = False

    async def run(self, silence: Callable[[float | None], object]) -> bool:
        """Send all of it, with the dot behind it.

        :param silence: is told for how many seconds the smarthost may be silent; ``None`` while it is not
            the smarthost that is waited for.
        :return: whether that was possible; not if the connection was lost.
        """
        encoder = Encoder()
        self._consumer.registerProducer(self, True)
        try:
            while not self._stopped:
                chunk = await self._content.read(CHUNK)
                if not chunk and not self._stopped:
                    silence(None)
                    await self._content.before_end()
                if self._stopped:
                    break
                silence(SILENCE)
                self._consumer.write(encoder.feed(chunk) if chunk else encoder.finish() + b".\r\n")
                if not chunk:
                    return True
                if self._paused:
                    self._waiting = Deferred()
                    await self._waiting
            return False
        finally:
            self._consumer.unregisterProducer()

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = True

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = False
        self._go_on()

    def stopProducing(self) -> None:
        """See ``IPushProducer``."""
        self._stopped = True
        self._go_on()

    def _go_on(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)


@cache
def _client_class() -> Any:
    """The client's class, over one that cannot be imported before a reactor is there."""
    from twisted.mail.smtp import (
        CramMD5ClientAuthenticator,
        ESMTPClient,
        LOGINAuthenticator,
        PLAINAuthenticator,
    )

    base: Any = ESMTPClient

    class Plain(PLAINAuthenticator):
        """RFC 4616 without an identity to act as, which some servers take for a question of its own."""

        def challengeResponse(self, secret: bytes, chal: object = None) -> bytes:
            """See ``IClientAuthentication``."""
            return b"\0%b\0%b" % (self.user, secret)

    class Client(base):
        """Hands on one message, and is done with the reply behind it."""

        # Twisted's log of the conversation has the password in it.
        debug = False
        timeout = SILENCE
        MAX_LENGTH = LINE

        def __init__(
            self,
            handing: Handing,
            entry: Entry,
            content: Content,
            clock: IReactorTime,
            done: Deferred[Result],
        ) -> None:
            credentials = handing.credentials
            secret = credentials.password.encode("utf-8") if credentials is not None else None
            super().__init__(secret, handing.tls, _ehlo_name(handing.host))
            self.requireTransportSecurity = handing.tls is not None
            self.requireAuthentication = credentials is not None
            self._user = credentials.user.encode("utf-8") if credentials is not None else b""
            if credentials is not None:
                # Over TLS: what is stored is not worth more than the connection.
                for kind in (Plain, LOGINAuthenticator, CramMD5ClientAuthenticator):
                    self.registerAuthenticator(kind(self._user))
            self._host = handing.smarthost.host
            self._entry, self._content, self._clock = entry, content, clock
            self._done: Deferred[Result] | None = done
            self._offered: dict[str, str] = {}
            #: Replies to RCPT, and who was accepted.
            self._outcomes: dict[int, Outcome] = {}
            self._accepted: list[int] = []
            self._left: list[int] = []
            self._sending: _Sending | None = None
            self._text_sent = False
            # What the smarthost was told to log in, once it was, in each form that it may repeat.
            self._secrets: Sequence[bytes] = ()
            self._challenges = 0

        def callLater(self, period: float, func: Callable[[], None]) -> Any:
            """The timeouts' clock."""
            return self._clock.callLater(period, func)

        # -- ends -----------------------------------------------------------------

        def _finish(self, result: Result) -> None:
            done, self._done = self._done, None
            if done is not None:
                done.callback(result)

        def _quit(self, result: Result) -> None:
            """The result is known; what comes behind QUIT does not matter."""
            self._expect(range(1000), self.smtpState_disconnect, self.smtpState_disconnect)
            self.setTimeout(10)
            self.sendLine(b"QUIT")
            self._finish(result)

        def _troubled(self, text: str, *, login: bool = False) -> None:
            """No recipient is to blame: those without an answer are tried again."""
            self._finish(Result(self._outcomes_so_far(text), Trouble(text, login)))

        def _outcomes_so_far(self, why: str) -> Mapping[int, Outcome]:
            waiting = Outcome(Status.WAITING, "4.4.2", why, remote=False)
            undecided = [*self._accepted, *self._left]
            return {**self._outcomes, **dict.fromkeys(undecided, waiting)}

        def give_up(self) -> None:
            """End it now."""
            self._troubled("the server was stopped meanwhile")
            self.transport.abortConnection()

        def sendError(self, exc: Any) -> None:
            """Twisted's client cannot go on: greeting, EHLO, STARTTLS, AUTH, a reply that is none."""
            self._cannot_go_on(exc.code, exc.resp)

        def _cannot_go_on(self, code: int, resp: Any, *, login: bool = False) -> None:
            text = resp if isinstance(resp, str) else resp.decode("utf-8", "replace")
            said = f"{code} " if code >= 0 else ""
            self._troubled(printable(f"{self._host}: {said}{' '.join(text.split())}")[:300], login=login)
            self.transport.abortConnection()

        def smtpState_disconnect(self, code: int, resp: bytes) -> None:
            """QUIT was answered."""
            self.transport.abortConnection()

        def lineReceived(self, line: bytes) -> None:
            """A reply's next line."""
            if line[3:4] != b"-":
                super().resetTimeout()
            if _REPLY.match(line) is None:
                self._cannot_go_on(-1, b"this is no reply: " + self._without_secrets(line))
            elif len(self.resp) >= LINES:
                self._cannot_go_on(-1, f"a reply has more than {LINES} lines")
            else:
                asked = self._okresponse in (self.esmtpState_challenge, self.smtpState_maybeAuthenticated)
                # A challenge is answered as it is, and not shown.
                challenge = asked and line[:3] == b"334"
                super().lineReceived(line if challenge else line[:4] + self._without_secrets(line[4:]))

        def resetTimeout(self) -> None:
            """Not by each line: a reply has its time as a whole."""

        def authenticate(self, code: int, resp: bytes, items: Mapping[bytes, bytes]) -> None:
            """Log in, if there are credentials."""
            if self.secret is not None:
                plain = b"\0%b\0%b" % (self._user, self.secret)
                self._secrets = [b64encode(plain), b64encode(self.secret), self.secret]
            super().authenticate(code, resp, items)

        def _without_secrets(self, text: bytes) -> bytes:
            """Of a reply, which logs and notices show; some servers repeat what they do not understand."""
            for secret in self._secrets:
                text = text.replace(secret, b"(masked)")
            return text

        def lineLengthExceeded(self, line: bytes) -> None:
            """A reply without an end."""
            self._cannot_go_on(-1, f"a line of a reply is longer than {LINE} octets")

        def timeoutConnection(self) -> None:
            """The smarthost is silent."""
            self._troubled(f"{self._host} was silent for too long")
            self.transport.abortConnection()

        def connectionLost(self, reason: Failure) -> None:
            """The connection is gone; whether a message that was sent as a whole was taken is not known."""
            super().connectionLost(reason)
            if self._sending is not None:
                self._sending.stopProducing()
            self._troubled(f"the connection to {self._host} was lost: {_why(reason)}")

        # -- before MAIL ------------------------------------------------------------

        def smtpState_helo(self, code: int, resp: bytes) -> None:
            """The smarthost does not know EHLO."""
            self._offered = {}
            super().smtpState_helo(code, resp)
            # Twisted's would say HELO again and again.
            self._failresponse = self.smtpConnectionFailed

        def esmtpState_serverConfig(self, code: int, resp: bytes) -> None:
            """EHLO was answered: the first line is a name, the others are extensions."""
            lines = resp.decode("utf-8", "replace").split("\n")[1:]
            self._offered = {
                word.upper(): rest for word, _, rest in (line.strip().partition(" ") for line in lines)
            }
            # Twisted's looks for keywords as it would write them itself (RFC 5321 section 2.4: any case).
            self.tryTLS(code, resp, {key.encode(): rest.encode() for key, rest in self._offered.items()})

        def _authResponse(self, auth: Any, challenge: bytes) -> None:
            """Answer a challenge."""
            self._challenges += 1
            if self._challenges > CHALLENGES:
                self._cannot_go_on(334, b"another challenge where name and password were sent")
            else:
                super()._authResponse(auth, challenge)

        def esmtpAUTHDeclined(self, code: int, resp: bytes) -> None:
            """AUTH failed; RFC 4954 section 6: 4xx (454, 432) passes, 5xx does not."""
            self._cannot_go_on(code, resp, login=500 <= code < 600)

        # A mechanism that is refused at once.
        esmtpAUTHServerError = esmtpAUTHDeclined
        # Twisted would try PLAIN a second time, and each refused password may count towards being locked out.
        _esmtpState_plainAuth = esmtpAUTHDeclined

        def esmtpState_starttls(self, code: int, resp: bytes) -> None:
            """STARTTLS was accepted: what came behind it in clear text could be anybody's."""
            if self.clearLineBuffer():
                self._troubled(f"{self._host} sent clear text behind STARTTLS")
                self.transport.abortConnection()
                return
            super().esmtpState_starttls(code, resp)

        # -- MAIL, RCPT, DATA -------------------------------------------------------

        def smtpState_from(self, code: int, resp: bytes) -> None:
            """All is ready."""
            entry = self._entry
            waiting = entry.numbers(Status.WAITING)
            if (outcome := impossible(entry, self._content, self._offered, self._host)) is not None:
                self._quit(Result(dict.fromkeys(waiting, outcome)))
                return
            self._left = list(waiting)
            parameters = mail_parameters(entry, self._content, self._offered)
            # By its first digit, as all others: what is no refusal must not become the end of a message.
            self._expect(range(200, 300), self._mail_accepted, self._mail_refused)
            self.sendLine(b" ".join([b"MAIL FROM:<%b>" % entry.sender.encode("utf-8"), *parameters]))

        def _expect(
            self, codes: Sequence[int], ok: Callable[..., object], failed: Callable[..., object]
        ) -> None:
            states: Any = self
            states._expected, states._okresponse, states._failresponse = codes, ok, failed

        def _mail_refused(self, code: int, resp: bytes) -> None:
            if code in _OF_LOGIN or code in _PASSES:
                self._cannot_go_on(code, resp, login=code in _OF_LOGIN)
                return
            left, self._left = self._left, []
            self._quit(Result(dict.fromkeys(left, outcome_of(code, resp))))

        def _mail_accepted(self, code: int, resp: bytes) -> None:
            self._expect(range(1000), self._recipient_answered, self._recipient_answered)
            self._next_recipient()

        def _next_recipient(self) -> None:
            if self._left:
                one = self._entry.recipients[self._left[0]]
                line = b"RCPT TO:<%b>" % one.address.encode("utf-8")
                if "DSN" in self._offered:
                    if one.notify:
                        line += b" NOTIFY=" + ",".join(one.notify).encode("ascii")
                    if one.original:
                        line += b" ORCPT=" + one.original.encode("utf-8")
                self.sendLine(line)
            elif self._accepted:
                self._expect((354,), self._data_accepted, self._ended)
                self.sendLine(b"DATA")
            else:
                self._quit(Result(self._outcomes))

        def _recipient_answered(self, code: int, resp: bytes) -> None:
            if code == _CLOSING:
                self._cannot_go_on(code, resp)
                return
            number = self._left.pop(0)
            outcome = outcome_of(code, resp)
            if 200 <= code < 300:
                self._accepted.append(number)
            else:
                if code == 552 and outcome.enhanced in ("5.0.0", "5.5.3"):
                    # RFC 5321 section 4.5.3.1.10: it may mean too many recipients, and is taken for 452.
                    outcome = Outcome(Status.WAITING, "4.5.3", outcome.text)
                self._outcomes[number] = outcome
            self._next_recipient()

        def _data_accepted(self, code: int, resp: bytes) -> None:
            # It comes behind the text; what comes before is an end as well.
            self._expect(range(200, 300), self._ended, self._ended)
            self._sending = _Sending(self._content, self.transport)
            sending = Deferred.fromCoroutine(self._sending.run(self.setTimeout))
            sending.addCallbacks(self._sent, self._cannot_read)

        def _sent(self, whole: bool) -> None:
            self._text_sent = whole

        def _cannot_read(self, why: Failure) -> None:
            # Without its last line it is no message for the smarthost.
            self._troubled(f"it cannot be sent to its end: {_why(why)}")
            self.transport.abortConnection()

        def _ended(self, code: int, resp: bytes) -> None:
            """The reply behind the text, or one that refuses DATA: for all who were accepted."""
            if code == _CLOSING:
                self._cannot_go_on(code, resp)
                return
            if 200 <= code < 300 and not self._text_sent:
                # It cannot have taken what it has not got: nobody is to lose a message by that.
                text = f"{self._host} answered {code} before it had the message"
                self._finish(Result(self._outcomes_so_far(text)))
                self.transport.abortConnection()
                return
            outcome = outcome_of(code, resp)
            accepted, self._accepted = self._accepted, []
            for number in accepted:
                one = self._entry.recipients[number]
                status = outcome.status
                if status is Status.HANDED_ON and "SUCCESS" in one.notify and "DSN" not in self._offered:
                    status = Status.RELAYED
                self._outcomes[number] = Outcome(status, outcome.enhanced, outcome.text)
            if self._sending is not None and not 200 <= code < 300:
                # It may have come in the middle of the text, and then QUIT would be a line of that.
                self._finish(Result(self._outcomes))
                self.transport.abortConnection()
            else:
                self._quit(Result(self._outcomes))

    return Client


def _ehlo_name(host: str) -> bytes:
    """This server's name as EHLO has it."""
    try:
        return host.encode("idna")
    except UnicodeError:
        return b"localhost"
