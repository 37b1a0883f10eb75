"""Metrics: what is counted, what may stand in a label, and what is told by HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from hypothesis import given, settings
from hypothesis import strategies as some
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import IStoreAdmin, MemoryStore, Settings, events
from pop3toy.auth.sasl.names import MECHANISM_NAMES
from pop3toy.auth.throttle.connection_limiter import ConnectionLimiter, ConnectionLimits
from pop3toy.errors import Refusal, StoreTrouble
from pop3toy.interfaces import Channel, TLSFacts
from pop3toy.observe.metrics import labels
from pop3toy.observe.metrics.health import KEPT, Health
from pop3toy.observe.metrics.metrics import Metrics, Registry
from pop3toy.observe.metrics.shared import add_up
from pop3toy.observe.metrics.table import METRICS, NAMES
from pop3toy.pop3.commands import KEYWORDS
from pop3toy.run.monitoring.endpoint import PATIENCE
from pop3toy.run.passwords import site
from pop3toy.run.service import ListeningService
from pop3toy.smtp.policies import LMTP, SMTP, SUBMISSION

from ..memory_world import MemoryCase, StringClient
from ..realserver import DEADLINE

USERS = (("ann", "secret"),)
MAIL = {"ann": [b"Subject: Hello\n\nHello Ann!\n", b"Subject: Bye\n\nBye!\n"]}

#: What each label may be.
WORDS: Mapping[str, frozenset[str]] = {
    "protocol": labels.PROTOCOLS,
    "command": frozenset().union(*labels.COMMANDS.values()),
    "status": frozenset(("ok", "continue", "error", "none")),
    "mechanism": labels.MECHANISMS,
    "result": labels.POP3_CODES | {"success", "failure", "queued", "sent", "deferred", "bounced"},
    "code": labels.POP3_CODES | labels.SMTP_CODES,
    "reason": frozenset(("address", "full", "stopping")),
    "why": labels.WHYS,
    "version": labels.TLS_VERSIONS,
    "pool": frozenset(("passwords", "disk", "scans", "delivery")),
    "state": frozenset(("running", "waiting")),
}

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def values_in(text: str) -> Values:
    """The values of all series by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(values: Values, name: str, **by: str) -> float | None:
    """One of them."""
    return values.get((name, frozenset(by.items())))


def ask(factory: Any, path: str = "/metrics", method: str = "GET", *more: str) -> tuple[int, bytes, bytes]:
    """Status, headers and body of what a site in memory answers at once."""
    client = StringClient(factory)
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *more, "", ""]
    return answer(client.send("\r\n".join(lines).encode()))


def answer(said: bytes) -> tuple[int, bytes, bytes]:
    """Status, headers and body."""
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head.split()[1]), head, body


class ServerCase(MemoryCase):
    """A server in memory that is measured at port 9."""

    def scraped(self, port: int = 9) -> Values:
        """What it says of itself."""
        status, _, body = ask(self.reactor.factory_at(port))
        self.assertEqual(status, 200)
        return values_in(body.decode())

    def assertValue(self, expected: float | None, values: Values, name: str, **by: str) -> None:
        """One value is this."""
        self.assertEqual(value(values, name, **by), expected, (name, by))


