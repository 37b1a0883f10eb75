"""From events to explanations: who follows the sessions and asks what there is to say."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ... import limits
from ...events import (
    Connected,
    ConnectionRejected,
    Delivered,
    Ended,
    InputDiscarded,
    LineReceived,
    LoggedIn,
    LoginFailed,
    MessageRemoved,
    Noted,
    Queued,
    Refused,
    ReplySent,
    TextReceived,
    TLSFailed,
    TLSStarted,
)
from ...interfaces import Channel
from .clients import guess
from .conversation import Turn
from .explanation import N_, Explanation, Say, clause, say_in
from .handshakes import failed_handshake
from .pop3 import POP3
from .smtp import SMTP

__all__ = ["Explainer"]

#: Sessions that are followed at once; the oldest is forgotten.
_FOLLOWED = 10_000
#: Commands of a session that its client is known by.
_COMMANDS = 40
#: Octets of what is no command.
_SIGN = 16
#: Seconds between two lines of which a person is the likeliest reason.
_TYPED = 1.0


@dataclass
class _Session:
    """What is known of a session that goes on."""

    conversation: POP3 | SMTP
    protocol: str
    last: float
    waiting: deque[Turn] = field(default_factory=deque)
    partial: bytes = b""
    commands: list[str] = field(default_factory=list)
    #: Pauses before lines, of a second at least, and how many lines there were.
    pauses: int = 0
    lines: int = 0
    #: Seconds from a command to the end of its reply, added up.
    busy: float = 0.0
    deleted: int = 0
    #: Octets that were waiting behind the last line: those of commands that came with it.
    behind: int = 0
    #: Octets of all that was told as lines, as text and as thrown away.
    told: int = 0
    tls: bool = False
    quit: bool = False


class Explainer:
    """Explains events, one after the other as they happened.

    :param language: of :data:`pop3toy.languages.LANGUAGES`.
    """

    def __init__(self, language: str = "en") -> None:
        self._say: Say = say_in(language)
        self._sessions: OrderedDict[int, _Session] = OrderedDict()

    def explain(self, event: Any) -> Sequence[Explanation]:
        """What there is to say about an event.

        :param event: of :data:`~pop3toy.events.KINDS`; of a session all of them, in their order.
        """
        if isinstance(event, Connected):
            return self._connected(event)
        session = self._sessions.get(event.session)
        if session is None:
            return ()
        match event:
            case LineReceived():
                return self._line(session, event)
            case ReplySent():
                return self._reply(session, event)
            case TextReceived():
                return self._text(session, event)
            case TLSStarted():
                return self._tls(session, event)
            case InputDiscarded():
                return self._discarded(session, event)
            case LoggedIn():
                return self._logged_in(session)
            case LoginFailed():
                return self._login_failed(session, event)
            case TLSFailed():
                return [failed_handshake(event.why, self._say)]
            case Noted():
                return [
                    self._note(
                        "This was done on purpose, by a rule or by hand; what comes next may be what no"
                        " server and no client would do by itself."
                    )
                ]
            case MessageRemoved():
                session.conversation.removed()
                session.deleted += 1
            case Delivered():
                return self._delivered(event)
            case Queued():
                return [
                    self._note(
                        "The message is for somebody elsewhere: it lies in the queue, durably, until the"
                        " smarthost has taken it, or until it is given up and its sender is told.",
                        clause(5321, "4.5.4"),
                    )
                ]
            case Refused():
                # The reply behind it says why.
                return ()
            case ConnectionRejected():
                return [
                    self._note(
                        "The client is sent away before the conversation begins: there are too many"
                        " connections, or the server is stopping. It may come back later."
                    )
                ]
            case Ended():
                del self._sessions[event.session]
                return self._ended(session, event)
        return ()

    def client(self, session: int) -> str | None:
        """Which program it seems to be; ``None`` if nothing tells."""
        found = self._sessions.get(session)
        known = self._guess(found) if found is not None else None
        return known[0] if known is not None else None

    def _note(self, text: str, where: str = "", kind: str = "note", **values: object) -> Explanation:
        return Explanation(kind, self._say(text, **values), where)

    # -- the events --------------------------------------------------------------------

    def _connected(self, event: Connected) -> Sequence[Explanation]:
        conversation: POP3 | SMTP
        if event.protocol == "POP3":
            conversation, state = POP3(self._say, event.channel), "AUTHORIZATION"
        else:
            conversation, state = SMTP(self._say, event.channel, event.protocol), ""
        session = _Session(conversation, event.protocol, event.at)
        session.waiting.append(Turn("GREETING", b"", event.at))
        session.tls = event.channel.tls is not None
        self._sessions[event.session] = session
        while len(self._sessions) > _FOLLOWED:
            self._sessions.popitem(last=False)
        said = []
        if session.tls:
            said.append(
                self._note(
                    "TLS from the first octet on: the handshake comes before the greeting.",
                    clause(8314, "3"),
                )
            )
        if state:
            said.append(self._state(state))
        return said

    def _state(self, state: str) -> Explanation:
        texts = {
            "AUTHORIZATION": N_("State AUTHORIZATION: the client has to say who it is."),
            "TRANSACTION": N_("State TRANSACTION: the client may look at messages, fetch and mark them."),
            "UPDATE": N_("State UPDATE: what was marked is removed now."),
        }
        return self._note(
            texts[state],
            clause(1939, {"AUTHORIZATION": "4", "TRANSACTION": "5", "UPDATE": "6"}[state]),
            "state",
        )

    def _line(self, session: _Session, event: LineReceived) -> Sequence[Explanation]:
        pause = event.at - session.last
        session.lines += 1
        session.pauses += pause >= _TYPED
        # It came with the line before, or before that had its reply.
        pipelined = bool(session.behind or session.waiting)
        session.behind = event.behind
        session.told += event.octets
        turn = Turn(event.command, event.line, event.at)
        in_exchange = session.conversation.in_exchange
        said = [self._measure(event, pause)]
        said += session.conversation.command(turn)
        if pipelined and (event.command or in_exchange):
            said.append(
                self._note(
                    "It came without waiting for the reply to the line before.",
                    clause(2449, "6.6") if session.protocol == "POP3" else clause(2920),
                )
            )
        bare = not event.line.startswith(b"****") and event.octets == len(event.line) + 1
        if bare and session.lines == 1 and not any(one.kind == "hint" for one in said):
            said.append(
                self._note(
                    "The line ended with LF alone, which is taken from people; programs have to send CR"
                    " and LF (nc -C, openssl s_client -crlf).",
                    clause(1939, "3"),
                    "hint",
                )
            )
        session.waiting.append(turn)
        session.last = event.at
        if len(session.commands) < _COMMANDS and not in_exchange:
            session.commands.append(("+" if pipelined else "") + _sign(turn))
        session.quit = session.quit or event.command == "QUIT"
        if (
            event.command == "QUIT"
            and isinstance(session.conversation, POP3)
            and session.conversation.logged_in
        ):
            said.append(self._state("UPDATE"))
        return said

    def _text(self, session: _Session, event: TextReceived) -> Sequence[Explanation]:
        session.behind = 0
        session.told += event.octets
        if not isinstance(session.conversation, SMTP):
            return ()
        said = session.conversation.text(event.data, event.octets, last=event.last)
        if event.last:
            session.waiting.append(Turn("TEXT", b".", event.at))
            session.last = event.at
        return said

    def _measure(self, event: LineReceived, pause: float) -> Explanation:
        return self._note(
            "{pause} s after the line before, {octets} octets, in state {state}",
            kind="measure",
            pause=f"{pause:.3f}",
            octets=event.octets,
            state=event.state,
        )

    def _reply(self, session: _Session, event: ReplySent) -> Sequence[Explanation]:
        if not session.waiting:
            # The last words of a connection that the server ends.
            session.waiting.append(Turn("", b"", event.at))
        turn = session.waiting[0]
        said: list[Explanation] = []
        *lines, tail = (session.partial + event.data).split(b"\r\n")
        # A line without an end is not kept.
        session.partial = tail[: limits.TRANSCRIPT_COLUMNS * 4]
        for place, line in enumerate(lines):
            turn.lines += 1
            if turn.lines == 1:
                turn.first = line
            said += [one._replace(line=place) for one in session.conversation.reply_line(turn, line)]
        session.last = event.at
        if event.last:
            session.partial = b""
            session.waiting.popleft()
            session.busy += event.at - turn.at
            said += session.conversation.reply(turn)
            if not event.handed_over:
                said.append(self._note("This was not sent: the client had gone.", kind="warning"))
        return said

    def _tls(self, session: _Session, event: TLSStarted) -> Sequence[Explanation]:
        session.behind = 0
        channel = session.conversation.channel
        session.conversation.channel = Channel(channel.host, channel.local, event.tls)
        session.tls = True
        said = [
            self._note(
                "From here on all is encrypted: {version} with {cipher}.",
                clause(8446),
                version=event.tls.version,
                cipher=event.tls.cipher,
            )
        ]
        if event.tls.client_name:
            said.append(
                self._note(
                    "The client has shown a certificate of {name}.",
                    clause(8446, "4.4.2"),
                    name=event.tls.client_name,
                )
            )
        if session.commands:
            said.append(
                self._note(
                    "What was said before is forgotten, a name behind USER or EHLO too; the client has"
                    " to ask again what the server can do.",
                    clause(2595, "4") if session.protocol == "POP3" else clause(3207, "4.2"),
                )
            )
        return said

    def _discarded(self, session: _Session, event: InputDiscarded) -> Sequence[Explanation]:
        session.behind = 0
        session.told += event.octets
        behind_tls = bool(session.commands) and session.commands[-1].lstrip("+") in ("STLS", "STARTTLS")
        if behind_tls:
            return [
                self._note(
                    "{octets} octets came in clear text behind it and are thrown away: they could be"
                    " somebody else's, who would speak within TLS then.",
                    clause(3207, "6"),
                    "warning",
                    octets=event.octets,
                )
            ]
        return [
            self._note(
                "{octets} octets of a line that is too long are thrown away.",
                clause(2449, "4"),
                octets=event.octets,
            )
        ]

    def _logged_in(self, session: _Session) -> Sequence[Explanation]:
        session.conversation.logged_in = True
        if session.protocol != "POP3":
            return [
                self._note(
                    "The client is logged in, and may send mail to anywhere it is allowed to.",
                    clause(6409, "4.3"),
                    "state",
                )
            ]
        return [self._state("TRANSACTION")]

    def _login_failed(self, session: _Session, event: LoginFailed) -> Sequence[Explanation]:
        said = [
            self._note(
                "Nobody is let in: {user}, by {mechanism}.",
                kind="state",
                user=event.user or "?",
                mechanism=event.mechanism or "?",
            )
        ]
        if event.why == "AUTH":
            said.append(
                self._note(
                    "After each failure the answer comes later, and after some of them the connection"
                    " ends: passwords cannot be tried out fast."
                )
            )
        return said

    def _delivered(self, event: Delivered) -> Sequence[Explanation]:
        return [
            self._note(
                "The message lies in the maildrop. Two lines were put before its header: Return-Path, the"
                " envelope's sender, and Received, from whom it came, how and when.",
                clause(5321, "4.4"),
            ),
            self._note(
                "With 250 the server answers for the message: it must not get lost from now on.",
                clause(5321, "6.1"),
            ),
        ]

    # -- the end -------------------------------------------------------------------------

    def _guess(self, session: _Session) -> tuple[str, str] | None:
        if session.protocol != "POP3":
            return None
        typed = session.lines > 2 and session.pauses >= session.lines / 2
        return guess(session.commands, self._say, typed=typed)

    def _ended(self, session: _Session, event: Ended) -> Sequence[Explanation]:
        say = self._say
        said = list(session.conversation.ended(event.why))
        if event.why == "timeout":
            said.append(
                self._note(
                    "The client was silent for too long: the server may end the session then.",
                    clause(1939, "3") if session.protocol == "POP3" else clause(5321, "4.5.3.2.7"),
                )
            )
        left = event.received - session.told
        if event.why in ("dropped", "timeout") and left > 0 and not (session.behind or session.waiting):
            said.append(
                self._note(
                    "The last {octets} octets had no line end, which is CR and LF, so they were no"
                    " command; a CR alone ends no line.",
                    clause(1939, "3") if session.protocol == "POP3" else clause(5321, "2.3.8"),
                    "hint",
                    octets=left,
                )
            )
        if event.why == "limit":
            said.append(
                self._note(
                    "Too many mistakes, or too many connections: the server ends the session for that."
                )
            )
        if event.why == "shutdown":
            said.append(self._note("The server is stopping, and waits for nobody any longer."))
        if session.tls and event.why == "dropped" and not session.quit and session.pauses:
            said.append(
                self._note(
                    "Was it openssl s_client? It takes a line that begins with Q for its own end, and R"
                    " for a new handshake: give it -quiet.",
                    kind="hint",
                )
            )
        fetched = say(
            "{count} message fetched", "{count} messages fetched", event.retrieved, count=event.retrieved
        )
        removed = say("{count} removed", "{count} removed", event.removed, count=event.removed)
        measures = say(
            N_("{seconds} s, of which the server needed {busy} s; {received} octets came, {sent} went"),
            seconds=f"{event.seconds:.3f}",
            busy=f"{session.busy:.3f}",
            received=event.received,
            sent=event.sent,
        )
        text = f"{measures}; {fetched}, {removed}" if session.protocol == "POP3" else measures
        said.append(Explanation("summary", text))
        found = self._guess(session)
        if found is not None:
            said.append(
                self._note(
                    "The client seems to be {client}: {sign}.",
                    kind="summary",
                    client=found[0],
                    sign=found[1],
                )
            )
        return said


def _sign(turn: Turn) -> str:
    """A command as clients are known by it."""
    if turn.keyword == "AUTH" and not (turn.arguments and turn.arguments[0]):
        return "AUTH-LIST"
    if turn.keyword == "AUTH" and len(turn.arguments) > 1:
        return "AUTH-FIRST"
    if turn.keyword == "TOP" and len(turn.arguments) > 1 and len(turn.arguments[1]) > 6:
        return "TOP-ALL"
    if turn.keyword == "UIDL" and turn.arguments:
        return "UIDL-ONE"
    if turn.keyword == "LIST" and turn.arguments:
        return "LIST-ONE"
    return turn.keyword or turn.line[:_SIGN].decode("ascii", "replace").partition(" ")[0].upper() or "?"
