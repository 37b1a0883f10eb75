"""The benchmark of mail on object storage: what it counts, what it does not let pass, and the simulation."""

from __future__ import annotations

import http.client
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import fields, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import simulate
from benchmarks.objects import Client, differing, overlap, too_many
from benchmarks.peers.object_store import Place
from benchmarks.requests import CountingProxy, Request, expected, understood
from benchmarks.simulate import FIGURES, Assumptions, Cost, Measured, per_million_polls

CHECKOUT = Path(__file__).parents[1]


class Gateway(BaseHTTPRequestHandler):
    """Answers everything with what was sent."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Any method."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing."""


class CountingTests(SynchronousTestCase):
    """Requests are told apart, counted, and passed on as they are."""

    def test_understood(self) -> None:
        """The method, what it is about, the key's last part; listings and removals are named so."""
        for line, wanted in (
            (b"GET /mail/p/a/0f/ab HTTP/1.1", ("GET", "a", "ab")),
            (b"PUT /mail/p/l/12 HTTP/1.1", ("PUT", "l", "12")),
            (b"GET /mail/p/m/12/34 HTTP/1.1", ("GET", "m", "34")),
            (b"GET /mail?list-type=2&prefix=p%2Fm%2F12%2F HTTP/1.1", ("LIST", "m", "")),
            (b"POST /mail?delete HTTP/1.1", ("DELETE", "m", "")),
        ):
            self.assertEqual(understood(line, "mail/p"), Request(*wanted, 0.0))

    def test_proxy(self) -> None:
        """Bodies are none of its business, however they look, and each request of a connection counts."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        proxy = CountingProxy(Place("s3://mail/p", f"http://127.0.0.1:{server.server_port}", Path("none")))
        self.addCleanup(proxy.close)
        connection = http.client.HTTPConnection(proxy.place.endpoint.removeprefix("http://"), timeout=60)
        self.addCleanup(connection.close)
        tricky = b"x\r\n\r\nGET /mail/p/m/1/2 HTTP/1.1\r\n\r\n" * 9_000
        for method, path, body in (
            ("PUT", "/mail/p/m/1/2", tricky),
            ("GET", "/mail/p/m/1/2", b""),
            ("POST", "/mail?delete", b"GET / HTTP/1.1\r\n\r\n"),
            ("GET", "/mail/p/m/1/3", b""),
        ):
            connection.request(method, path, body)
            self.assertEqual(connection.getresponse().read(), body)
        self.assertEqual(proxy.take(), {"PUT m": 1, "GET m": 2, "DELETE m": 1})
        self.assertEqual(proxy.take(), {})

    def test_expected(self) -> None:
        """The design's counts: a login, one with many messages, all fetched in ranges, and removals."""
        login = {"GET a": 1, "GET l": 1, "PUT l": 2, "LIST m": 1}
        self.assertEqual(expected(0), login)
        self.assertEqual(expected(2_001), {**login, "LIST m": 3})
        self.assertEqual(expected(20, 6_000, fetched=True), {**login, "GET m": 20})
        self.assertEqual(expected(2, 1_048_577, fetched=True), {**login, "GET m": 4})
        self.assertEqual(expected(2_000, removed=1_001), {**login, "LIST m": 2, "PUT l": 3, "DELETE m": 21})


