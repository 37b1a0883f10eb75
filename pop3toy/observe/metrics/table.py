"""All metrics: their names, kinds and labels, and what they say.  Plain values, which need no library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

__all__ = ["METRICS", "NAMES", "Metric"]

#: Seconds: a login from memory takes less than one of a thousand, a slow hash a tenth, a penalty several.
_QUICK: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
#: Seconds that clients are connected.
_LONG: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0)


class Metric(NamedTuple):
    """One metric."""

    #: As a query has it; histograms have ``_bucket``, ``_sum`` and ``_count`` behind it.
    name: str
    kind: Literal["counter", "gauge", "histogram"]
    #: A sentence without its full stop.
    says: str
    labels: tuple[str, ...] = ()
    #: Of a histogram: upper bounds, in seconds.
    buckets: tuple[float, ...] = ()
    #: Worked out when somebody asks, by the process that answers; all others are counted as things happen.
    asked: bool = False


METRICS: Final = (
    Metric("pop3toy_connections", "gauge", "Clients that are connected now", ("protocol",)),
    Metric("pop3toy_connections_opened_total", "counter", "Connections that were made", ("protocol",)),
    Metric(
        "pop3toy_connections_rejected_total",
        "counter",
        "Connections that were sent away by a limit, or because the server was stopping",
        ("protocol", "reason"),
    ),
    Metric("pop3toy_connections_ended_total", "counter", "How connections ended", ("protocol", "why")),
    Metric("pop3toy_connection_seconds", "histogram", "How long connections lasted", ("protocol",), _LONG),
    Metric("pop3toy_sessions", "gauge", "Clients that are logged in now", ("protocol",)),
    Metric(
        "pop3toy_logins_total",
        "counter",
        "Logins by their result: success, or the response code of the refusal",
        ("protocol", "mechanism", "result"),
    ),
    Metric(
        "pop3toy_login_seconds",
        "histogram",
        "From a login's last line to its result, with the password, the mailbox, and what was waited for",
        ("mechanism", "result"),
        _QUICK,
    ),
    Metric(
        "pop3toy_locks_refused_total",
        "counter",
        "Logins that were refused because the mailbox was locked, or had too many sessions",
    ),
    Metric(
        "pop3toy_commands_total",
        "counter",
        "Commands by their answer: ok, continue, error, or none (the client had gone)",
        ("protocol", "command", "status"),
    ),
    Metric(
        "pop3toy_refusals_total",
        "counter",
        "Replies that refuse something, by the response code of POP3 or the code of SMTP",
        ("protocol", "code"),
    ),
    Metric(
        "pop3toy_answer_seconds",
        "histogram",
        "From a command to the first octets of its answer",
        ("protocol", "command"),
        _QUICK,
    ),
    Metric("pop3toy_received_bytes_total", "counter", "Octets from clients, TLS undone", ("protocol",)),
    Metric("pop3toy_sent_bytes_total", "counter", "Octets to clients, before TLS", ("protocol",)),
    Metric("pop3toy_messages_retrieved_total", "counter", "Messages of which RETR handed over all"),
    Metric("pop3toy_messages_removed_total", "counter", "Messages that QUIT removed"),
    Metric(
        "pop3toy_messages_delivered_total",
        "counter",
        "Messages that came in, once for each user who got one",
        ("protocol",),
    ),
    Metric(
        "pop3toy_delivered_bytes_total",
        "counter",
        "Octets of messages that came in, each once",
        ("protocol",),
    ),
    Metric(
        "pop3toy_delivery_seconds",
        "histogram",
        "From the end of a message's text to where it is durable",
        ("protocol",),
        _QUICK,
    ),
    Metric(
        "pop3toy_outgoing_total",
        "counter",
        "Mail for elsewhere: messages that were queued, and recipients for whom one was handed_on to the"
        " smarthost, deferred (tried in vain), or bounced (given up)",
        ("result",),
    ),
    Metric("pop3toy_queue_messages", "gauge", "Messages that wait to be handed on; with --smarthost"),
    Metric(
        "pop3toy_queue_oldest_seconds",
        "gauge",
        "For how long the oldest of them has waited; with --smarthost",
    ),
    Metric(
        "pop3toy_smarthost_login_refused",
        "gauge",
        "1 if the smarthost does not take name and password, else 0; with --smarthost",
    ),
    Metric("pop3toy_tls_handshakes_total", "counter", "TLS handshakes", ("protocol", "version")),
    Metric("pop3toy_tls_failures_total", "counter", "TLS handshakes that failed", ("protocol",)),
    Metric(
        "pop3toy_store_open_seconds", "histogram", "How long the store took to open a mailbox", (), _QUICK
    ),
    Metric(
        "pop3toy_thread_job_seconds",
        "histogram",
        "How long work in threads took, with the wait for one: passwords (checking them), disk (reading and"
        " removing), scans (counting), delivery (writing), accounts (asking a store for them),"
        " expiry (listing for old mail), queue (mail that goes out)",
        ("pool",),
        _QUICK,
    ),
    Metric(
        "pop3toy_thread_jobs", "gauge", "Work in threads now: running, or waiting for one", ("pool", "state")
    ),
    Metric("pop3toy_threads", "gauge", "Threads that there are now", ("pool",)),
    Metric("pop3toy_workers", "gauge", "Worker processes that serve now; with --workers", (), asked=True),
    Metric(
        "pop3toy_worker_restarts_total",
        "counter",
        "Worker processes that ended and were started again; with --workers",
        (),
        asked=True,
    ),
    Metric("pop3toy_healthy", "gauge", "1 if /healthz finds nothing wrong, else 0", (), asked=True),
    Metric("pop3toy_draining", "gauge", "1 while no more clients are taken, else 0", (), asked=True),
    Metric(
        "pop3toy_certificate_expiry_timestamp_seconds",
        "gauge",
        "When the first of the certificates expires, in seconds since the epoch; with TLS",
        (),
        asked=True,
    ),
    Metric(
        "pop3toy_build_info",
        "gauge",
        "1, with the versions in its labels",
        ("version", "python", "twisted"),
        asked=True,
    ),
)

#: The same by their names.
NAMES: Final[Mapping[str, Metric]] = {one.name: one for one in METRICS}
