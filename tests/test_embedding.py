"""docs/embedding.rst: what it shows works as it stands there."""

from __future__ import annotations

import ast
import inspect
import unittest
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport

import pop3toy
from pop3toy import MemoryAccounts, MemoryStore, Settings, interfaces

from .memory_world import MemoryCase, StringClient, talk
from .pages import literal_blocks, page

PAGE = "docs/embedding.rst"
LOGIN = (b"USER ann", b"PASS secret")
LETTER = (b"MAIL FROM:<>", b"RCPT TO:<ann@localhost>", b"DATA", b"Subject: y", b"", b"y", b".")


def with_words(words: str) -> dict[str, Any]:
    """The names of the one block in which these words stand, after it has run."""
    [block] = ["\n".join(lines) for lines in literal_blocks(PAGE) if any(words in line for line in lines)]
    names: dict[str, Any] = {"__name__": "shown"}
    exec(compile(block, PAGE, "exec"), names)
    return names


class BlockTests(MemoryCase):
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
        self.start(with_words("def mail_service")["mail_service"](self.reactor, 1))
        self.assertIn(b"+OK maildrop has 1 message", self.talk(1, *LOGIN))

    def test_parts(self) -> None:
        """So does the factory that it puts together."""
        factory = with_words("def mail_factory")["mail_factory"](self.reactor)
        self.assertIn(b"+OK maildrop has 0 messages", talk(factory, *LOGIN))

    def test_observer(self) -> None:
        """Its observer counts failures, of each address, until a login goes well."""
        failures = with_words("class Failures")["Failures"]()
        settings = Settings(port=1, users=(("ann", "secret"),), transcript="off")
        self.started(settings, observers=[failures])
        self.talk(1, b"APOP ann x", b"AUTH PLAIN AGFubgBiYWQ=")
        self.assertEqual(failures.of, {"127.0.0.1": 1})
        self.talk(1, *LOGIN)
        self.assertEqual(failures.of, {})

    def test_gate(self) -> None:
        """Its gate loses an answer to DELE and one behind a message, which take effect; RETR is late."""
        gate = with_words("class BadLine")["BadLine"](self.reactor)
        store = MemoryStore({"ann": [b"Subject: x\n\nx\n"]})
        settings = Settings(port=1, smtp_port=2, users=(("ann", "secret"),), transcript="off")
        self.started(settings, store=store, gate=gate)
        said = self.talk(2, b"HELO me", *LETTER, *LETTER)
        self.assertEqual(
            [line[:3] for line in said.splitlines()][1:],
            [b"250"] * 3 + [b"354"] + [b"250"] * 2 + [b"354", b"250"],
        )
        self.assertEqual(len(store.messages("ann")), 3)
        said = self.talk(1, *LOGIN, b"DELE 1", b"DELE 2", b"QUIT")
        self.assertEqual(said.count(b"deleted"), 1)
        self.assertEqual(len(store.messages("ann")), 1)
        client = StringClient(self.reactor.factory_at(1))
        client.say(*LOGIN, b"RETR 1", b"NOOP")
        self.reactor.advance(2)
        self.assertEqual(client.read(), b"")
        self.reactor.advance(1)
        self.assertTrue(client.read().endswith(b"y\r\n.\r\n+OK\r\n"))
        client.leave()

    def test_control(self) -> None:
        """What it shows of a running server ends silent sessions, and lets nobody in meanwhile."""
        names = with_words("def close_silent")
        settings = Settings(port=1, users=(("ann", "secret"), ("bob", "secret")), transcript="off")
        service = self.started(settings, store=MemoryStore({"ann": [], "bob": []}))
        client = StringClient(self.reactor.factory_at(1))
        client.say(*LOGIN)
        self.reactor.advance(30)
        self.assertEqual(names["close_silent"](service, 31), [])
        self.assertEqual(names["close_silent"](service, 30), ["ann"])
        self.assertTrue(client.closed)
        client.leave()
        login = b"USER bob", b"PASS secret"
        done = Deferred.fromCoroutine(names["undisturbed"](service, lambda: self.talk(1, *login)))
        self.reactor.advance(1)
        self.assertNotIn(b"maildrop has", self.successResultOf(done))
        self.assertIn(b"maildrop has", self.talk(1, *login))

    def test_delivery(self) -> None:
        """Its store takes mail, lists it, and refuses to remove it."""
        store = with_words("class Lists")["Lists"]("ann")
        checker = MemoryAccounts({"ann": "secret"})
        self.started(Settings(port=1, smtp_port=2), store=store, checkers=[checker])
        self.assertEqual(self.talk(2, b"HELO me", *LETTER).splitlines()[-1][:3], b"250")
        said = self.talk(1, *LOGIN, b"RETR 1", b"DELE 1", b"QUIT")
        self.assertIn(b"Subject: y\r\n\r\ny\r\n.\r\n-ERR", said)

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
        ports = ("IMailStore", "IMailbox", "IDelivery", "IStoreAdmin", "IObserver", "IGate", "IServerControl")
        for name in ports:
            interface: Any = getattr(pop3toy, name)
            for method in interface:
                taken = list(getattr(interface[method], "positional", ()))
                start = f"``{method}" + (f"({taken[0]}" if taken else "")
                self.assertIn(start, text, f"{name}.{method}")
        for name, function in inspect.getmembers(interfaces.Incoming, inspect.isfunction):
            if not name.startswith("_"):
                first = list(inspect.signature(function).parameters)[1:]
                self.assertIn(f"``{name}({', '.join(first)})``", text)
