"""Several servers behind a real HAProxy, with the files of ``docs/examples/haproxy``: no session fails."""

from __future__ import annotations

import csv
import itertools
import random
import re
import shutil
import smtplib
import socket
import subprocess
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from pop3toy.auth.accounts.admin import add_user
from pop3toy.config import toml
from pop3toy.config.table import settings_of

from ..folders import new_folder
from ..mailserver import LOOPBACK
from ..realserver import DEADLINE, RealServer, maildir_options, wait_until
from ..stores.objects.places import CephPlace, MotoPlace
from ..strictclient import Refused, StrictClient, logged_in
from ..tls_world import Authority, Wire, trusting
from .test_monitoring import health

PAGE = Path(__file__).parent.parent.parent / "docs" / "scaling.rst"
EXAMPLES = PAGE.parent / "examples" / "haproxy"
#: What HAProxy looks for in the words of a server that takes no connections.
EXPECTED = re.findall(r'expect ! rstring "(.*)"', (EXAMPLES / "haproxy.cfg").read_text("utf-8"))[0]
#: The servers of the example, and their addresses there.
SERVERS: Final = {"one": "192.0.2.11", "two": "192.0.2.12"}
USERS: Final = ("ann", "bob", "cat", "dan", "held", "probe")
#: Those that fetch all the time.
POLLED: Final = USERS[:4]


def unused_ports() -> Iterator[int]:
    """Ports that nobody has; none that the system gives to connections: servers come back to theirs."""
    for port in itertools.count(random.randrange(10_000, 30_000)):
        try:
            with socket.create_server((LOOPBACK, port)):
                pass
        except OSError:
            continue
        yield port


