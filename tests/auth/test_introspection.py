"""Bearer tokens, judged by an authorization server that is asked with a real treq over memory."""

from __future__ import annotations

import base64
import json
import math
import sys
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs

from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface.verify import verifyObject

from pop3toy.auth.accounts.schemes import MissingLibrary
from pop3toy.auth.sasl.introspection import Introspection, treq_client
from pop3toy.auth.sasl.oauth import ITokenChecker
from pop3toy.errors import StoreTrouble
from pop3toy.installation import install_hint

NOW = 1_800_000_000.0


class Endpoint(Resource):
    """An introspection endpoint that answers as a test wants."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[dict[str, list[str]]] = []
        self.logins: list[str] = []
        self.status = 200
        self.answer: object = {"active": True, "username": "ann", "exp": NOW + 3600, "scope": "mail other"}
        self.silent = False

    def render_GET(self, request: Any) -> Any:
        return self.render_POST(request)

    def render_POST(self, request: Any) -> Any:
        self.questions.append(parse_qs(request.content.read().decode()))
        self.logins.append(request.getHeader("Authorization"))
        if self.silent:
            return NOT_DONE_YET
        request.setResponseCode(self.status)
        request.setHeader("Location", "https://elsewhere.example/")
        return self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()


class IntrospectionCase(SynchronousTestCase):
    """An endpoint, a clock and who asks."""

    def setUp(self) -> None:
        self.endpoint = Endpoint()
        self.http = StubTreq(self.endpoint)
        self.clock = Clock()

    def checker(self, **options: Any) -> Introspection:
        return Introspection(
            self.http, "https://auth.example/introspect", self.clock, **{"wall": lambda: NOW, **options}
        )

    def owner(self, checker: Introspection, token: str = "t0ken") -> Any:
        """The owner, or the reason why nobody can say."""
        result = checker.owner(token)
        if not isinstance(result, Deferred):
            return result
        self.http.flush()
        outcome: list[Any] = []
        result.addBoth(outcome.append)
        [answer] = outcome
        return answer.trap(StoreTrouble) and answer.value if hasattr(answer, "trap") else answer


class QuestionTests(IntrospectionCase):
    """What is asked."""

    def test_question(self) -> None:
        """The question is RFC 7662's, with this server's own credentials."""
        verifyObject(ITokenChecker, self.checker())
        self.assertEqual("ann", self.owner(self.checker(credentials=("pop3", "hush"))))
        self.assertEqual([{"token": ["t0ken"], "token_type_hint": ["access_token"]}], self.endpoint.questions)
        self.assertEqual(["Basic " + base64.b64encode(b"pop3:hush").decode()], self.endpoint.logins)

    def test_address(self) -> None:
        """Tokens are not sent over a network in clear text."""
        for url in ("http://auth.example/", "auth.example", "ftp://auth.example/", "https:///x", ""):
            with self.assertRaises(ValueError):
                Introspection(self.http, url, self.clock)
        Introspection(self.http, "http://127.0.0.1:8080/x", self.clock)

    def test_missing_library(self) -> None:
        """Without treq there is a word on what to install."""
        with patch.dict(sys.modules, {"treq.client": None}), self.assertRaises(MissingLibrary) as caught:
            treq_client(self.clock)
        self.assertIn(install_hint("oauth"), str(caught.exception))


class AnswerTests(IntrospectionCase):
    """What counts as an owner."""

    def test_not_good(self) -> None:
        """Inactive, expired, nobody's, or for something else: nobody's token."""
        good = self.endpoint.answer
        for change in (
            {"active": False},
            {"active": "true"},
            {"username": None},
            {"username": ""},
            {"username": 7},
            {"exp": NOW},
            {"exp": "tomorrow"},
            {"exp": math.nan},
            {"exp": math.inf},
            {"exp": -math.inf},
            {"exp": 10**400},
            {"exp": True},
            {"exp": [NOW + 60]},
            {"exp": None},
            {"username": "an\ud800n"},
            {"username": "ann\n"},
            {"username": "ann\0"},
            {"scope": "others"},
            {"scope": None},
            {"aud": "somebody else"},
            {"aud": ["a", "b"]},
        ):
            self.endpoint.answer = {"aud": "pop3", **good, **change}  # type: ignore[dict-item]
            self.assertIsNone(self.owner(self.checker(scope="mail", audience="pop3")), change)
        self.endpoint.answer = {"aud": ["x", "pop3"], **good}  # type: ignore[dict-item]
        self.assertEqual("ann", self.owner(self.checker(scope="mail", audience="pop3")))

    def test_claim(self) -> None:
        """Another member can name the user."""
        self.endpoint.answer = {"active": True, "email": "ann@example.org"}
        self.assertEqual("ann@example.org", self.owner(self.checker(claim="email")))

    def test_trouble(self) -> None:
        """A server that does not answer as it should is a temporary trouble, not a bad token."""
        for status, answer in (
            (500, {}),
            (401, {"active": True, "username": "ann"}),
            (302, {}),
            (303, {"active": True, "username": "ann"}),
            (200, b"<html>"),
            (200, b"\xff"),
            (200, b"[1]"),
            (200, b"[" * 60_000),
            (200, b'{"active": true, "username": "ann", "exp": ' + b"9" * 5000 + b"}"),
            (200, json.dumps({"active": True, "username": "ann"}).encode() + b" " * 70_000),
        ):
            self.endpoint.status, self.endpoint.answer = status, answer
            trouble = self.owner(self.checker())
            self.assertIsInstance(trouble, StoreTrouble, (status, answer))
            self.assertNotIn("t0ken", trouble.text + trouble.detail)
        self.assertEqual(10, len(self.endpoint.questions))

    def test_timeout(self) -> None:
        """A server that is silent is given up after its time."""
        self.endpoint.silent = True
        result = self.checker(timeout=5).owner("t0ken")
        self.http.flush()
        self.clock.advance(4.9)
        self.assertNoResult(result)
        self.clock.advance(0.1)
        self.failureResultOf(result, StoreTrouble)
        self.assertEqual([], self.clock.getDelayedCalls())


class CacheTests(IntrospectionCase):
    """What is remembered."""

    def test_good_answers(self) -> None:
        """A good answer is remembered for its time, at hand at once, and for that token alone."""
        checker = self.checker(remembered=60)
        for _ in range(3):
            self.assertEqual("ann", self.owner(checker))
        self.assertEqual(1, len(self.endpoint.questions))
        self.assertEqual("ann", checker.owner("t0ken"))
        self.owner(checker, "another")
        self.assertEqual(2, len(self.endpoint.questions))
        self.clock.advance(60)
        self.owner(checker)
        self.assertEqual(3, len(self.endpoint.questions))

    def test_not_beyond_the_end(self) -> None:
        """A token that ends before that is remembered until its end."""
        self.endpoint.answer = {"active": True, "username": "ann", "exp": NOW + 10}
        checker = self.checker(remembered=60)
        self.owner(checker)
        self.clock.advance(10)
        self.owner(checker)
        self.assertEqual(2, len(self.endpoint.questions))

    def test_clock_set(self) -> None:
        """The end of a token is a date, and how long it is remembered is not: each by its own clock."""
        self.endpoint.answer = {"active": True, "username": "ann", "exp": NOW + 7200}
        wall = NOW
        checker = self.checker(remembered=60, wall=lambda: wall)
        self.owner(checker)
        for wall, questions in ((NOW - 3600, 1), (NOW + 900, 1), (NOW + 7200, 2)):
            self.owner(checker)
            self.assertEqual(questions, len(self.endpoint.questions), wall - NOW)
        wall = NOW - 3600
        self.owner(checker)
        self.clock.advance(60)
        self.owner(checker)
        self.assertEqual(4, len(self.endpoint.questions))

    def test_bad_answers(self) -> None:
        """A bad answer is not remembered."""
        self.endpoint.answer = {"active": False}
        checker = self.checker()
        self.owner(checker)
        self.endpoint.answer = {"active": True, "username": "ann"}
        self.assertEqual("ann", self.owner(checker))

    def test_bounded(self) -> None:
        """Only so many questions are open and so many answers remembered."""
        checker = self.checker(most=2)
        for number in range(500):
            self.owner(checker, f"token{number}")
        self.assertEqual(200, len(checker._known))
        self.endpoint.silent = True
        waiting = [checker.owner(f"new{number}") for number in range(2)]
        with self.assertRaises(StoreTrouble):
            checker.owner("another")
        self.assertEqual("ann", checker.owner("token499"))
        self.http.flush()
        self.clock.advance(5)
        for result in waiting:
            self.failureResultOf(result, StoreTrouble)
        self.endpoint.silent = False
        self.assertEqual("ann", self.owner(checker, "another"))
