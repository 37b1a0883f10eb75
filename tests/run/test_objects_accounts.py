"""Servers as processes that share accounts and mail in one object store."""

from __future__ import annotations

import smtplib
from pathlib import Path

from ..folders import new_folder
from ..realserver import DEADLINE, POP3TOY, RealServer, run_command, wait_until
from ..stores.objects.places import MotoPlace
from ..strictclient import Refused, StrictClient


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
        with (
            RealServer(*self.options(), "--smtp-port=0") as one,
            RealServer(*self.options(), "--workers=2") as two,
        ):
            for server in (one, two):
                wait_until(lambda server=server: "there are no users yet" in server.log, "it looks around")  # type: ignore[misc]
                why = self.assertRaises(Refused, self.log_in, server, "Ann", "secret")
                self.assertEqual(why.code, b"AUTH")
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
