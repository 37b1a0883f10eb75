"""Somebody who has only README.rst sets Thunderbird up, with mouse and keyboard."""

from __future__ import annotations

import re

from twisted.trial.unittest import SkipTest

from ..pages import page
from ..realserver import RealServer, run_command
from .newcomer import Newcomer
from .test_thunderbird import ThunderbirdCase

#: What Thunderbird asks before it makes an account that it has not tested.
PROCEED = "even if the configuration is incorrect. Do you want to proceed?"


def section() -> str:
    """README.rst's section on Thunderbird as plain words: one blank between two, no markup."""
    found = re.search(
        r"^Read it with Thunderbird\n=+\n(.*?)\n\n\n", page("README.rst"), re.DOTALL | re.MULTILINE
    )
    assert found is not None, "README.rst says nothing of Thunderbird"
    return " ".join(re.sub(r"[*`]", "", found[1]).split())


class Reader:
    """A newcomer who does what stands in README.rst, and finds each word of it there, in that order."""

    def __init__(self, newcomer: Newcomer, text: str) -> None:
        self._newcomer = newcomer
        self._text = text
        self._at = 0

    def read(self, *words: str) -> None:
        """Find these words from here on."""
        for one in words:
            at = self._text.find(one, self._at)
            assert at >= 0, f"README.rst does not say {one!r} after {self._text[: self._at][-60:]!r}"
            self._at = at + len(one)

    def see(self, words: str) -> None:
        """The page with this heading."""
        self.read(words)
        self._newcomer.see(words)

    def press(self, words: str) -> None:
        """A button or link."""
        self.read(words)
        self._newcomer.press(words)

    def type(self, label: str, text: str, mine: str | None = None) -> None:
        """A field; ``mine`` is typed in place of what README.rst says."""
        self.read(label, text)
        self._newcomer.type(label, text if mine is None else mine)

    def choose(self, label: str, option: str) -> None:
        """A list."""
        self.read(label, option)
        self._newcomer.choose(label, option)


class NewcomerTests(ThunderbirdCase):
    """Thunderbird's Account Hub, at the first start."""

    def setUp(self) -> None:
        super().setUp()
        told = re.search(r"Thunderbird (\d+)", section())
        assert told is not None
        done = run_command("thunderbird", "--version", folder=self.root)
        if f" {told[1]}." not in done.stdout:
            raise SkipTest(f"README.rst tells the steps of {told[0]}, and this is {done.stdout.strip()}")

    def test_fetch(self) -> None:
        """Who follows README.rst word by word reads the message with the subject "Hello World!"."""
        server = self.start()
        with Newcomer(self.root) as newcomer:
            reader = self._as_far_as_the_incoming_server(newcomer, server)
            newcomer.when_asked(PROCEED)
            reader.press("Advanced config")
            reader.read("OK", "close the Account Settings")
            newcomer.see("Server Settings")
            newcomer.press("Close Tab")
            reader.read("Get Messages", "Password", "pass")
            newcomer.when_asked("Enter your password for user on 127.0.0.1:", "pass")
            newcomer.press("Get Messages")
            reader.press("Inbox")
            newcomer.see("Hello World!")
        said = self.said(server)
        self.assertEqual((said[:2], said[-2:]), (["CAPA", "AUTH PLAIN"], ["RETR 1", "QUIT"]))
        self.assertEqual(server.words.count("-- connected"), 1)

    def test_outgoing_server_first(self) -> None:
        """Who presses Continue gets there, too, if there is an SMTP port; the password comes last then."""
        server = self.start("--smtp-port", "0")
        with Newcomer(self.root) as newcomer:
            self._as_far_as_the_incoming_server(newcomer, server)
            newcomer.press("Continue")
            newcomer.see("Outgoing server settings")
            newcomer.type("Hostname", "127.0.0.1")
            newcomer.type("Port", str(server.port_for("SMTP")))
            newcomer.choose("Connection security", "None")
            newcomer.choose("Authentication method", "No Authentication")
            newcomer.press("Test")
            newcomer.press("Continue")
            newcomer.type("Password", "pass")
            newcomer.press("Continue")
            newcomer.press("Finish")
            newcomer.press("Inbox")
            newcomer.see("Hello World!")
        said = self.said(server)
        self.assertEqual([line for line in said if line.startswith("AUTH")], [], "its test needs no password")
        self.assertIn(" C: EHLO ", server.words)

    def _as_far_as_the_incoming_server(self, newcomer: Newcomer, server: RealServer) -> Reader:
        """Steps 1 and 2 of README.rst."""
        reader = Reader(newcomer, section())
        reader.see("Add your email address")
        reader.read("Full name", "anything")
        newcomer.type("Full name", "You")
        reader.type("Email address", "user@example.org")
        reader.press("Manual configuration")
        reader.see("Incoming server settings")
        reader.choose("Protocol", "POP3")
        reader.type("Hostname", "127.0.0.1")
        reader.type("Port", "2590", str(server.port))
        reader.choose("Connection security", "None")
        reader.choose("Authentication method", "Normal password")
        reader.type("Username", "user")
        return reader