class CountingTests(ServerCase):
    """What there is after a conversation that is known."""

    def test_pop3(self) -> None:
        """Connections, logins, commands, refusals, octets, messages."""
        self.started(Settings(port=1, metrics="9", users=USERS, transcript="off"), store=MemoryStore(MAIL))
        lines = [b"USER ann", b"PASS wrong", b"USER ann", b"PASS secret", b"RETR 1", b"RETR 2", b"DELE 2"]
        client = StringClient(self.reactor.factory_at(1))
        sent = len(client.greeting)
        for line in lines:
            sent += len(client.say(line))
            self.reactor.advance(2)
        # The store of an embedding program is asked in a thread, when somebody asks.
        first = StringClient(self.reactor.factory_at(9))
        first.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        self.reactor.deliver()
        during = values_in(answer(first.read())[2].decode())
        self.assertValue(1, during, "pop3toy_connections", protocol="POP3")
        self.assertValue(1, during, "pop3toy_sessions", protocol="POP3")
        sent += len(client.say(b"GIBBERISH", b"RETR 9"))
        sent += len(client.say(b"QUIT"))
        client.leave()
        lines += [b"GIBBERISH", b"RETR 9", b"QUIT"]
        after = self.scraped()
        for name, by, expected in (
            ("pop3toy_connections", {}, 0),
            ("pop3toy_sessions", {}, 0),
            ("pop3toy_connections_opened_total", {}, 1),
            ("pop3toy_connections_ended_total", {"why": "quit"}, 1),
            ("pop3toy_connection_seconds_count", {}, 1),
            ("pop3toy_logins_total", {"mechanism": "USER", "result": "success"}, 1),
            ("pop3toy_logins_total", {"mechanism": "USER", "result": "AUTH"}, 1),
            ("pop3toy_commands_total", {"command": "RETR", "status": "ok"}, 2),
            ("pop3toy_commands_total", {"command": "RETR", "status": "error"}, 1),
            ("pop3toy_commands_total", {"command": "other", "status": "error"}, 1),
            ("pop3toy_commands_total", {"command": "GIBBERISH", "status": "error"}, None),
            ("pop3toy_answer_seconds_count", {"command": "RETR"}, 3),
            ("pop3toy_refusals_total", {"code": "AUTH"}, 1),
            ("pop3toy_refusals_total", {"code": "none"}, 2),
            ("pop3toy_received_bytes_total", {}, sum(len(line) + 2 for line in lines)),
            ("pop3toy_sent_bytes_total", {}, sent),
        ):
            self.assertValue(expected, after, name, protocol="POP3", **by)
        self.assertValue(2, after, "pop3toy_messages_retrieved_total")
        self.assertValue(1, after, "pop3toy_messages_removed_total")
        self.assertValue(1, after, "pop3toy_login_seconds_count", mechanism="USER", result="success")
        self.assertValue(1, after, "pop3toy_login_seconds_count", mechanism="USER", result="failure")
        self.assertValue(1, after, "pop3toy_store_open_seconds_count")

    def test_smtp(self) -> None:
        """Mail that comes in: commands with the text as one, deliveries, refusals by code, octets."""
        self.started(Settings(port=1, smtp_port=2, metrics="9", transcript="off"))
        client = StringClient(self.reactor.factory_at(2))
        lines = [b"EHLO me", b"MAIL FROM:<a@example.org>", b"RCPT TO:<b@example.org>", b"DATA"]
        text = [b"Subject: x", b"", b"x", b"."]
        sent = len(client.greeting)
        for line in (*lines, *text, b"FOO", b"QUIT"):
            sent += len(client.say(line))
        client.leave()
        after = self.scraped()
        for command, status in (
            ("EHLO", "ok"), ("MAIL", "ok"), ("DATA", "continue"), ("(text)", "ok"), ("other", "error"),
            ("QUIT", "ok"),
        ):  # fmt: skip
            self.assertValue(
                1, after, "pop3toy_commands_total", protocol="SMTP", command=command, status=status
            )
        self.assertValue(1, after, "pop3toy_refusals_total", protocol="SMTP", code="500")
        self.assertValue(1, after, "pop3toy_messages_delivered_total", protocol="SMTP")
        self.assertValue(1, after, "pop3toy_delivery_seconds_count", protocol="SMTP")
        octets = sum(len(line) + 2 for line in (*lines, *text, b"FOO", b"QUIT"))
        self.assertValue(octets, after, "pop3toy_received_bytes_total", protocol="SMTP")
        self.assertValue(sent, after, "pop3toy_sent_bytes_total", protocol="SMTP")

    def test_exchange(self) -> None:
        """A line within AUTH's exchange is no unknown command; what is said after it is."""
        self.started(Settings(port=1, metrics="9", transcript="off"))
        self.talk(1, b"NONSENSE")
        client = StringClient(self.reactor.factory_at(1))
        for line in (b"AUTH PLAIN", b"AHVzZXIAcGFzcw==", b"NONSENSE"):
            client.say(line)
        client.leave()
        after = self.scraped()
        for command, status, count in (
            ("AUTH", "continue", 1),
            ("(response)", "ok", 1),
            ("other", "error", 2),
        ):
            self.assertValue(
                count, after, "pop3toy_commands_total", protocol="POP3", command=command, status=status
            )
        self.assertValue(
            1, after, "pop3toy_logins_total", protocol="POP3", mechanism="PLAIN", result="success"
        )

    def test_octets_of_long_lines(self) -> None:
        """What is thrown away of a line that is too long has been received."""
        self.started(Settings(port=1, metrics="9", transcript="off"))
        client = StringClient(self.reactor.factory_at(1))
        client.send(b"x" * 20_000)
        client.send(b"x" * 5_000 + b"\r\nQUIT\r\n")
        client.leave()
        self.assertValue(25_008, self.scraped(), "pop3toy_received_bytes_total", protocol="POP3")

    def test_locked_and_rejected(self) -> None:
        """A mailbox that another session has; and a client that is one too many."""
        limits = Settings().limits
        self.started(
            Settings(
                port=1,
                metrics="9",
                transcript="off",
                limits=type(limits)(lock_wait=0, max_per_address=2),
            )
        )
        holder = StringClient(self.reactor.factory_at(1))
        holder.say(b"USER user", b"PASS pass")
        self.assertIn(b"[IN-USE]", self.talk(1, b"USER user", b"PASS pass"))
        other = StringClient(self.reactor.factory_at(1))
        self.talk(1)
        during = self.scraped()
        self.assertValue(1, during, "pop3toy_locks_refused_total")
        self.assertValue(1, during, "pop3toy_connections_rejected_total", protocol="POP3", reason="address")
        self.assertValue(2, during, "pop3toy_connections", protocol="POP3")
        holder.leave()
        other.leave()

    def test_two_servers(self) -> None:
        """Each of several servers in one process has metrics of its own."""
        for port in (1, 2):
            self.started(Settings(port=port, metrics=f"{port + 10}", transcript="off"))
        self.talk(1, b"QUIT")
        self.assertValue(1, self.scraped(11), "pop3toy_connections_opened_total", protocol="POP3")
        self.assertValue(None, self.scraped(12), "pop3toy_connections_opened_total", protocol="POP3")

    def test_times(self) -> None:
        """A login is measured from its last line, an answer from its command."""
        registry = Registry()
        metrics = Metrics(registry)
        channel = Channel("127.0.0.1", True)
        for event in (
            events.Connected(1, 0.0, "POP3", channel, "x"),
            events.ReplySent(1, 0.5, b"+OK\r\n", 5, True, True),
            events.LineReceived(1, 1.0, b"USER ann", 10, "USER", "AUTHORIZATION"),
            events.ReplySent(1, 1.25, b"+OK\r\n", 5, True, True),
            events.LineReceived(1, 2.0, b"PASS ****", 10, "PASS", "AUTHORIZATION"),
            events.LoggedIn(1, 5.0, "POP3", channel, "ann", "USER"),
            events.ReplySent(1, 5.5, b"+OK\r\n", 5, True, True),
            events.LineReceived(1, 6.0, b"RETR 1", 8, "RETR", "TRANSACTION"),
            events.ReplySent(1, 6.25, b"+OK\r\n", 5, False, True),
            events.ReplySent(1, 9.0, b"-ERR no answer, but text\r\n.\r\n", 5, True, True),
        ):
            metrics.observe(event)
        for name, by, seconds in (
            ("pop3toy_login_seconds_sum", {"mechanism": "USER", "result": "success"}, 3.0),
            ("pop3toy_answer_seconds_sum", {"protocol": "POP3", "command": "USER"}, 0.25),
            ("pop3toy_answer_seconds_sum", {"protocol": "POP3", "command": "PASS"}, 3.5),
            ("pop3toy_answer_seconds_sum", {"protocol": "POP3", "command": "RETR"}, 0.25),
        ):
            self.assertEqual(registry.get_sample_value(name, by), seconds, name)
        self.assertIsNone(
            registry.get_sample_value("pop3toy_refusals_total", {"protocol": "POP3", "code": "none"})
        )


