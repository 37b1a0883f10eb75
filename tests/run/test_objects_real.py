"""Servers as processes whose mail is on object storage: in memory, and on a server that speaks S3."""

from __future__ import annotations

import os
import signal
import smtplib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ..folders import new_folder
from ..realserver import (
    DEADLINE,
    POP3TOY,
    RealServer,
    ServerDied,
    free_port,
    listening,
    run_command,
    twistd,
    wait_until,
)
from ..s3servers import credentials_file
from ..smtp.test_smtp_real import without_trace
from ..stores.objects.places import AzurePlace, MotoPlace, Place
from ..strictclient import Refused, StrictClient, logged_in
from .test_monitoring import health

ANN = ("--user=ann:secret", "--create")


def send(port: int, *texts: bytes, to: str = "ann@localhost") -> None:
    """Mail by SMTP."""
    with smtplib.SMTP("127.0.0.1", port, timeout=DEADLINE) as sender:
        for text in texts:
            sender.sendmail("me@here.example", [to], text)


def message(number: int) -> bytes:
    """One of many messages."""
    return b"Subject: %d\r\n\r\n.hello\r\n" % number


class InMemoryTests(SynchronousTestCase):
    """``twistd pop3toy --store memory://x``."""

    def test_mail_in_and_out(self) -> None:
        """What SMTP brings POP3 fetches; what QUIT removes the next session does not find."""
        with RealServer("--store=memory://x", *ANN, "--smtp-port=0") as server:
            wait_until(lambda: "mail is in memory://x, which answered within " in server.log, "a first look")
            with logged_in(server.port) as client:
                self.assertEqual(client.stat().messages, 0)
            send(server.port_for("SMTP"), message(1), message(2))
            with logged_in(server.port) as client:
                self.assertEqual(client.stat().messages, 2)
                self.assertEqual(without_trace(client.retr(1)), message(1))
                uids = client.uids()
                with StrictClient(server.port) as second:
                    refused = self.assertRaises(Refused, second.login)
                    self.assertEqual(refused.code, b"IN-USE")
                client.dele(1)
            with logged_in(server.port) as client:
                self.assertEqual(list(client.uids().values()), [uids[2]])
                self.assertEqual(without_trace(client.retr(1)), message(2))
            smtp = server.port_for("SMTP")
            self.assertRaises(smtplib.SMTPRecipientsRefused, send, smtp, message(3), to="eve@localhost")
            self.assertTrue(server.terminate())

    def test_no_mailbox(self) -> None:
        """Without --create who has no mailbox is refused, not shown an empty one."""
        server = RealServer("--store=memory://x", "--user=ann:secret")
        with server, StrictClient(server.port) as client:
            self.assertEqual(self.assertRaises(Refused, client.login).code, b"SYS/TEMP")

    def test_daemon(self) -> None:
        """As a daemon it serves as well: nothing was connected before the process forked."""
        folder = new_folder(self)
        command = twistd("--pidfile=twistd.pid", "--logfile=twistd.log", "pop3toy", "--port=0")
        done = run_command(*command, "--store=memory://x", *ANN, folder=folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        log = folder / "twistd.log"
        wait_until(lambda: log.exists() and "POP3" in listening(log.read_text()), "it listens")
        process = int((folder / "twistd.pid").read_text())
        try:
            with logged_in(listening(log.read_text())["POP3"]) as client:
                self.assertEqual(client.stat().messages, 0)
        finally:
            os.kill(process, signal.SIGTERM)
            wait_until(lambda: not (folder / "twistd.pid").exists(), "it ends")

    def test_folders(self) -> None:
        """Folders are refused when they are asked for, and the log says why."""
        folder = new_folder(self)
        with RealServer(f"--store=file://{folder}/objects", *ANN) as server:
            wait_until(lambda: "does not answer as it should: " in server.log, "a first look")
            with StrictClient(server.port) as client:
                self.assertEqual(self.assertRaises(Refused, client.login).code, b"SYS/TEMP")

    def test_commands(self) -> None:
        """Commands refuse a store that would be gone when they end."""
        for words in (["deliver", "ann"], ["mailbox", "list"]):
            done = run_command(*POP3TOY, *words, "--store=memory://x", folder=new_folder(self), stdin="x")
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("memory:// is in one process alone", done.stderr)


class NoCredentialsTests(SynchronousTestCase):
    """Nothing says with which credentials the store is asked."""

    def test_one_line(self) -> None:
        """The start ends with one line, with workers and without."""
        command = twistd("-n", "--pidfile=", "pop3toy", "--port=0", "--store=s3://mail", "--user=ann:secret")
        for more in ((), ("--workers=2",)):
            done = run_command(*command, *more, folder=new_folder(self))
            self.assertEqual(done.returncode, 1)
            [line] = done.stderr.splitlines()
            self.assertIn(
                "--store s3:// needs credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", line
            )


class UnreachableTests(SynchronousTestCase):
    """Nobody listens where the store should be."""

    def test_goes_on(self) -> None:
        """The server starts, says so, puts logins off, and /healthz tells it."""
        folder = new_folder(self)
        endpoint = f"http://127.0.0.1:{free_port()}"
        port = free_port()
        with RealServer(
            "--store=s3://mail",
            f"--store-endpoint={endpoint}",
            f"--store-credentials={credentials_file(folder)}",
            f"--metrics={port}",
            *ANN,
        ) as server:
            with StrictClient(server.port) as client:
                self.assertEqual(self.assertRaises(Refused, client.login).code, b"SYS/TEMP")
            wait_until(lambda: "which does not answer as it should: " in server.log, "a first look")
            self.assertIn(f"mail is in s3://mail at {endpoint}, which", server.log)
            status, problems = health(port)
            self.assertEqual((status, len(problems)), (503, 1), problems)


class NetworkCase(Place):
    """On a server on the network."""

    def options(self, folder: Path) -> list[str]:
        """Where it is."""
        return [
            f"--store={self.url}",
            f"--store-endpoint={self.endpoint}",
            f"--store-credentials={self.credentials}",
        ]

    def test_workers(self) -> None:
        """Workers share it: what comes in by any of them goes out by any, to one session at a time."""
        folder = new_folder(self)
        port = free_port()
        options = [*self.options(folder), *ANN, "--store-node=one", "--workers=2", f"--metrics={port}"]
        with RealServer(*options, "--smtp-port=0") as server:
            wait_until(lambda: "which answered within" in server.log, "a first look")
            for number in range(4):
                send(server.port_for("SMTP"), message(number))
            for _ in range(4):
                with logged_in(server.port) as client:
                    self.assertEqual(client.stat().messages, 4)
                    with StrictClient(server.port) as second:
                        self.assertEqual(self.assertRaises(Refused, second.login).code, b"IN-USE")
            self.assertEqual(server.log.count("which answered within"), 1)
            self.assertEqual(health(port), (200, []))
            died = self.assertRaises(ServerDied, RealServer, *options[:-1], folder=folder)
            self.assertIn("pop3toy: --store-node: another server on this machine has this name", str(died))
            self.assertTrue(server.terminate())

    def test_node(self) -> None:
        """A server that was killed gets its own locks back at once when it is started again."""
        options = [*self.options(new_folder(self)), *ANN, "--store-node=two"]
        with RealServer(*options) as server, StrictClient(server.port) as client:
            client.login()
            server.kill()
        with RealServer(*options) as server, logged_in(server.port) as client:
            self.assertEqual(client.stat().messages, 0)

    def test_commands(self) -> None:
        """The commands find it by options and by variables, deliver into it, and show what is there."""
        folder = new_folder(self)
        variables = {
            "POP3TOY_STORE": self.url,
            "POP3TOY_STORE_ENDPOINT": self.endpoint or "",
            "POP3TOY_STORE_CREDENTIALS": self.credentials or "",
        }

        def run(*words: str, stdin: str = "", **environ: str) -> str:
            done = run_command(*POP3TOY, *words, folder=folder, stdin=stdin, **environ)
            self.assertEqual(done.returncode, 0, done)
            return done.stdout

        options = self.options(folder)
        run("deliver", "--create", *options, "ann", stdin="Subject: one\n\nhello\n")
        run("deliver", "ann", stdin="Subject: two\n\nhello\n", **variables)
        self.assertIn("ann                        2 messages", run("mailbox", "list", *options))
        self.assertIn(": two", run("mailbox", "list", "ann", **variables))
        self.assertIn("Subject: one", run("mailbox", "show", *options, "ann", "1"))
        self.assertIn("hello", run("mailbox", "export", *options, "ann", "-"))
        (folder / "accounts").write_text("ann:{PLAIN}secret\n")
        (folder / "more.eml").write_text("Subject: three\n\nhello\n")
        accounts = f"--accounts={folder}/accounts"
        run("mailbox", "import", *options, accounts, "ann", str(folder / "more.eml"))
        run("mailbox", "check", *options)
        with RealServer(*options, accounts) as server, logged_in(server.port) as client:
            self.assertEqual(client.stat().messages, 3)
        run("mailbox", "remove", "--yes", *options, "ann")
        self.assertNotIn("ann", run("mailbox", "list", *options))


class S3Tests(NetworkCase, MotoPlace):
    """That speaks S3."""


class AzureTests(NetworkCase, AzurePlace):
    """That speaks as Azure's blob service does."""


del NetworkCase
