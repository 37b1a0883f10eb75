"""Counts what observers are told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric as Family
from zope.interface import implementer

from ...events import (
    Bounced,
    Connected,
    ConnectionRejected,
    Delivered,
    Ended,
    Event,
    InputDiscarded,
    LineReceived,
    LoggedIn,
    LoginFailed,
    MessageRemoved,
    MessageRetrieved,
    Queued,
    ReplySent,
    SendDeferred,
    Sent,
    TextReceived,
    TLSFailed,
    TLSStarted,
)
from ...interfaces import IObserver
from .labels import (
    COMMANDS,
    MECHANISMS,
    OTHER,
    POP3_CODES,
    PROTOCOLS,
    RESPONSE,
    SMTP_CODES,
    TEXT,
    TLS_VERSIONS,
    WHYS,
    known,
    reason,
)
from .table import METRICS

__all__ = ["Metrics", "Registry"]

#: Lines of one client without an answer that are remembered; no more are carried out in one turn.
_WAITING: Final = 10_000


class Registry(CollectorRegistry):
    """A registry of one server, without the times at which series began: they double what is sent."""

    def collect(self) -> Iterable[Family]:
        """See prometheus_client."""
        for family in super().collect():
            family.samples = [one for one in family.samples if not one.name.endswith("_created")]
            yield family


class _Session:
    """What is remembered of a connection."""

    __slots__ = (
        "began_text",
        "exchange",
        "last_line",
        "logged_in",
        "protocol",
        "text_at",
        "waiting",
        "whole",
    )

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        #: Commands that have no answer yet, each with the time at which it came.
        self.waiting: deque[tuple[str, float]] = deque(maxlen=_WAITING)
        #: The last reply has asked for more of AUTH.
        self.exchange = False
        #: The last reply is out as a whole, and what comes next begins one.
        self.whole = True
        self.logged_in = False
        self.last_line: float | None = None
        self.text_at: float | None = None


@implementer(IObserver)
class Metrics:
    """The metrics of one server, or of one of its processes.

    :param registry: they are registered there; ``None`` where another process collects them
        (:mod:`~pop3toy.observe.metrics.shared`).
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        made: dict[str, Any] = {}
        for one in METRICS:
            if one.asked:
                continue
            if one.kind == "counter":
                made[one.name] = Counter(one.name, one.says, one.labels, registry=registry)
            elif one.kind == "gauge":
                # Of processes that live: what a dead one had open is closed.
                made[one.name] = Gauge(
                    one.name, one.says, one.labels, registry=registry, multiprocess_mode="livesum"
                )
            else:
                made[one.name] = Histogram(
                    one.name, one.says, one.labels, buckets=one.buckets, registry=registry
                )
        self._made = made
        self._sessions: dict[int, _Session] = {}
        self._series: dict[tuple[str, ...], Any] = {}
        self._handlers: dict[type, Callable[[Any], None]] = {
            Connected: self._connected,
            ConnectionRejected: self._rejected,
            LineReceived: self._line,
            TextReceived: self._text,
            InputDiscarded: self._discarded,
            ReplySent: self._reply,
            TLSStarted: self._tls,
            TLSFailed: self._tls_failed,
            LoggedIn: self._logged_in,
            LoginFailed: self._login_failed,
            MessageRetrieved: lambda event: self._of("pop3toy_messages_retrieved_total").inc(),
            MessageRemoved: lambda event: self._of("pop3toy_messages_removed_total").inc(),
            Delivered: self._delivered,
            Queued: lambda event: self._outgoing("queued"),
            Sent: lambda event: self._outgoing("sent"),
            SendDeferred: lambda event: self._outgoing("deferred", len(event.recipients)),
            Bounced: lambda event: self._outgoing("bounced"),
            Ended: self._ended,
        }
        self.wants = frozenset(self._handlers)

    def observe(self, event: Event) -> None:
        """See :class:`~pop3toy.interfaces.IObserver`."""
        self._handlers[type(event)](event)

    def measured(self, name: str, seconds: float, *labels: str) -> None:
        """Add a duration to a histogram.

        :param labels: words that are known before, in the table's order.
        """
        self._of(name, *labels).observe(seconds)

    def now(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._of(name, *labels).set(value)

    def _of(self, name: str, *labels: str) -> Any:
        """A series; looking one up in prometheus_client takes as long as all the rest."""
        key = (name, *labels)
        found = self._series.get(key)
        if found is None:
            found = self._made[name]
            if labels:
                found = found.labels(*labels)
            self._series[key] = found
        return found

    # -- connections ------------------------------------------------------------------

    def _connected(self, event: Connected) -> None:
        protocol = known(event.protocol, PROTOCOLS)
        self._sessions[event.session] = _Session(protocol)
        self._of("pop3toy_connections", protocol).inc()
        self._of("pop3toy_connections_opened_total", protocol).inc()

    def _rejected(self, event: ConnectionRejected) -> None:
        protocol = known(event.protocol, PROTOCOLS)
        self._of("pop3toy_connections_rejected_total", protocol, reason(event.why)).inc()

    def _ended(self, event: Ended) -> None:
        protocol = known(event.protocol, PROTOCOLS)
        session = self._sessions.pop(event.session, None)
        self._of("pop3toy_connections_ended_total", protocol, known(event.why, WHYS)).inc()
        self._of("pop3toy_connection_seconds", protocol).observe(event.seconds)
        if session is None:
            return
        self._of("pop3toy_connections", protocol).dec()
        if session.logged_in:
            self._of("pop3toy_sessions", protocol).dec()
        for command, _ in session.waiting:
            self._of("pop3toy_commands_total", protocol, command, "none").inc()

    def _tls(self, event: TLSStarted) -> None:
        session = self._sessions.get(event.session)
        protocol = session.protocol if session is not None else OTHER
        version = known(event.tls.version, TLS_VERSIONS)
        self._of("pop3toy_tls_handshakes_total", protocol, version).inc()
        if session is not None:
            session.exchange = False

    def _tls_failed(self, event: TLSFailed) -> None:
        self._of("pop3toy_tls_failures_total", known(event.protocol, PROTOCOLS)).inc()

    # -- what is said -----------------------------------------------------------------

    def _line(self, event: LineReceived) -> None:
        session = self._sessions.get(event.session)
        if session is None:
            return
        protocol = session.protocol
        self._of("pop3toy_received_bytes_total", protocol).inc(event.octets)
        command = event.command or (RESPONSE if session.exchange else OTHER)
        session.waiting.append((known(command, COMMANDS.get(protocol, frozenset())), event.at))
        session.last_line = event.at

    def _text(self, event: TextReceived) -> None:
        session = self._sessions.get(event.session)
        if session is None:
            return
        self._of("pop3toy_received_bytes_total", session.protocol).inc(event.octets)
        if event.last:
            session.waiting.append((TEXT, event.at))
            session.text_at = event.at

    def _discarded(self, event: InputDiscarded) -> None:
        session = self._sessions.get(event.session)
        if session is not None:
            self._of("pop3toy_received_bytes_total", session.protocol).inc(event.octets)

    def _reply(self, event: ReplySent) -> None:
        session = self._sessions.get(event.session)
        if session is None:
            return
        protocol = session.protocol
        if event.handed_over:
            self._of("pop3toy_sent_bytes_total", protocol).inc(event.octets)
        first, session.whole = session.whole, event.last
        if not first:
            return
        status, codes = (_pop3_status if protocol == "POP3" else _smtp_status)(event.data)
        if event.handed_over:
            for code in codes:
                self._of("pop3toy_refusals_total", protocol, code).inc()
        else:
            status = "none"
        # The greeting, and the last words of a server that ends a connection, answer nothing.
        if session.waiting:
            command, came = session.waiting.popleft()
            self._of("pop3toy_commands_total", protocol, command, status).inc()
            session.exchange = status == "continue" and command in ("AUTH", RESPONSE)
            if event.handed_over:
                self._of("pop3toy_answer_seconds", protocol, command).observe(event.at - came)

    # -- logins and mail --------------------------------------------------------------

    def _logged_in(self, event: LoggedIn) -> None:
        self._login(event, "success", "success")
        session = self._sessions.get(event.session)
        if session is not None and not session.logged_in:
            session.logged_in = True
            self._of("pop3toy_sessions", session.protocol).inc()

    def _login_failed(self, event: LoginFailed) -> None:
        self._login(event, known(event.why, POP3_CODES), "failure")
        if event.why == "IN-USE":
            self._of("pop3toy_locks_refused_total").inc()

    def _login(self, event: LoggedIn | LoginFailed, result: str, short: str) -> None:
        protocol, mechanism = known(event.protocol, PROTOCOLS), known(event.mechanism, MECHANISMS)
        self._of("pop3toy_logins_total", protocol, mechanism, result).inc()
        session = self._sessions.get(event.session)
        if session is not None and session.last_line is not None:
            self._of("pop3toy_login_seconds", mechanism, short).observe(event.at - session.last_line)

    def _outgoing(self, result: str, number: int = 1) -> None:
        self._of("pop3toy_outgoing_total", result).inc(number)

    def _delivered(self, event: Delivered) -> None:
        protocol = known(event.protocol, PROTOCOLS)
        self._of("pop3toy_messages_delivered_total", protocol).inc(len(event.uids))
        self._of("pop3toy_delivered_bytes_total", protocol).inc(event.octets)
        session = self._sessions.get(event.session)
        if session is not None and session.text_at is not None:
            self._of("pop3toy_delivery_seconds", protocol).observe(event.at - session.text_at)


def _pop3_status(data: bytes) -> tuple[str, Iterable[str]]:
    """What a reply says by its first line, and the code of what it refuses (RFC 2449 section 8)."""
    if data[:2] == b"+ ":
        return "continue", ()
    if data[:1] == b"+":
        return "ok", ()
    line = data.partition(b"\r\n")[0].partition(b" ")[2]
    code = line[1:].partition(b"]")[0].decode("latin-1") if line.startswith(b"[") else "none"
    return "error", (known(code, POP3_CODES),)


def _smtp_status(data: bytes) -> tuple[str, Iterable[str]]:
    """The same by the code; LMTP has one for each user (RFC 2033 section 4.2), of which the first counts."""
    lines = [line for line in data.split(b"\r\n") if line[3:4] != b"-" and line[:3].isdigit()]
    codes = [known(line[:3].decode("ascii"), SMTP_CODES) for line in lines if line[:1] in b"45"]
    status = {b"2": "ok", b"3": "continue"}.get(data[:1], "error")
    return status, codes