TEXTS = some.text(max_size=8) | some.sampled_from(("AUTH", "POP3", "quit", "TLSv1.3", 'a\nb{c="d"}'))
OCTETS = some.binary(max_size=12) | some.sampled_from(
    (b"+OK", b"-ERR [X] y", b"+ z", b"599 x", b"421 x\r\n999 y")
)
CHANNELS = some.builds(Channel, TEXTS, some.booleans(), some.none() | some.builds(TLSFacts, TEXTS, TEXTS))


def of_kind(kind: type) -> some.SearchStrategy[Any]:
    """Events of a kind with anything in them, of few sessions."""
    by_type: dict[object, some.SearchStrategy[Any]] = {
        int: some.integers(0, 10**6),
        float: some.floats(0, 10**6),
        str: TEXTS,
        str | None: some.none() | TEXTS,
        Sequence[str]: some.lists(TEXTS, max_size=3),
        bytes: OCTETS,
        bool: some.booleans(),
        Channel: CHANNELS,
        TLSFacts: some.builds(TLSFacts, TEXTS, TEXTS),
        Sequence[tuple[str, bytes]]: some.lists(some.tuples(TEXTS, OCTETS), max_size=3),
    }
    fields = {name: by_type[said] for name, said in get_type_hints(kind, vars(events)).items()}
    return some.builds(kind, **{**fields, "session": some.integers(1, 3)})


