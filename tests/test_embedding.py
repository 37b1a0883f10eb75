"""docs/embedding.rst: what it shows works as it stands there."""

from __future__ import annotations

import ast
import inspect
import unittest
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

import pop3toy
from pop3toy import MemoryAccounts, MemoryStore, Settings, interfaces, server

from .memory_world import MemoryReactor, StringClient, talk
from .pages import literal_blocks, page

PAGE = "docs/embedding.rst"


def with_words(words: str) -> dict[str, Any]:
    """The names of the one block in which these words stand, after it has run."""
    [block] = ["\n".join(lines) for lines in literal_blocks(PAGE) if any(words in line for line in lines)]
    names: dict[str, Any] = {"__name__": "shown"}
    exec(compile(block, PAGE, "exec"), names)
    return names


class BlockTests(SynchronousTestCase):
    """The programs on the page."""

    def test_names(self) -> None:
        """Each is Python, and imports public names of pop3toy."""
        blocks = list(literal_blocks(PAGE))
        self.assertGreater(len(blocks), 5)
        for lines in blocks:
            for node in ast.walk(ast.parse("\n".join(lines))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pop3toy"):
                    self.assertEqual(node.module, "pop3toy")
                    self.assertLessEqual({alias.name for alias in node.names}, set(pop3toy.__all__))

    def test_server(self) -> None:
        """The service that it makes serves the message in it."""
        reactor = MemoryReactor()
        service = with_words("def mail_service")["mail_service"](reactor, 1)
        service.startService()
        self.addCleanup(lambda: self.successResultOf(service.stopService()))
        [(_, factory, _, _)] = reactor.tcpServers
        self.assertIn(b"+OK maildrop has 1 message", talk(factory, b"USER ann", b"PASS secret"))

    def test_parts(self) -> None:
        """So does the factory that it puts together."""
        factory = with_words("def mail_factory")["mail_factory"](MemoryReactor())
        self.assertIn(b"+OK maildrop has 0 messages", talk(factory, b"USER ann", b"PASS secret"))

    def test_observer(self) -> None:
        """Its observer counts failures, of each address, until a login goes well."""
        failures = with_words("class Failures")["Failures"]()
        reactor = MemoryReactor()
        settings = Settings(port=1, users=(("ann", "secret"),), transcript="off")
        service = server(reactor, settings, observers=[failures])
        service.startService()
        self.addCleanup(lambda: self.successResultOf(service.stopService()))
        [(_, factory, _, _)] = reactor.tcpServers
        talk(factory, b"APOP ann x", b"AUTH PLAIN AGFubgBiYWQ=")
        self.assertEqual(failures.of, {"127.0.0.1": 1})
        talk(factory, b"USER ann", b"PASS secret")
        self.assertEqual(failures.of, {})

    def test_gate(self) -> None:
        """Its gate loses an answer to DELE and one behind a message, which take effect; RETR is late."""
        reactor = MemoryReactor()
        gate = with_words("class BadLine")["BadLine"](reactor)
        store = MemoryStore({"ann": [b"Subject: x\n\nx\n"]})
        settings = Settings(port=1, smtp_port=2, users=(("ann", "secret"),), transcript="off")
        service = server(reactor, settings, store=store, gate=gate)
        service.startService()
        self.addCleanup(lambda: self.successResultOf(service.stopService()))
        pop3, smtp = (one[1] for one in reactor.tcpServers)
        letter = [b"MAIL FROM:<>", b"RCPT TO:<ann@localhost>", b"DATA", b"Subject: y", b"", b"y", b"."]
        said = talk(smtp, b"HELO me", *letter, *letter)
        self.assertEqual(
            [line[:3] for line in said.splitlines()][1:],
            [b"250"] * 3 + [b"354"] + [b"250"] * 2 + [b"354", b"250"],
        )
        self.assertEqual(len(store.messages("ann")), 3)
        login = b"USER ann", b"PASS secret"
        said = talk(pop3, *login, b"DELE 1", b"DELE 2", b"QUIT")
        self.assertEqual(said.count(b"deleted"), 1)
        self.assertEqual(len(store.messages("ann")), 1)
        client = StringClient(pop3)
        client.say(*login, b"RETR 1", b"NOOP")
        reactor.advance(2)
        self.assertEqual(client.read(), b"")
        reactor.advance(1)
        self.assertTrue(client.read().endswith(b"y\r\n.\r\n+OK\r\n"))
        client.leave()

    def test_control(self) -> None:
        """What it shows of a running server ends silent sessions, and lets nobody in meanwhile."""
        names = with_words("def close_silent")
        reactor = MemoryReactor()
        settings = Settings(port=1, users=(("ann", "secret"), ("bob", "secret")), transcript="off")
        service = server(reactor, settings, store=MemoryStore({"ann": [], "bob": []}))
        service.startService()
        self.addCleanup(lambda: self.successResultOf(service.stopService()))
        [(_, factory, _, _)] = reactor.tcpServers
        client = StringClient(factory)
        client.say(b"USER ann", b"PASS secret")
        reactor.advance(30)
        self.assertEqual(names["close_silent"](service, 31), [])
        self.assertEqual(names["close_silent"](service, 30), ["ann"])
        self.assertTrue(client.closed)
        client.leave()
        login = b"USER bob", b"PASS secret"
        done = Deferred.fromCoroutine(names["undisturbed"](service, lambda: talk(factory, *login)))
        reactor.advance(1)
        self.assertNotIn(b"maildrop has", self.successResultOf(done))
        self.assertIn(b"maildrop has", talk(factory, *login))

    def test_delivery(self) -> None:
        """Its store takes mail, lists it, and refuses to remove it."""
        store = with_words("class Lists")["Lists"]("ann")
        reactor = MemoryReactor()
        service = server(
            reactor, Settings(port=1, smtp_port=2), store=store, checkers=[MemoryAccounts({"ann": "secret"})]
        )
        service.startService()
        self.addCleanup(lambda: self.successResultOf(service.stopService()))
        pop3, smtp = (one[1] for one in reactor.tcpServers)
        letter = [
            b"MAIL FROM:<me@example.org>",
            b"RCPT TO:<ann@localhost>",
            b"DATA",
            b"Subject: x",
            b"",
            b"x",
            b".",
        ]
        self.assertEqual(talk(smtp, b"HELO me", *letter).splitlines()[-1][:3], b"250")
        said = talk(pop3, b"USER ann", b"PASS secret", b"RETR 1", b"DELE 1", b"QUIT")
        self.assertIn(b"Subject: x\r\n\r\nx\r\n.\r\n-ERR", said)

    def test_tests(self) -> None:
        """Its tests pass, and fail where the peer is the one that StringTransport says by itself."""
        names = with_words("class FetchTests")
        for client, passes in ((names["CLIENT"], True), (StringTransport().getPeer(), False)):
            names["CLIENT"] = client
            result = unittest.TestResult()
            for name in ("test_fetch", "test_deleted_at_quit"):
                names["FetchTests"](name).run(result)
            self.assertEqual((result.testsRun, result.wasSuccessful()), (2, passes), result)

    def test_methods(self) -> None:
        """Each method of the interfaces has its paragraph, with its parameters."""
        text = " ".join(page(PAGE).split())
        for name in (
            "IMailStore",
            "IMailbox",
            "IDelivery",
            "IStoreAdmin",
            "IObserver",
            "IGate",
            "IServerControl",
        ):
            interface: Any = getattr(pop3toy, name)
            for method in interface:
                taken = list(getattr(interface[method], "positional", ()))
                start = f"``{method}" + (f"({taken[0]}" if taken else "")
                self.assertIn(start, text, f"{name}.{method}")
        for name, function in inspect.getmembers(interfaces.Incoming, inspect.isfunction):
            if not name.startswith("_"):
                first = list(inspect.signature(function).parameters)[1:]
                self.assertIn(f"``{name}({', '.join(first)})``", text)
