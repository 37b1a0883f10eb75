"""Every check finds a fault that was planted for it, and none where there is none."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.conformance.report import as_json, as_text
from pop3toy.conformance.rules import Result, Rule
from pop3toy.conformance.table import RULES
from pop3toy.testing import RunningServer, running_server
from pop3toy.testing.faults.kinds import KINDS

from ..tls_world import Authority
from .badserver import BadServer, Session, right
from .faults import ALLOWED, FAULTS, OURS, Ours, Planted, languages
from .world import (
    MESSAGES,
    PASSWORD,
    USER,
    RightServer,
    certificates,
    failed,
    look,
    not_tested,
    rules_named,
    server_context,
    target,
)


class BetweenCase(SynchronousTestCase):
    """A right server, and go-betweens in front of it."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        authority = Authority(self.folder)
        self.pairs = certificates(authority)
        self.trust = ssl.create_default_context(cafile=authority.file)
        self.right = RightServer(self.folder)
        self.addCleanup(self.right.stop)

    def between(self, planted: Planted) -> BadServer:
        """A server with a fault."""
        pair = self.pairs.get(planted.kind, self.pairs["right"])
        context = server_context(pair, self.folder, old=planted.kind == "old")
        return BadServer(
            self.right.port,
            planted.fault,
            context=context if planted.tls != "none" else None,
            implicit=planted.tls == "implicit",
        )

    def settings(self, planted: Planted) -> dict[str, Any]:
        """What the client is told."""
        return {
            "tls": planted.tls,
            "context": self.trust,
            "safe": planted.kind != "public",
            "idle": 0.5 if planted.kind == "idle" else 0.0,
            "destructive": planted.kind in ("removing", "mail"),
            "smtp": self.right.smtp if planted.kind == "mail" else None,
        }


class PlantedTests(BetweenCase):
    """Each planted fault is found."""

    def test_every_check_has_one(self) -> None:
        """No check is without a fault that it must find."""
        found = {name for planted in (*FAULTS, *OURS) for name in planted.checks.split()}
        self.assertEqual({rule.name for rule in RULES} - found, set())

    def test_found(self) -> None:
        """The checks that a fault was planted for fail, and show lines that were said."""
        missed = {}
        for planted in FAULTS:
            self.right.fill()
            with self.between(planted) as server:
                found = look(server.port, rules_named(planted.checks), **self.settings(planted))
            for name, result in found.items():
                if name not in failed(found) or not result.lines:
                    missed[f"{planted.name}: {name}"] = (result.outcome, result.text, result.lines)
        self.assertEqual(missed, {})


class OwnFaultsTests(SynchronousTestCase):
    """Faults of ``pop3toy.testing``, in a server of its own."""

    def look(
        self, server: RunningServer, ours: Ours, rules: Sequence[Rule], **changes: Any
    ) -> dict[str, Result]:
        """What is found where a fault, and nothing else, is in it."""
        server.faults.clear()
        fault = server.faults.add(ours.kind, **ours.words)
        context = ssl.create_default_context(cafile=server.ca_file)
        port = server.tls_port if ours.tls == "implicit" else server.port
        found = look(port, rules, tls=ours.tls, context=context, destructive=True, **changes)
        self.assertGreater(fault.happened, 0, ours)
        return found

    def server(self) -> AbstractContextManager[RunningServer]:
        """A right server."""
        return running_server({USER: MESSAGES}, {USER: PASSWORD}, tls="both", trusted=("127.0.0.0/8",))

    def test_every_kind(self) -> None:
        """Each kind of fault is found, or known to break nothing."""
        self.assertEqual({ours.kind for ours in OURS} | {*ALLOWED}, {*KINDS})

    def test_found(self) -> None:
        """The checks that must find a fault fail, and show lines that were said."""
        missed = {}
        with self.server() as server:
            for ours in OURS:
                rules = rules_named(ours.checks)
                for name, result in self.look(server, ours, rules, timeout=0.3, patience=0.3).items():
                    if name not in failed({name: result}) or not result.lines:
                        missed[f"{ours}: {name}"] = (result.outcome, result.text, result.lines)
        self.assertEqual(missed, {})

    def test_in_the_whole(self) -> None:
        """A run over all rules finds it, too: no rule that could not be looked at takes another with it."""
        for kind, words, tls, name in (
            ("stls-refused", {}, "stls", "stls"),
            ("tls-hangs", {}, "stls", "stls"),
            ("login-refused", {"code": "SYS/TEMP"}, "none", "login"),
            ("no-dot", {"command": "UIDL"}, "none", "uidl-numbers"),
        ):
            with self.server() as server:
                ours = Ours(kind, name, words, tls)
                found = self.look(server, ours, RULES, timeout=0.2, patience=0.2)
            self.assertIn(name, failed(found), kind)

    def test_allowed(self) -> None:
        """What breaks no rule fails no check."""
        with self.server() as server:
            for kind, (words, why) in ALLOWED.items():
                found = self.look(server, Ours(kind, "", words), RULES, patience=0.3)
                self.assertEqual({*failed(found)} - {"tls", "certificate"}, set(), f"{kind}: {why}")


class RightTests(BetweenCase):
    """The same go-between without a fault: nothing is found."""

    def test_plain(self) -> None:
        """All pass in the clear; what is not looked at is what TLS or announcements are needed for."""
        self.right.fill()
        planted = Planted("none", right, "", kind="mail")
        with self.between(planted) as server:
            found = look(server.port, **{**self.settings(planted), "idle": 0.1})
        self.assertEqual(set(failed(found)), {"tls"})
        self.assertEqual(
            not_tested(found),
            {"certificate", "tls-version", "tls-old", "clear-text", "stls", "stls-injection", "stls-forgets"}
            | {"stls-capa", "stls-within", "stls-announced", "sasl-plain", "close-notify", "login-delay"}
            | {"utf8", "utf8-after-login", "utf8-argument", "lang-list", "lang-default", "lang-unknown"},
        )

    def test_languages(self) -> None:
        """UTF8 and LANG as they should be pass."""
        self.right.fill()
        rules = [rule for rule in RULES if rule.rfc == 6856]
        with self.between(Planted("none", languages, "")) as server:
            found = look(server.port, rules)
        self.assertEqual((failed(found), not_tested(found)), ({}, set()))

    def test_echoed_secrets(self) -> None:
        """A server that says again what it was told gets no secret into a report."""
        secrets = [PASSWORD.encode(), b64encode(f"\0{USER}\0{PASSWORD}".encode())]

        def echo(session: Session, line: bytes, answer: Callable[[], bytes]) -> bytes:
            known = b"" if any(secret in line for secret in secrets) else answer()
            return known or b"-ERR what is " + line

        with self.between(Planted("echo", echo, "")) as server:
            # Who was turned away by PASS does not try AUTH.
            results = [*look(server.port).values(), *look(server.port, rules_named("sasl-initial")).values()]
            self.assertTrue(all(any(secret in line for line in server.heard) for secret in secrets))
        report = as_text(target(server.port), results) + as_json(target(server.port), results)
        self.assertIn("what is PASS ****", report)
        self.assertIn("what is AUTH PLAIN ****", report)
        for secret in secrets:
            self.assertNotIn(secret.decode(), report)

    def test_tls(self) -> None:
        """With STLS, and with TLS from the start, all pass, too."""
        for tls in ("stls", "implicit"):
            self.right.fill()
            planted = Planted("none", right, "", tls=tls)
            with self.between(planted) as server:
                found = look(server.port, **{**self.settings(planted), "destructive": True})
            self.assertEqual(failed(found), {}, tls)
