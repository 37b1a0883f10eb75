"""Metrics and health of real servers: Prometheus, workers, files that go away, and a server without."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import skipIf

from twisted.application.service import MultiService
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import CannotStart, Settings, server
from pop3toy.errors import BadSetting
from pop3toy.observe.metrics.site import site_of
from pop3toy.observe.metrics.table import METRICS, NAMES
from pop3toy.run.monitoring.process import monitoring_of
from pop3toy.testing.sockets import LOOPBACK

from ..corpus import awkward_messages, fill_maildir
from ..folders import new_folder
from ..inspector_world import InspectorCase
from ..memory_world import MemoryReactor
from ..observe.test_metrics import Values, ask, value, values_in
from ..realserver import (
    POP3TOY,
    RealServer,
    free_port,
    maildir_options,
    run_command,
    run_python,
    wait_until,
)
from ..strictclient import StrictClient
from ..tls_world import Authority

DOCS = Path(__file__).parent.parent.parent / "docs"
PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
without_prometheus = skipIf(PROMETHEUS is None, "Debian's prometheus is not installed")
without_promtool = skipIf(PROMTOOL is None, "promtool of Debian's prometheus is not installed")


def get(where: int | Path, path: str = "/metrics") -> tuple[int, str]:
    """Status and body of what a port of this machine, or a Unix socket, answers."""
    connection = http.client.HTTPConnection("127.0.0.1", where if isinstance(where, int) else 0, timeout=30)
    if isinstance(where, Path):
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(where))
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def scraped(where: int | Path) -> Values:
    """All values that are told there."""
    return values_in(get(where)[1])


def health(where: int | Path) -> tuple[int, list[str]]:
    """Status and problems."""
    status, body = get(where, "/healthz")
    said = json.loads(body)
    assert said["healthy"] is (not said["problems"])
    return status, said["problems"]


def session(port: int) -> None:
    """A client that reads its first message."""
    with StrictClient(port) as client:
        client.login()
        client.retr(1)
        client.quit()


def promtool(*arguments: str | Path, stdin: str = "") -> str:
    """What promtool says, which has nothing against it."""
    done = subprocess.run(
        [str(PROMTOOL), *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class MaildirCase(SynchronousTestCase):
    """A Maildir with two messages."""

    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.root = self.folder / "mail"
        fill_maildir(self.root / "ann", awkward_messages()[:2])

    def serve(self, *options: str) -> RealServer:
        """A server of these mails."""
        return RealServer(*maildir_options(self.root), *options)


class RealTests(MaildirCase):
    """One process."""

    @without_promtool
    def test_promtool(self) -> None:
        """promtool finds nothing in what is told after mail was fetched and brought."""
        with self.serve("--metrics=0", "--smtp-port=0", "--self-signed") as running:
            port = running.port_for("metrics")
            session(running.port)
            self.assertEqual(promtool("check", "metrics", stdin=get(port)[1]), "")

    @without_prometheus
    def test_prometheus(self) -> None:
        """A real Prometheus scrapes it, and its rules see a server that is well."""
        with self.serve("--metrics=0") as running:
            session(running.port)
            asked = free_port()
            (self.folder / "prometheus.yml").write_text(
                "scrape_configs:\n"
                "  - job_name: pop3toy\n"
                "    scrape_interval: 200ms\n"
                "    scrape_timeout: 200ms\n"
                "    static_configs:\n"
                f"      - targets: ['127.0.0.1:{running.port_for('metrics')}']\n"
                f"rule_files: ['{DOCS}/prometheus-alerts.yml']\n"
            )
            with (self.folder / "prometheus.log").open("wb") as log:
                prometheus = subprocess.Popen(
                    [
                        str(PROMETHEUS),
                        f"--config.file={self.folder}/prometheus.yml",
                        f"--storage.tsdb.path={self.folder}/data",
                        f"--web.listen-address=127.0.0.1:{asked}",
                    ],
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                )
            try:

                def ask(query: str) -> list[Any]:
                    try:
                        status, body = get(asked, f"/api/v1/query?query={query}")
                    except OSError:
                        return []
                    found: list[Any] = json.loads(body)["data"]["result"] if status == 200 else []
                    return found

                query = "pop3toy_messages_retrieved_total"
                wait_until(lambda: bool(ask(query)), "Prometheus has scraped the server")
                self.assertEqual([one["value"][1] for one in ask(query)], ["1"])
                self.assertEqual([one["value"][1] for one in ask("up")], ["1"])
                self.assertEqual([one["value"][1] for one in ask("pop3toy_healthy")], ["1"])
                rules = json.loads(get(asked, "/api/v1/rules")[1])["data"]["groups"][0]["rules"]
                self.assertGreater(len(rules), 5)
                self.assertEqual([rule["name"] for rule in rules if rule["state"] == "firing"], [])
            finally:
                prometheus.terminate()
                prometheus.wait(30)

    def test_threads(self) -> None:
        """Work in threads is measured, by its pool, and so is what is in them now."""
        with self.serve("--metrics=0") as running:
            port = running.port_for("metrics")
            session(running.port)
            values = scraped(port)
            for pool in ("disk", "scans", "delivery"):
                self.assertEqual(value(values, "pop3toy_thread_jobs", pool=pool, state="waiting"), 0.0)
            self.assertGreater(value(values, "pop3toy_thread_job_seconds_count", pool="disk") or 0, 0)
            self.assertGreater(value(values, "pop3toy_threads", pool="disk") or 0, 0)

    def test_health(self) -> None:
        """A folder that is gone and an accounts file that is are told, and that they are back."""
        accounts = self.folder / "accounts"
        accounts.write_text("ann:{PLAIN}secret\n")
        accounts.chmod(0o600)
        where = self.folder / "metrics"
        options = (f"--maildir={self.root}/{{user}}", f"--accounts={accounts}", f"--metrics=unix:{where}")
        with RealServer(*options) as running:
            self.assertEqual(health(where), (200, []))
            gone = self.folder / "gone"
            self.root.rename(gone)
            accounts.unlink()
            wait_until(lambda: health(where)[0] == 503, "the server misses its folder")
            self.assertEqual(
                sorted(health(where)[1]),
                [f"accounts: there is no file {accounts}", f"maildir: there is no folder {self.root}"],
            )
            self.assertEqual(value(scraped(where), "pop3toy_healthy"), 0.0)
            gone.rename(self.root)
            accounts.write_text("ann:{PLAIN}secret\n")
            wait_until(lambda: health(where)[0] == 200, "the folder is back")
            session(running.port)

    def test_certificate(self) -> None:
        """A certificate that soon expires is a warning beside a 200, one that has expired a problem: 503."""
        authority = Authority(self.folder)
        soon, now = timedelta(days=2, hours=12), timedelta(seconds=3)
        for name, ends, warned in (("soon", soon, ["expires in 2 days"]), ("good", timedelta(days=30), [])):
            pair = authority.issue("localhost", ends=ends)
            file = self.folder / f"{name}.pem"
            file.write_bytes(pair.certificate + pair.key)
            with self.serve("--metrics=0", f"--certificate={file}") as running:
                port = running.port_for("metrics")
                status, body = get(port, "/healthz")
                said = json.loads(body)
                self.assertEqual((status, said["healthy"], said["problems"]), (200, True, []))
                self.assertEqual([one.partition(".pem ")[2] for one in said.get("warnings", [])], warned)
                values = scraped(port)
                self.assertGreater(value(values, "pop3toy_certificate_expiry_timestamp_seconds") or 0, 1e9)
                wait_until(lambda at=port: value(scraped(at), "pop3toy_healthy") == 1, "it is well")
        pair = authority.issue("localhost", ends=now)
        file = self.folder / "over.pem"
        file.write_bytes(pair.certificate + pair.key)
        with self.serve("--metrics=0", f"--certificate={file}") as running:
            port = running.port_for("metrics")
            wait_until(lambda: health(port)[0] == 503, "it has expired")
            self.assertEqual([one.partition(".pem ")[2] for one in health(port)[1]], ["has expired"])

    def test_port_taken(self) -> None:
        """A port that is taken ends the start with one line."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            number = taken.getsockname()[1]
            words = _words_of_failure(self.folder, *maildir_options(self.root), f"--metrics={number}")
            line = f"pop3toy: cannot listen on tcp:{number}:interface=127.0.0.1: address already in use"
            self.assertIn(line, words)
            words = _words_of_failure(
                self.folder, *maildir_options(self.root), "--workers=2", f"--metrics={number}"
            )
            self.assertIn(line, words)
            self.assertNotIn("Traceback", words)


