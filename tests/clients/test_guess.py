"""Real mail programs are known by what they say; the guess is in the summary of an explained session."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface import implementer

from pop3toy import IObserver
from pop3toy.events import KINDS, Ended
from pop3toy.observe.explain.clients import guess
from pop3toy.observe.explain.explainer import Explainer
from pop3toy.observe.explain.explanation import say_in
from pop3toy.testing import running_server

from ..folders import new_folder
from .mailclients import (
    CClient,
    Curl,
    Fdm,
    Fetchmail,
    Getmail,
    MailClient,
    Movemail,
    Mpop,
    Mutt,
    NetPop3,
    Poplib,
)


@implementer(IObserver)
class _Guesses:
    """The summaries of sessions."""

    wants = KINDS

    def __init__(self) -> None:
        self.found: list[str] = []
        self._explainer = Explainer("en")

    def observe(self, event: Any) -> None:
        """See :class:`~pop3toy.interfaces.IObserver`."""
        said = self._explainer.explain(event)
        if isinstance(event, Ended):
            self.found.append(said[-1].text)


class GuessTests(SynchronousTestCase):
    """Each fetches two messages, and then deletes them as well."""

    def known(self, client: type[MailClient], name: str) -> None:
        """Let it fetch, and compare."""
        if why := client.missing():
            raise SkipTest(why)
        for delete in (False, True):
            watcher = _Guesses()
            messages = [b"Subject: one\r\n\r\nx\r\n", b"Subject: two\r\n\r\ny\r\n"]
            with running_server({"ann": messages}, {"ann": "secret"}, observers=[watcher]) as server:
                client(server.port, new_folder(self)).fetch(2, delete=delete)
            self.assertTrue(watcher.found)
            for said in watcher.found:
                self.assertTrue(said.startswith(f"The client seems to be {name}: "), said)

    def test_poplib(self) -> None:
        self.known(Poplib, "a program that asks for no capabilities")

    def test_net_pop3(self) -> None:
        self.known(NetPop3, "a program that asks for no capabilities")

    def test_curl(self) -> None:
        self.known(Curl, "curl")

    def test_fetchmail(self) -> None:
        self.known(Fetchmail, "fetchmail")

    def test_getmail(self) -> None:
        self.known(Getmail, "getmail")

    def test_mpop(self) -> None:
        self.known(Mpop, "mpop")

    def test_fdm(self) -> None:
        self.known(Fdm, "fdm")

    def test_mutt(self) -> None:
        self.known(Mutt, "mutt, neomutt")

    def test_mailutils(self) -> None:
        self.known(Movemail, "GNU Mailutils")

    def test_c_client(self) -> None:
        self.known(CClient, "UW's c-client (Alpine, PHP)")

    def test_thunderbird(self) -> None:
        """What Debian's Thunderbird 153 says when it fetches from the toy."""
        said = ["CAPA", "AUTH", "STAT", "LIST", "UIDL", "RETR", "QUIT"]
        found = guess(said, say_in("en"), typed=False)
        assert found is not None
        self.assertEqual(found[0], "Thunderbird")

    def test_nobody(self) -> None:
        """What tells nothing is no guess."""
        self.assertIsNone(guess(["CAPA", "QUIT"], say_in("en"), typed=False))
