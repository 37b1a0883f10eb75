"""Servers as processes that share accounts and mail in one object store."""

from __future__ import annotations

import smtplib
from pathlib import Path
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import Settings, server
from pop3toy.run.checks import check_files, check_sources
from pop3toy.stores.objects.engine import Engine
from pop3toy.stores.objects.settings import Objects

from ..folders import new_folder
from ..realserver import DEADLINE, POP3TOY, RealServer, free_port, run_command, wait_until
from ..stores.objects.places import MotoPlace
from ..strictclient import Refused, StrictClient
from .test_monitoring import health


class NotRunning(MemoryReactorClock):
    """A reactor that does not run yet."""

    def callFromThread(self, function: Any, *args: Any, **named: Any) -> None:
        raise AssertionError("a thread has worked before the reactor runs")


class BeforeTheStartTests(SynchronousTestCase):
    """The store is asked for no account before the reactor runs."""

    def setUp(self) -> None:
        self.asked: list[object] = []
        self.patch(Engine, "_connected", lambda engine: self.asked.append(engine))

    def test_nothing_asked(self) -> None:
        """Whatever the options name is taken to be there, by checks and by a server that is started."""
        folder = new_folder(self)
        (folder / "aliases").write_text("info: ann\n")
        store = Objects(f"memory://{folder}")
        for more in (
            {"masters": ("root",), "anonymous": "guest"},
            {"smtp_port": 0, "aliases": f"{folder}/aliases", "catch_all": "ann"},
            {"users": (("bob", "x"),), "submission_port": 0, "metrics": 0, "renew_hashes": True},
        ):
            settings = Settings(port=0, store=store, accounts="objects", **more)  # type: ignore[arg-type]
            settings.check_whole()
            self.assertEqual(settings, Settings.from_json(settings.to_json()))
            reactor: Any = NotRunning()
            with capturedLogs() as logs:
                check_files(settings)
                check_sources(settings, reactor)
                made = server(reactor, settings)
                made.startService()
            self.assertEqual([], self.asked, more)
            told = [formatEvent(one) for one in logs]
            self.assertFalse([one for one in told if "no such user" in str(one)], told)
            made.stopService()


class SharedAccountsTests(MotoPlace):
    """``--accounts objects``."""

    def options(self) -> list[str]:
        """Where accounts and mail are."""
        return [
            f"--store={self.url}",
            f"--store-endpoint={self.endpoint}",
            f"--store-credentials={self.credentials}",
            "--accounts=objects",
        ]

    def user(self, *words: str, folder: Path, stdin: str = "secret\n") -> None:
        """``pop3toy user``."""
        command, *rest = words
        done = run_command(*POP3TOY, "user", command, *self.options(), *rest, folder=folder, stdin=stdin)
        self.assertEqual(done.returncode, 0, done.stderr)

    def log_in(self, server: RealServer, name: str, password: str) -> int:
        """How many messages a user has."""
        with StrictClient(server.port) as client:
            client.login(name.encode(), password.encode())
            count: int = client.stat().messages
            return count

    def test_two_servers(self) -> None:
        """Who is added can log in at each server at once, has a mailbox, and gets mail in any spelling."""
        folder = new_folder(self)
        ports = free_port(), free_port()
        with (
            RealServer(*self.options(), "--smtp-port=0", f"--metrics={ports[0]}") as one,
            RealServer(*self.options(), "--workers=2", f"--metrics={ports[1]}") as two,
        ):
            for server in (one, two):
                wait_until(lambda server=server: "there are no users yet" in server.log, "it looks around")  # type: ignore[misc]
                why = self.assertRaises(Refused, self.log_in, server, "Ann", "secret")
                self.assertEqual(why.code, b"AUTH")
            self.assertEqual([(200, []), (200, [])], [health(port) for port in ports])
            self.user("add", "--stdin", "-s", "PLAIN", "Ann", folder=folder)
            for server in (one, two):
                self.assertEqual(self.log_in(server, "ann", "secret"), 0)
                why = self.assertRaises(Refused, self.log_in, server, "Ann", "wrong")
                self.assertEqual(why.code, b"AUTH")
            with smtplib.SMTP("127.0.0.1", one.port_for("SMTP"), timeout=DEADLINE) as sender:
                sender.sendmail("me@here.example", ["ANN@localhost"], b"Subject: x\r\n\r\nhello\r\n")
                with self.assertRaises(smtplib.SMTPRecipientsRefused):
                    sender.sendmail("me@here.example", ["eve@localhost"], b"x\r\n")
            self.assertEqual(self.log_in(two, "Ann", "secret"), 1)
            self.user("passwd", "--stdin", "ann", folder=folder, stdin="other\n")
            self.assertRaises(Refused, self.log_in, two, "Ann", "secret")
            self.assertEqual(self.log_in(two, "Ann", "other"), 1)
            self.user("del", "-y", "ann", folder=folder)
            self.assertRaises(Refused, self.log_in, one, "Ann", "other")
            self.assertTrue(one.terminate())
            self.assertTrue(two.terminate())

    def test_announced(self) -> None:
        """What is known of all users when the server starts is announced soon."""
        folder = new_folder(self)
        self.user("add", "--stdin", "-s", "PLAIN", "ann", folder=folder)
        with RealServer(*self.options()) as server:

            def announces() -> bool:
                with StrictClient(server.port) as client:
                    return "SCRAM-SHA-256" in str(client.capa())

            wait_until(announces, "SCRAM is announced")