class Balanced:
    """Two servers with the options of the example, and HAProxy with its configuration.

    :param folder: for all their files.
    :param authority: has signed their certificate.
    :param options: gives those of a server, besides, by its name.
    :param change: is given the configuration of HAProxy, and returns another one.
    """

    def __init__(
        self,
        folder: Path,
        authority: Authority,
        options: Callable[[str], Sequence[str]],
        change: Callable[[str], str] = lambda text: text,
    ) -> None:
        self._folder = folder
        self._authority = authority
        self._options = options
        self._unused = unused_ports()
        #: By address, if any, and port in the example.
        self._ports: dict[tuple[str, str], int] = {}
        #: What servers have said that are no more.
        self._logs = dict.fromkeys(SERVERS, "")
        self._socket = folder / "admin.sock"
        accounts = folder / "accounts"
        for user in USERS:
            add_user(accounts, user, "secret", scheme="PLAIN")
        authority.issue(LOOPBACK, ends=timedelta(days=30)).write(folder / "certificate.pem")
        self.servers: dict[str, RealServer] = {}
        self._haproxy: subprocess.Popen[bytes] | None = None
        try:
            for name in SERVERS:
                self.start(name)
            self._start_haproxy(change)
            wait_until(lambda: self._all_up(), "HAProxy finds both servers")
        except BaseException:
            self.end()
            raise

    def _port(self, host: str, port: str) -> int:
        if (host, port) not in self._ports:
            self._ports[host, port] = next(self._unused)
        return self._ports[host, port]

    def start(self, name: str) -> None:
        """Start a server, maybe again: at the same ports."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        text = (EXAMPLES / "pop3toy.toml").read_text("utf-8")
        text = re.sub(
            r"tcp:(\d+):interface=192\.0\.2\.11",
            lambda found: f"tcp:{self._port(SERVERS[name], found[1])}:interface={LOOPBACK}",
            text,
        )
        text = text.replace("/etc/pop3toy/", f"{self._folder}/").replace("key.pem", "certificate.pem")
        (folder / "pop3toy.toml").write_text(text)
        self.servers[name] = RealServer(
            "--config=pop3toy.toml",
            f"--accounts={self._folder}/accounts",
            *self._options(name),
            folder=folder,
        )

    def _start_haproxy(self, change: Callable[[str], str]) -> None:
        text = (EXAMPLES / "haproxy.cfg").read_text("utf-8")
        text = re.sub(
            r"(192\.0\.2\.\d+):(\d+)", lambda found: f"{LOOPBACK}:{self._port(found[1], found[2])}", text
        )
        text = re.sub(r"bind \S*:(\d+)", lambda found: f"bind {LOOPBACK}:{self.port(int(found[1]))}", text)
        text = re.sub(r"^ +(user|group) .*\n", "", text, flags=re.MULTILINE)
        # Whoever runs the tests may have few open files.
        text = text.replace("maxconn 20000", "maxconn 200")
        text = text.replace("/run/haproxy/admin.sock", str(self._socket)).replace(
            "log /dev/log local0", "log stdout format raw local0"
        )
        file = self._folder / "haproxy.cfg"
        file.write_text(change(text))
        with (self._folder / "haproxy.log").open("wb") as words:
            self._haproxy = subprocess.Popen(
                ["haproxy", "-db", "-f", file], stdin=subprocess.DEVNULL, stdout=words, stderr=words
            )
        wait_until(self._haproxy_runs, "HAProxy runs")

    def _haproxy_runs(self) -> bool:
        assert self._haproxy is not None
        if self._haproxy.poll() is not None:
            raise AssertionError((self._folder / "haproxy.log").read_text())
        return self._socket.exists()

    def port(self, number: int) -> int:
        """Where HAProxy listens for what the example has at this port."""
        return self._port("", str(number))

    def states(self) -> dict[tuple[str, str], str]:
        """What HAProxy knows of each server: ``UP``, ``DOWN``, by the section's name and its own."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(DEADLINE)
            asking.connect(str(self._socket))
            asking.sendall(b"show stat\n")
            with asking.makefile("r") as answer:
                rows = list(csv.DictReader(answer))
        return {(row["# pxname"], row["svname"]): row["status"] for row in rows}

    def _all_up(self) -> bool:
        return all(self.is_up(name) for name in SERVERS)

    def is_up(self, name: str) -> bool:
        """Whether HAProxy sends clients to a server."""
        return self.states()["pop3", name].startswith("UP")

    def log(self, name: str) -> str:
        """All that a server has said, before it was started again as well."""
        return self._logs[name] + self.servers[name].log

    def ended(self, name: str) -> bool:
        """Wait for a server that was told to end; whether it ended in order."""
        # Another SIGTERM would cut its notice short.
        self.servers[name].process.wait(DEADLINE)
        in_order = self.servers[name].terminate()
        self._logs[name] += self.servers[name].log
        self.servers[name].log_file.unlink()
        return in_order

    def server_of(self, source: str) -> str:
        """The server where clients of an address come."""
        with logged_in(self.port(110), b"probe", source=source):
            pass
        line = re.compile(rf"login: session=\d+ rip={re.escape(source)} user='probe'")
        found: list[str] = []

        def told() -> bool:
            found.extend(name for name in SERVERS if line.search(self.log(name)))
            return bool(found)

        wait_until(told, "a server tells the login")
        return found[0]

    def address_of(self, name: str) -> str:
        """An address whose clients come to this server now."""
        return next(source for n in range(100, 200) if self.server_of(source := f"127.0.0.{n}") == name)

    def end(self) -> None:
        """End all of them."""
        if self._haproxy is not None:
            self._haproxy.kill()
            self._haproxy.wait(DEADLINE)
        for server in self.servers.values():
            server.kill()


