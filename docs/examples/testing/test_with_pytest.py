"""Tests of a program that fetches mail, with pytest: the fixtures are there when pop3toy is installed."""

from __future__ import annotations

import poplib
import ssl
from collections.abc import Callable
from contextlib import closing
from email.message import EmailMessage

import pytest

from pop3toy.testing import RunningServer


def fetch(host: str, port: int, user: str, password: str, cafile: str | None = None) -> list[bytes]:
    """The program under test: fetches all messages, and removes them from the server."""
    with closing(poplib.POP3(host, port, timeout=10)) as client:
        if cafile is not None:
            client.stls(ssl.create_default_context(cafile=cafile))
        client.user(user)
        client.pass_(password)
        messages = []
        for number in range(1, client.stat()[0] + 1):
            messages.append(b"\r\n".join(client.retr(number)[1]))
            client.dele(number)
        client.quit()
    return messages


def test_fetch(pop3_server: RunningServer) -> None:
    """The three lines."""
    [message] = fetch(pop3_server.host, pop3_server.port, "user", "pass")
    assert b"Hello World!" in message
    assert pop3_server.mailbox("user").messages == []


INVOICE = EmailMessage()
INVOICE["Subject"] = "Invoice"
INVOICE.set_content("Twenty crowns.\n.\nThe line above is a dot.\n")


@pytest.mark.pop3(mailboxes={"ann": [INVOICE, "Subject: two\n\n2\n"]}, passwords={"ann": "secret"})
def test_what_it_said(pop3_server: RunningServer) -> None:
    """Mail of one's own, and what the server has seen of the client."""
    uids = pop3_server.mailbox("ann").uids
    messages = fetch(pop3_server.host, pop3_server.port, "ann", "secret")
    assert messages[0].endswith(b"\r\n.\r\nThe line above is a dot.")
    session = pop3_server.wait_for_session()
    assert session.commands[:3] == ["USER ann", "PASS ****", "STAT"]
    assert session.replies[-1] == "+OK bye, 2 messages removed"
    assert (session.user, session.ended) == ("ann", "quit")
    assert session.retrieved == session.removed == uids


@pytest.mark.pop3(tls="stls")
def test_encrypted(pop3_server: RunningServer) -> None:
    """TLS, with a certificate that can be verified."""
    fetch("localhost", pop3_server.port, "user", "pass", cafile=pop3_server.ca_file)
    session = pop3_server.wait_for_session()
    assert session.tls == "TLSv1.3"
    assert session.commands[:2] == ["CAPA", "STLS"]


def test_refused(pop3_server: RunningServer) -> None:
    """Another device has the mailbox open; nothing waits for it."""
    with pop3_server.mailbox("user").locked(), pytest.raises(poplib.error_proto, match="IN-USE"):
        fetch(pop3_server.host, pop3_server.port, "user", "pass")


@pytest.mark.pop3(login_delay=300)
def test_too_soon(pop3_server: RunningServer) -> None:
    """Five minutes pass in no time."""
    fetch(pop3_server.host, pop3_server.port, "user", "pass")
    with pytest.raises(poplib.error_proto, match="LOGIN-DELAY"):
        fetch(pop3_server.host, pop3_server.port, "user", "pass")
    pop3_server.clock.advance(300)
    fetch(pop3_server.host, pop3_server.port, "user", "pass")


def test_two_accounts(pop3_server_factory: Callable[..., RunningServer]) -> None:
    """Two servers, as a program has that fetches from two providers."""
    work = pop3_server_factory(mailboxes={"ann": ["Subject: work\n\n1\n"]})
    home = pop3_server_factory(mailboxes={"ann": ["Subject: home\n\n2\n"]}, tls="stls")
    messages = fetch(work.host, work.port, "ann", "pass")
    messages += fetch("localhost", home.port, "ann", "pass", cafile=home.ca_file)
    assert len(messages) == 2