class LabelTests(SynchronousTestCase):
    """Labels are words that were known before."""

    def assertBounded(self, registry: Registry) -> None:
        """No label is a word of a client's."""
        for family in registry.collect():
            for sample in family.samples:
                for name, word in sample.labels.items():
                    if name != "le":
                        self.assertIn(word, WORDS[name] | {"other"}, sample)

    @settings(max_examples=150, deadline=None)
    @given(some.lists(some.one_of(*map(of_kind, events.KINDS)), max_size=30))
    def test_any_events(self, told: Sequence[Any]) -> None:
        """Whatever events hold, and in whatever order they come."""
        registry = Registry()
        metrics = Metrics(registry)
        for session, protocol in enumerate(("POP3", "SMTP", "LMTP"), 1):
            metrics.observe(events.Connected(session, 0.0, protocol, Channel("192.0.2.1", False), "x"))
        for event in told:
            if type(event) in metrics.wants:
                metrics.observe(event)
        self.assertBounded(registry)

    def test_known_words(self) -> None:
        """All commands, mechanisms, codes and ends that there are have a label of their own."""
        more = {labels.RESPONSE, labels.TEXT}
        self.assertEqual(KEYWORDS, labels.COMMANDS["POP3"] - more)
        for policy in (SMTP, SUBMISSION, LMTP):
            self.assertEqual(policy.verbs, labels.COMMANDS[policy.name] - more, policy.name)
        self.assertEqual({"USER", "APOP", site.MECHANISM, *MECHANISM_NAMES}, labels.MECHANISMS)
        self.assertIn(site.PROTOCOL, labels.PROTOCOLS)
        codes = {kind.code for kind in _refusals(Refusal)} - {""}
        self.assertIn("IN-USE", codes)
        self.assertLessEqual(codes, labels.POP3_CODES)

    def test_queue(self) -> None:
        """Messages are counted when they are queued, recipients by what becomes of them."""
        registry = Registry()
        metrics = Metrics(registry)
        message = {"session": events.NONE, "at": 1.0, "queue_id": "0A", "user": "ann", "sender": "ann@x"}
        first: Any = {**message, "protocol": "submission", "channel": Channel("unix", True)}
        later: Any = {**message, "smarthost": "smart", "reason": "so"}
        for event in (
            events.Queued(**first, octets=5, recipients=["a@y", "b@y"]),
            events.SendDeferred(**later, recipients=["a@y", "b@y"], attempts=1, wait=300.0),
            events.Sent(**later, recipient="a@y", seconds=301.0),
            events.Bounced(**later, recipient="b@y", seconds=301.0),
            events.QueueRemoved(events.NONE, 1.0, "0B"),
        ):
            if type(event) in metrics.wants:
                metrics.observe(event)
        counted = {
            sample.labels["result"]: sample.value
            for family in registry.collect()
            for sample in family.samples
            if sample.name == "pop3toy_outgoing_total"
        }
        self.assertEqual(counted, {"queued": 1, "deferred": 2, "sent": 1, "bounced": 1})

    def test_reasons(self) -> None:
        """What a limiter says is one of the reasons."""
        for limits, hosts, expected in (
            (ConnectionLimits(per_address=1), ("192.0.2.1", "192.0.2.1"), "address"),
            (ConnectionLimits(connections=1), ("192.0.2.1", "192.0.2.2"), "full"),
        ):
            limiter = ConnectionLimiter(limits)
            limiter.acquire(hosts[0], lambda: None).logged_in()
            why = self.assertRaises(Refusal, limiter.acquire, hosts[1], lambda: None)
            self.assertEqual(labels.reason(why.text), expected)
        self.assertEqual(labels.reason("the server is stopping, try again later"), "stopping")
        self.assertEqual(labels.reason("too early"), "other")

    def test_registered(self) -> None:
        """The table has all that is counted, and each histogram has its bounds."""
        registry = Registry()
        Metrics(registry)
        made = {
            family.name + "_total" * (family.type == "counter"): family.type for family in registry.collect()
        }
        self.assertEqual(made, {one.name: one.kind for one in METRICS if not one.asked})
        self.assertEqual(len(NAMES), len(METRICS))