def _words_of_failure(folder: Path, *options: str) -> str:
    """What a server says that does not come to listen."""
    from ..realserver import ServerDied

    try:
        with RealServer("--port=0", *options, folder=folder):
            raise AssertionError("it listens")
    except ServerDied as died:
        return str(died)


class WorkersTests(MaildirCase):
    """Several processes."""

    def test_added_up(self) -> None:
        """All workers count together; one that is killed loses no number and is said to be started again."""
        folder = self.folder / "temporary"
        folder.mkdir()
        where = self.folder / "metrics"
        options = ("--workers=2", f"--metrics=unix:{where}")
        with RealServer(
            *maildir_options(self.root), *options, launcher=("env", f"TMPDIR={folder}")
        ) as running:
            wait_until(lambda: value(scraped(where), "pop3toy_workers") == 2, "both workers serve")
            [shared] = folder.iterdir()
            self.assertEqual(shared.stat().st_mode & 0o777, 0o700)
            descriptor = os.open(shared, os.O_RDONLY)
            self.addCleanup(os.close, descriptor)
            self.assertRaises(BlockingIOError, fcntl.flock, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

            def retrieved() -> float | None:
                return value(scraped(where), "pop3toy_messages_retrieved_total")

            for _ in range(6):
                session(running.port)
            wait_until(lambda: retrieved() == 6, "six messages are counted")
            with StrictClient(running.port) as held:
                held.login()
                self.assertEqual(value(scraped(where), "pop3toy_sessions", protocol="POP3"), 1)
                for found in re.findall(r"serves \(process (\d+)\)", running.log):
                    os.kill(int(found), signal.SIGKILL)
                wait_until(
                    lambda: value(scraped(where), "pop3toy_worker_restarts_total") == 2, "both are back"
                )
                wait_until(lambda: value(scraped(where), "pop3toy_workers") == 2, "both workers serve again")
            # Nobody is connected to those that are dead.
            self.assertIn(value(scraped(where), "pop3toy_sessions", protocol="POP3"), (0, None))
            self.assertEqual(retrieved(), 6)
            session(running.port)
            wait_until(lambda: retrieved() == 7, "they count on")
            self.assertEqual(health(where), (200, []))
            if PROMTOOL is not None:
                self.assertEqual(promtool("check", "metrics", stdin=get(where)[1]), "")
            # Those of all processes: three have more than one.
            self.assertGreater(value(scraped(where), "process_open_fds") or 0, 20)
            self.assertTrue(running.terminate())
        self.assertEqual(list(folder.iterdir()), [])

    def test_inspector(self) -> None:
        """The supervisor's inspector shows the numbers of all workers, also without a port of their own."""
        where = self.folder / "inspector"
        with self.serve("--workers=2", f"--inspector=unix:{where}") as running:
            wait_until(lambda: value(scraped(where), "pop3toy_workers") == 2, "both workers serve")
            session(running.port)
            name = "pop3toy_messages_retrieved_total"
            wait_until(lambda: value(scraped(where), name) == 1, "the message is counted")
            self.assertEqual(health(where), (200, []))
            drained = "the server takes no more connections, as it was asked to"
            for more, expected in (((), (503, [drained])), (("--resume",), (200, []))):
                done = run_command(*POP3TOY, "drain", "--server", f"unix:{where}", *more, folder=self.folder)
                self.assertEqual(done.returncode, 0, done)
                wait_until(lambda expected=expected: health(where) == expected, "that is told")  # type: ignore[misc]
                self.assertEqual(value(scraped(where), "pop3toy_draining"), float(bool(expected[1])))
            wait_until(lambda: "connections are taken again" in running.log, "the log says so")

    def test_no_worker(self) -> None:
        """Without one that serves the server is not well."""
        where = self.folder / "metrics"
        with self.serve("--workers=1", f"--metrics=unix:{where}") as running:
            wait_until(lambda: health(where)[0] == 200, "the worker serves")
            [found] = re.findall(r"serves \(process (\d+)\)", running.log)
            os.kill(int(found), signal.SIGSTOP)
            os.kill(int(found), signal.SIGKILL)
            wait_until(lambda: health(where) == (503, ["no worker serves"]), "that is told")
            wait_until(lambda: health(where)[0] == 200, "there is another one")


class WithoutTests(SynchronousTestCase):
    """A server that is not measured."""

    def test_nothing_is_loaded(self) -> None:
        """Neither what measures nor its libraries; with --metrics they are."""
        program = (
            "import sys\n"
            "from pop3toy import Settings, server\n"
            "from twisted.internet.testing import MemoryReactorClock\n"
            "server(MemoryReactorClock(), Settings(port=1, transcript='off', metrics={metrics}))\n"
            "print([name for name in sys.modules if name.startswith(('prometheus_client', 'twisted.web',"
            " 'pop3toy.observe.metrics'))])"
        )
        folder = new_folder(self)
        for metrics, loaded in (("None", False), ("'9'", True)):
            said = run_python(program.format(metrics=metrics), folder=folder)
            self.assertEqual(said.strip() != "[]", loaded, said)

    def test_nothing_is_wanted(self) -> None:
        """No kind of events is built for it, and threads and stores are as they were."""
        for settings, measured in (
            (Settings(port=1, transcript="off"), False),
            (Settings(port=1, transcript="off", metrics="9"), True),
        ):
            reactor = MemoryReactor()
            service = server(reactor, settings)
            service.startService()
            connection = reactor.factory_at(1).buildProtocol(LOOPBACK)
            told = {kind.__name__ for kind in connection.factory.observers.told}
            self.assertEqual("LineReceived" in told, measured)
            if not measured:
                self.assertEqual(told, {"Delivered"})
            self.successResultOf(service.stopService())

    def test_missing_library(self) -> None:
        """Without prometheus_client the start ends with one line that names the extra."""
        loaded: dict[str, Any] = sys.modules  # type: ignore[assignment]
        self.addCleanup(loaded.update, {"prometheus_client": loaded["prometheus_client"]})
        loaded["prometheus_client"] = None
        error = self.assertRaises(
            CannotStart, server, MemoryReactor(), Settings(port=1, metrics="9", transcript="off")
        )
        self.assertRegex(str(error), r"^--metrics needs more than is installed: .*\[metrics\]")

    def test_endpoints(self) -> None:
        """A number is a port of this machine, as is TCP without an address; all else is said in full."""
        for said, meant in (
            ("9110", "tcp:9110:interface=127.0.0.1"),
            ("tcp:9110", "tcp:9110:interface=127.0.0.1"),
            ("tcp6:9110", r"tcp6:9110:interface=\:\:1"),
            ("tcp:9110:interface=0.0.0.0", "tcp:9110:interface=0.0.0.0"),
            ("unix:/run/m:mode=666", "unix:/run/m:mode=666"),
            ("unix:/run/m", "unix:/run/m:mode=660"),
        ):
            self.assertEqual(Settings(metrics=said).metrics, meant)
        for wrong in ("localhost:9110", "99999", "http://localhost", "", "ssl:9110"):
            self.assertRaises(BadSetting, Settings, metrics=wrong)


class ElsewhereTests(SynchronousTestCase):
    """Metrics that another site shows, without a port of their own."""

    def test_resources(self) -> None:
        """No port is opened for them, and what is told is the same."""
        reactor: Any = MemoryReactor()
        monitoring = monitoring_of(Settings(), reactor, shown=True)
        assert monitoring is not None
        parts = MultiService()
        pages = monitoring.serve(parts, lambda: False, None, lambda: None, own_store=True, failed=self.fail)
        parts.startService()
        self.addCleanup(parts.stopService)
        site = site_of(reactor, {b"metrics": pages.metrics, b"healthz": pages.healthz})
        self.assertEqual(ask(site, "/healthz")[0], 200)
        self.assertIn(b"pop3toy_build_info{", ask(site, "/metrics")[2])
        self.assertEqual(reactor.tcpServers, [])


class InspectorTests(InspectorCase):
    """The inspector shows the same."""

    def test_metrics(self) -> None:
        """Whoever has its token is told, and nobody else."""
        self.client().say(b"USER user", b"PASS pass")
        answer = self.ask("/metrics")
        self.assertEqual(answer.status, 200)
        values = values_in(answer.body.decode())
        self.assertEqual(value(values, "pop3toy_sessions", protocol="POP3"), 1)
        self.assertEqual(value(values, "pop3toy_healthy"), 1)
        self.problem(401, "/metrics", token=None)

    def test_health(self) -> None:
        """It knows what /healthz knows."""
        self.client().say(b"USER user", b"PASS pass")
        self.assertTrue(self.ask("/api/status").json["healthy"])
        self.server.control.drain()
        self.assertEqual(self.ask("/healthz").status, 503)
        self.assertEqual(self.ask("/api/status").json["problems"], ["the server takes no more connections"])


class PagesTests(SynchronousTestCase):
    """docs/monitoring.rst, the alerts and the dashboard know the metrics that there are."""

    def test_table(self) -> None:
        """The page has a row for each metric, with its kind, its labels and what it says, and no other."""
        page = (DOCS / "monitoring.rst").read_text()
        rows = re.findall(r"   \* - ``(\w+)``\n     - (.*)\n     - (.*)\n     - (.*)\n", page)
        expected = [
            (one.name, one.kind, ", ".join(f"``{name}``" for name in one.labels) or "none", one.says)
            for one in METRICS
        ]
        self.assertEqual(rows, expected)

    def test_words(self) -> None:
        """Alerts and dashboard ask for metrics that there are, and for labels that these have."""
        alerts = (DOCS / "prometheus-alerts.yml").read_text()
        board = json.loads((DOCS / "grafana-dashboard.json").read_text())
        asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
        self.assertGreater(len(asked), 30)
        found = set()
        for text in (alerts, *asked):
            for name, by in re.findall(r"\b(pop3toy_\w+)(?:\{([^}]*)\})?", text):
                metric = re.sub(r"_(bucket|sum|count)$", "", name)
                self.assertIn(metric, NAMES, text)
                for label in re.findall(r'(\w+)(?:=~|!=|!~|=)"', by):
                    self.assertIn(label, {*NAMES[metric].labels, "instance", "job"}, text)
                found.add(metric)
        self.assertEqual(set(NAMES) - found - {"pop3toy_build_info"}, set())
        numbers = [panel["id"] for panel in board["panels"]]
        self.assertEqual(len(set(numbers)), len(numbers))

    @without_promtool
    def test_rules(self) -> None:
        """promtool takes the alerts."""
        self.assertIn("SUCCESS", promtool("check", "rules", DOCS / "prometheus-alerts.yml"))