class VerdictTests(SynchronousTestCase):
    """What fails a run."""

    def test_too_many(self) -> None:
        """One request more than a login may have, of any kind, in any of twenty."""
        good = Counter({"GET a": 20, "GET l": 20, "PUT l": 40, "LIST m": 20})
        self.assertEqual(too_many(good, 20), [])
        self.assertEqual(too_many(Counter({"PUT l": 20}), 20), [])
        for kind, said in (
            ("GET c", "a login needs 2.05 GET, and may need 2"),
            ("LIST m", "a login needs 1.05 LIST, and may need 1"),
            ("HEAD l", "a login needs 0.05 HEAD, and may need 0"),
        ):
            self.assertEqual(too_many(good + Counter({kind: 1}), 20), [said])

    def test_differing(self) -> None:
        """Too few is as wrong as too many: then it is not what the design says."""
        wanted = Counter({"GET m": 20, "PUT l": 2})
        self.assertEqual(differing("full", Counter({"GET m": 40, "PUT l": 4}), wanted, 2), [])
        self.assertEqual(
            differing("full", Counter({"GET m": 39, "PUT l": 4}), wanted, 2),
            ["full: 19.5 GET m a session, 20 by the design"],
        )

    def asked_ahead(self, ahead: int) -> list[int]:
        """What is found of a server that asks for so many messages more than its client."""
        seen: list[Request] = []

        class Proxy:
            def take(self) -> None:
                seen.clear()

            @property
            def seen(self) -> list[Request]:
                return list(seen)

        class One:
            def send(self, text: str) -> None:
                number = int(text.split(" ")[1])
                wanted = number + (ahead if number > 1 else 0)
                seen.extend(Request("GET", "m", "", 0.0) for _ in range(min(wanted, 4) - len(seen)))

            def line(self) -> None:
                self._file = io.BytesIO(b"text\r\n.\r\n")

        return overlap(cast(CountingProxy, Proxy()), cast(Client, One()), 4)

    def test_overlap(self) -> None:
        """A message counts as asked for early only if that was before the client had read the one before."""
        self.patch(overlap.__globals__["time"], "monotonic", _hurried(time.monotonic))
        self.assertEqual(self.asked_ahead(1), [3, 4])
        self.assertEqual(self.asked_ahead(0), [])


def _hurried(clock: Callable[[], float]) -> Callable[[], float]:
    """A clock that is a hundred times as fast."""
    return lambda: clock() * 100


MEASURED = Measured(
    poll=Cost(0.001, 0.002, 0.003),
    fetched=Cost(0.0001, 0.0002, 0.0003),
    delivered=Cost(0.002, 0.001, 0.004),
    requests={"GET": 2, "PUT": 2, "LIST": 1},
)
#: Round numbers: a thousand mailboxes with a hundred polls and ten messages a day.
SMALL = Assumptions(
    mailboxes=1_000, polls=100, messages=10, small=1_000, middle=10_000, large=3_000_000,
    middle_share=0.2, large_share=0.1, keeping=0.5, kept=1_500, waiting=10, peak=8.64, busy=0.5,
    server_cores=4, node_cores=8, node_disks=2, disk_octets=1e11, disk_operations=100,
    shard_objects=1_000, bucket_shards=10, server_price=100, node_price=1_000,
)  # fmt: skip


class SimulationTests(SynchronousTestCase):
    """Its arithmetic, worked out by hand."""

    def test_messages(self) -> None:
        """Of the sizes the mean, of the ranges too, and what is stored."""
        self.assertAlmostEqual(SMALL.octets, 0.7 * 1_000 + 0.2 * 10_000 + 0.1 * 3_000_000)
        self.assertAlmostEqual(SMALL.ranges, 0.9 + 0.1 * 3)
        self.assertEqual(SMALL.stored, 1_000 * (0.5 * 1_500 + 0.5 * 10))

    def test_requests(self) -> None:
        """Polls, messages that come and are fetched, removals, and listings in two answers."""
        need = simulate.simulate(SMALL, MEASURED)
        self.assertAlmostEqual(need.requests["GET"], 200_000 + 10_000 * 3.2)
        self.assertAlmostEqual(need.requests["PUT"], 200_000 + 5_000 + 10_000)
        self.assertAlmostEqual(need.requests["LIST"], 100_000 * 1.5)
        self.assertAlmostEqual(need.requests["DELETE"], 5_000)

    def test_machines(self) -> None:
        """CPU of the busiest hour, which has 1e-4 of a day in a second, and disks."""
        need = simulate.simulate(SMALL, MEASURED)
        self.assertAlmostEqual(need.cores.servers, (100 + 1 + 20) * 1e-4)
        self.assertAlmostEqual(need.cores.osds, (300 + 3 + 40) * 1e-4)
        self.assertEqual((need.processes, need.servers), (1, 1))
        self.assertAlmostEqual(need.operations, (220_000 * 6 + 232_000 + 1_500_000) * 1e-4, places=3)
        self.assertAlmostEqual(need.octets, 755_000 * 302_700)
        # 2.3e11 octets three times on disks of 1e11 that may be half full: 13.7 disks, two in a machine.
        self.assertEqual(need.nodes_for, {"room": 7, "operations": 4, "CPU": 1})
        self.assertEqual(need.nodes, 8)
        self.assertEqual((need.objects, need.buckets), (757_000, 76))
        self.assertEqual(need.own, 8_100)

    def test_ten_times_as_many(self) -> None:
        """What grows with mailboxes does so in proportion; a storage has four machines at least."""
        one, ten = (simulate.simulate(replace(SMALL, mailboxes=n), MEASURED) for n in (1e6, 1e7))
        self.assertAlmostEqual(ten.cores.servers / one.cores.servers, 10)
        self.assertAlmostEqual(ten.s3_requests / one.s3_requests, 10)
        self.assertAlmostEqual(ten.s3_stored / one.s3_stored, 10)
        self.assertEqual(simulate.simulate(replace(SMALL, mailboxes=1), MEASURED).nodes, 4)

    def test_money(self) -> None:
        """A million polls on S3, and a month."""
        self.assertAlmostEqual(per_million_polls(SMALL, MEASURED), 2 * 0.40 + 3 * 5.00)
        need = simulate.simulate(SMALL, MEASURED)
        day = 0.232 * 0.40 + (0.215 + 0.15) * 5.00
        self.assertAlmostEqual(need.s3_requests, day * 365 / 12)
        self.assertAlmostEqual(need.s3_stored, 755_000 * 302_700 / 1e9 * 0.022)