def _refusals(kind: type[Refusal]) -> set[type[Refusal]]:
    return {kind}.union(*map(_refusals, kind.__subclasses__()))


class SharedTests(SynchronousTestCase):
    """Numbers of several processes."""

    def test_file_that_is_made(self) -> None:
        """A file that a worker is just making has no numbers yet, and is no trouble."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "counter_0.db").touch()
        (folder / "counter_1.db").write_bytes(bytes(65536))
        registry = Registry()
        add_up(str(folder), registry)
        self.assertEqual(list(registry.collect()), [])


class HealthTests(SynchronousTestCase):
    """What is wrong."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.looks = 0
        self.result: Any = succeed

    def look(self) -> Deferred[object]:
        self.looks += 1
        made: Deferred[object] = self.result(None)
        return made

    def test_kept(self) -> None:
        """It is looked again after some seconds, however often somebody asks."""
        health = Health(self.clock, [], [self.look])
        self.assertIsNone(health.known)
        for _ in range(3):
            self.assertEqual(self.successResultOf(health.look()), [])
        self.assertEqual((self.looks, health.known), (1, []))
        self.clock.advance(KEPT)
        self.result = lambda _: fail(StoreTrouble(detail="the disk is gone"))
        self.assertEqual(self.successResultOf(health.look()), ["the disk is gone"])
        self.assertEqual(health.known, ["the disk is gone"])

    def test_at_once(self) -> None:
        """What needs no look is always new."""
        said: list[str] = []
        health = Health(self.clock, [lambda: said], [self.look])
        self.successResultOf(health.look())
        said.append("draining")
        self.assertEqual(self.successResultOf(health.look()), ["draining"])
        self.assertEqual(self.looks, 1)

    def test_many_ask(self) -> None:
        """While a look lasts others wait for the same one."""
        looking: Deferred[object] = Deferred()
        self.result = lambda _: looking
        health = Health(self.clock, [], [self.look])
        turns = [health.look() for _ in range(3)]
        self.assertNoResult(turns[2])
        looking.callback(None)
        self.assertEqual([self.successResultOf(turn) for turn in turns], [[], [], []])
        self.assertEqual(self.looks, 1)