class Busy:
    """Clients that fetch, delete and send all the time, each from an address of its own.

    :param balanced: where they connect.
    """

    def __init__(self, balanced: Balanced) -> None:
        self._balanced = balanced
        self._stop = threading.Event()
        #: What went wrong, of whomever.
        self.failures: list[str] = []
        #: The words of messages that were taken, and of those that were fetched and deleted.
        self.taken: Counter[str] = Counter()
        self.fetched: Counter[str] = Counter()
        self.sessions = 0
        self._lock = threading.Lock()
        pollers = [
            threading.Thread(target=self._repeat, args=(self.poll, user, f"127.0.0.{10 + n}"))
            for n, user in enumerate(POLLED)
        ]
        senders = [
            threading.Thread(target=self._repeat, args=(self._send, kind, f"127.0.0.{20 + n}"))
            for n, kind in enumerate(("lmtp", "smtp"))
        ]
        self._threads = [*pollers, *senders]
        for thread in self._threads:
            thread.start()

    def _repeat(self, session: Callable[[str, str], None], what: str, source: str) -> None:
        while not self._stop.is_set():
            try:
                session(what, source)
            except Exception:
                self.failures.append(f"{time.ctime()} {what} from {source}: {traceback.format_exc()}")
            self._stop.wait(0.1)

    def poll(self, user: str, source: str) -> None:
        """Fetch and remove all that there is."""
        words = []
        with logged_in(self._balanced.port(110), user.encode(), source=source) as client:
            for number in client.sizes():
                [word] = re.findall(rb"Subject: (\w+)", client.retr(number))
                words.append(word.decode())
                client.dele(number)
        with self._lock:
            self.fetched.update(words)
            self.sessions += 1

    def _send(self, kind: str, source: str) -> None:
        make, port = {"lmtp": (smtplib.LMTP, 2400), "smtp": (smtplib.SMTP, 25)}[kind]
        with make(LOOPBACK, self._balanced.port(port), source_address=(source, 0)) as sender:  # type: ignore[operator]
            for user in POLLED[:3]:
                word = uuid.uuid4().hex
                sender.sendmail("eve@example.org", f"{user}@example.org", f"Subject: {word}\n\nhello\n")
                with self._lock:
                    self.taken[word] += 1

    def more(self, sessions: int = 20) -> None:
        """Wait until so many more sessions have ended well."""
        enough = self.sessions + sessions
        wait_until(lambda: self.sessions >= enough or bool(self.failures), "clients come and go")

    def end(self) -> None:
        """Have them stop, when each session has ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE)

    def __enter__(self) -> Busy:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class HAProxyCase(SynchronousTestCase):
    """Two servers on the same Maildirs behind HAProxy; skipped where that is missing."""

    def setUp(self) -> None:
        if shutil.which("haproxy") is None:
            raise SkipTest("haproxy is not installed")
        super().setUp()
        self.folder = new_folder(self)
        (self.folder / "mail").mkdir()
        self.authority = Authority(self.folder)

    def where(self, server: str) -> list[str]:
        """The options that say where a server finds the mail."""
        return [f"--maildir={self.folder}/mail/{{user}}", "--create"]

    def balanced(self, *options: str, check: str = "inter 200ms") -> Balanced:
        """The servers.

        :param check: how often HAProxy asks them whether they are well.
        """
        balanced = Balanced(
            self.folder,
            self.authority,
            lambda name: [*self.where(name), *options],
            change=lambda text: text.replace("inter 1s", check),
        )
        self.addCleanup(balanced.end)
        return balanced


class ConfigurationTests(HAProxyCase):
    """The files as they stand, and what ``docs/scaling.rst`` says of them."""

    def assertValid(self, file: Path) -> None:
        """HAProxy takes it, without a warning."""
        command: list[str | Path] = ["haproxy", "-c", "-f", file]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
        said = done.returncode, done.stdout, done.stderr
        self.assertEqual(said, (0, "Configuration file is valid\n", ""))

    def test_valid(self) -> None:
        """It has no mistake, nor has what the page adds to it."""
        self.assertValid(EXAMPLES / "haproxy.cfg")
        counting = re.findall(r"^ {4}(?:stick-table|tcp-request) .*\n", PAGE.read_text("utf-8"), re.MULTILINE)
        self.assertEqual(len(counting), 3)
        file = self.folder / "haproxy.cfg"
        text = (EXAMPLES / "haproxy.cfg").read_text("utf-8")
        file.write_text(re.sub(r"^(listen pop3s?\n)", rf"\1{''.join(counting)}", text, flags=re.MULTILINE))
        self.assertEqual(file.read_text().count("stick-table"), 2)
        self.assertValid(file)

    def test_options(self) -> None:
        """The servers' file is settings for a server, whose ports are those that HAProxy knows."""
        settings = settings_of(toml.read(str(EXAMPLES / "pop3toy.toml")))
        settings.check_whole()
        ports = [*settings.listen, *settings.tls_listen, *settings.smtp, *settings.submission]
        ports += [*settings.submission_tls, *settings.lmtp, settings.metrics or ""]
        known = re.findall(rf"{SERVERS['one']}:(\d+)", (EXAMPLES / "haproxy.cfg").read_text("utf-8"))
        self.assertEqual({port.removeprefix("haproxy:").split(":")[1] for port in ports}, set(known))

    def test_unit(self) -> None:
        """The page's command makes a unit that asks for no socket of systemd's, and changes nothing else."""
        [command] = re.findall(r"^ {4}(sed -e .*\\\n.*)\n", PAGE.read_text("utf-8"), re.MULTILINE)
        command = command.replace("/etc/systemd/system", str(self.folder))
        subprocess.run(["sh", "-c", command], cwd=PAGE.parent.parent, check=True)
        before = (PAGE.parent / "systemd" / "pop3toy.service").read_text().splitlines()
        after = (self.folder / "pop3toy.service").read_text().splitlines()
        gone = {"Requires=pop3toy.socket", "After=network.target time-sync.target pop3toy.socket"}
        self.assertEqual(set(before) - set(after), gone)
        self.assertEqual(set(after) - set(before), {"After=network.target time-sync.target"})