class FiguresTests(SynchronousTestCase):
    """The figures that are checked in are good ones, and pages tell what comes of them."""

    def test_good(self) -> None:
        """Nothing was wrong in that run, and its logins need what the design says."""
        told = json.loads(FIGURES.read_text())
        self.assertEqual(told["wrong"], [])
        self.assertEqual(told["requests"]["login"], dict(expected(20)))
        self.assertEqual(Measured.read(FIGURES).requests, {"GET": 2, "PUT": 2, "LIST": 1})
        ran = {"maildir-1", "maildir-2", "maildir-4", "objects-1", "objects-2", "objects-4"}
        self.assertEqual(set(told["peers"]), ran)

    def test_read(self) -> None:
        """Of rounds the middle one; a message fetched is what twenty cost more than a poll."""
        told: Any = {
            "workloads": {
                row: {"peers": {"objects-1": {"median": {"cpu": cpu}}}}
                for row, cpu in (("login", 0.002), ("full", 0.012))
            },
            "storage": {
                row: {"objects-1": [{"gateways": n * 0.01, "osds": n * 0.02} for n in rounds]}
                for row, rounds in (("login", (1, 9, 2)), ("full", (4, 4, 4)))
            },
            "deliveries": {"cpu": 0.003, "gateways": 0.004, "osds": 0.005},
            "requests": {"full": {"GET m": 20.0, "GET a": 1.0}, "login": {"GET a": 1.0, "GET l": 1.0}},
        }
        path = Path(self.mktemp())
        path.write_text(json.dumps(told))
        measured = Measured.read(path)
        self.assertEqual(measured.poll, Cost(0.002, 0.02, 0.04))
        self.assertEqual(measured.delivered, Cost(0.003, 0.004, 0.005))
        self.assertEqual(measured.requests, {"GET": 2.0})
        for one, wanted in zip(
            (getattr(measured.fetched, each.name) for each in fields(Cost)),
            (0.0005, 0.001, 0.002),
            strict=True,
        ):
            self.assertAlmostEqual(one, wanted)

    def test_page(self) -> None:
        """docs/scaling.rst has what the simulation prints, word for word; options change it."""
        told = io.StringIO()
        with redirect_stdout(told):
            simulate.main([])
        lines = "".join(f"    {line}\n" for line in told.getvalue().splitlines())
        self.assertIn(lines, (CHECKOUT / "docs" / "scaling.rst").read_text())
        with redirect_stdout(told):
            simulate.main(["--mailboxes=1000", "--bucket-shards", "23"])
        self.assertIn("       1,000  mailboxes\n", told.getvalue())