class SiteTests(ServerCase):
    """What is told by HTTP."""

    def test_formats(self) -> None:
        """Prometheus' text, or OpenMetrics where that is asked for; HEAD has no body."""
        self.started(Settings(port=1, metrics="9", transcript="off"))
        site = self.reactor.factory_at(9)
        status, head, body = ask(site)
        self.assertEqual(status, 200)
        self.assertIn(b"text/plain", head)
        self.assertIn(b"# HELP pop3toy_connections ", body)
        self.assertNotIn(b"_created", body)
        status, head, body = ask(
            site, "/metrics", "GET", "Accept: application/openmetrics-text; version=1.0.0"
        )
        self.assertIn(b"application/openmetrics-text", head)
        self.assertTrue(body.endswith(b"# EOF\n"))
        status, head, body = ask(site, "/metrics", "HEAD")
        self.assertEqual((status, body), (200, b""))
        self.assertEqual(ask(site, "/")[0], 404)
        self.assertEqual(ask(site, "/metrics", "POST")[0], 405)

    def test_draining(self) -> None:
        """It says so while the ports are open still, and until they let clients in again."""
        service = self.started(Settings(port=1, metrics="9", transcript="off"))
        site = self.reactor.factory_at(9)
        self.assertEqual(ask(site, "/healthz")[::2], (200, b'{"healthy": true, "problems": []}\n'))
        client = StringClient(self.reactor.factory_at(1))
        client.say(b"USER user", b"PASS pass")
        service.control.drain()
        status, _, body = ask(site, "/healthz")
        self.assertEqual(status, 503)
        self.assertEqual(
            json.loads(body), {"healthy": False, "problems": ["the server takes no more connections"]}
        )
        self.assertEqual(len(service.listening), 1)
        draining = self.scraped()
        self.assertValue(1, draining, "pop3toy_draining")
        self.assertValue(0, draining, "pop3toy_healthy")
        service.control.resume()
        self.assertEqual(ask(site, "/healthz")[0], 200)
        client.leave()

    def test_stopping(self) -> None:
        """A server that stops says so before its ports are closed, and until its last session has ended."""
        service = self.started(Settings(port=1, metrics="9", transcript="off"))
        site = self.reactor.factory_at(9)
        closing: Deferred[None] = Deferred()
        [port] = [part.port for part in service if isinstance(part, ListeningService) and part.protocol]
        port.stopListening = lambda: closing
        client = StringClient(self.reactor.factory_at(1))
        client.say(b"USER user", b"PASS pass")
        stopping = service.stopService()
        self.assertEqual(ask(site, "/healthz")[0], 503)
        self.assertIn(b"+OK", client.say(b"NOOP"))
        closing.callback(None)
        self.assertEqual(ask(site, "/healthz")[0], 503)
        client.say(b"QUIT")
        client.leave()
        self.reactor.advance(5)
        self.successResultOf(stopping)

    def test_kept_open(self) -> None:
        """A connection that Prometheus keeps open ends with the port."""
        self.started(Settings(port=1, metrics="9", transcript="off"))
        site = self.reactor.factory_at(9)
        site.doStart()
        prometheus = StringClient(site)
        for _ in range(2):
            self.assertIn(b"200", prometheus.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))
        self.assertFalse(prometheus.closed)
        site.doStop()
        self.assertTrue(prometheus.closed)

    def test_store_of_others(self) -> None:
        """A store of an embedding program is asked, if it can be administered."""

        class Broken(MemoryStore):
            def exists(self, user: str) -> bool:
                raise StoreTrouble(detail="the bucket is gone")

        self.assertTrue(IStoreAdmin.implementedBy(Broken))
        self.started(Settings(port=1, metrics="9", users=USERS, transcript="off"), store=Broken(MAIL))
        client = StringClient(self.reactor.factory_at(9))
        client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        self.reactor.deliver()
        status, _, body = answer(client.read())
        self.assertEqual(status, 503)
        self.assertEqual(json.loads(body)["problems"], ["the bucket is gone"])

    def test_hanging_store(self) -> None:
        """A store that does not answer is waited for some seconds; metrics are not kept waiting by it."""
        answers = threading.Event()

        class Hanging(MemoryStore):
            def exists(self, user: str) -> bool:
                return answers.wait(DEADLINE)

        self.started(Settings(port=1, metrics="9", users=USERS, transcript="off"), store=Hanging(MAIL))
        for _ in range(2):
            # What the threads of both looks say in the end.
            self.addCleanup(self.reactor.deliver)
        self.addCleanup(answers.set)
        site = self.reactor.factory_at(9)
        asking = StringClient(site)
        self.assertEqual(asking.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), b"")
        self.reactor.advance(PATIENCE)
        status, _, body = answer(asking.read())
        self.assertEqual(status, 503)
        self.assertEqual(json.loads(body)["problems"], ["the disk or the network has not answered for 5 s"])
        self.reactor.advance(KEPT)
        self.assertValue(0, self.scraped(), "pop3toy_healthy")
        self.reactor.advance(PATIENCE)

    def test_kinds(self) -> None:
        """The table has labels that are known here, and no others are sent."""
        for one in METRICS:
            if one.name != "pop3toy_build_info":
                self.assertLessEqual(set(one.labels), set(WORDS), one.name)