class NoticeTests(SynchronousTestCase):
    """A server that is told to stop, without HAProxy."""

    def stopped(self, *options: str) -> None:
        """It says so at once, serves until the delay has passed, and ends when it is told twice."""
        port = next(unused_ports())
        maildir = maildir_options(new_folder(self))
        with RealServer("--stop-delay=3600", f"--metrics={port}", "--create", *maildir, *options) as server:
            wait_until(lambda: health(port) == (200, []), "it is well")
            server.signal_to_end()
            wait_until(lambda: health(port)[0] == 503, "it says that it stops")
            self.assertTrue(re.search(EXPECTED, health(port)[1][0]), "HAProxy knows these words")
            with logged_in(server.port):
                pass
            self.assertTrue(server.terminate())

    def test_one_process(self) -> None:
        """One process."""
        self.stopped()

    def test_workers(self) -> None:
        """Workers: the notice is their supervisor's, once."""
        self.stopped("--workers=2")


class RollingRestartTests(HAProxyCase):
    """Servers that are stopped and started one after another."""

    def test_rolling_restart(self) -> None:
        """No client sees a refused or broken session, no message is lost or there twice.

        A session that a server has when it is told to stop goes on, and keeps its mailbox from the
        other server; then it ends, and the mailbox is free.
        """
        balanced = self.balanced("--lock-wait=0")
        with Busy(balanced) as busy:
            busy.more()
            for name in SERVERS:
                self.restart_with_session(balanced, name)
                busy.more()
            self.assertEqual(busy.failures, [])
        self.assertEqual(busy.failures, [])
        for user in POLLED:
            busy.poll(user, LOOPBACK)
        self.assertGreater(len(busy.taken), 50)
        self.assertEqual(busy.fetched, busy.taken)
        self.assertEqual(set(busy.fetched.values()), {1})

    def restart_with_session(self, balanced: Balanced, name: str) -> None:
        """Stop a server that has a session, and start it again."""
        pop3, lmtp = balanced.port(110), balanced.port(2400)
        with smtplib.LMTP(LOOPBACK, lmtp) as sender:
            sender.sendmail("", "held@example.org", b"Subject: one\r\n\r\nof two\r\n")
            sender.sendmail("", "held@example.org", b"Subject: two\r\n\r\nof two\r\n")
        source = balanced.address_of(name)
        with logged_in(pop3, b"held", source=source) as held:
            self.assertEqual(len(held.sizes()), 2)
            balanced.servers[name].signal_to_end()
            wait_until(lambda: not balanced.is_up(name), "HAProxy knows that the server stops")
            with StrictClient(pop3, source=source) as other:
                self.assertEqual(self.assertRaises(Refused, other.login, b"held").code, b"IN-USE")
            self.assertIn(b"of two", held.retr(1))
            held.dele(1)
        with logged_in(pop3, b"held", source=source) as after:
            self.assertEqual(len(after.sizes()), 1)
            after.dele(1)
        self.assertTrue(balanced.ended(name))
        balanced.start(name)
        wait_until(lambda: balanced.is_up(name), "HAProxy knows that the server is back")


