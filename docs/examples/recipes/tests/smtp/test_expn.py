"""EXPN: refused, and told to who watches."""

from typing import Any

from zope.interface import implementer

from pop3toy import IObserver, Settings, events

from ..run.test_server import MemoryCase


@implementer(IObserver)
class Watcher:
    """Keeps what it is told."""

    wants = (events.ListAsked,)

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def observe(self, event: Any) -> None:
        self.seen.append(event)


class ExpnTests(MemoryCase):
    """EXPN."""

    def test_refused(self) -> None:
        """Nobody is told who is on a list, and an observer hears who has asked."""
        watcher = Watcher()
        self.started(Settings(port=1, smtp_port=2), observers=[watcher])
        self.assertIn(b"\r\n550 5.7.2 lists are private\r\n", self.talk(2, b"EHLO me", b"EXPN staff"))
        [event] = watcher.seen
        self.assertEqual((event.protocol, event.channel.host), ("SMTP", "127.0.0.1"))