class MotoRestartTests(RollingRestartTests, MotoPlace):
    """The same where mail is on object storage, moto's."""

    def where(self, server: str) -> list[str]:
        """See above."""
        return self.options(node=server)


class CephRestartTests(RollingRestartTests, CephPlace):
    """The same on a real Ceph."""

    def where(self, server: str) -> list[str]:
        """See above."""
        return self.options(node=server)


class ClientsTests(HAProxyCase):
    """What is known of clients, and what they hear."""

    def test_killed(self) -> None:
        """A server that is gone before HAProxy knows it: who connects comes to the other one."""
        balanced = self.balanced(check="inter 1m")
        gone = balanced.server_of("127.0.0.50")
        balanced.servers[gone].kill()
        for n in range(50, 60):
            with logged_in(balanced.port(110), source=f"127.0.0.{n}"):
                pass
        self.assertTrue(balanced.is_up(gone), "HAProxy has not asked again meanwhile")

    def test_addresses(self) -> None:
        """Log and penalties know the client's address, at one server; through TLS as well."""
        balanced = self.balanced()
        source = "127.0.0.77"
        name = balanced.server_of(source)
        began = time.monotonic()
        for _ in range(4):
            with StrictClient(balanced.port(110), source=source) as client:
                self.assertEqual(self.assertRaises(Refused, client.login, b"ann", b"wrong").code, b"AUTH")
        # Three are free, the next one waits for a second.
        self.assertGreater(time.monotonic() - began, 0.9)
        failed = re.compile(rf"login failed: session=\d+ rip={re.escape(source)} user='ann'")
        self.assertEqual(
            {one: len(failed.findall(balanced.log(one))) for one in SERVERS},
            {one: 4 * (one == name) for one in SERVERS},
        )
        with Wire(balanced.port(995)) as wire:
            wire.starttls(trusting(self.authority), LOOPBACK)
            self.assertIn(b"+OK", wire.line())

    def test_all_ill(self) -> None:
        """Where no server reaches the mail, clients are told so, and are not turned away by HAProxy."""
        balanced = self.balanced()
        (self.folder / "mail").rename(self.folder / "elsewhere")
        for name in SERVERS:
            wait_until(lambda name=name: not balanced.is_up(name), "a server is ill")  # type: ignore[misc]
        with StrictClient(balanced.port(110)) as client:
            self.assertEqual(self.assertRaises(Refused, client.login).code, b"SYS/TEMP")
        with smtplib.LMTP(LOOPBACK, balanced.port(2400)) as sender:
            refused = self.assertRaises(
                smtplib.SMTPRecipientsRefused, sender.sendmail, "", "ann@example.org", b"\r\n"
            )
            self.assertEqual(refused.recipients["ann@example.org"][0], 451)
