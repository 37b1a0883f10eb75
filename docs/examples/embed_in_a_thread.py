"""A web program (WSGI) that serves POP3 from a thread: each visit of its page is a message.

Run it with ``python docs/examples/embed_in_a_thread.py 2590 8000``, visit http://127.0.0.1:8000/, and
log in to port 2590 as ``ann`` with the password ``secret``.  With Flask or Django it is the same.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import make_server

from twisted.internet.threads import blockingCallFromThread

from pop3toy import MemoryStore, Settings, server


class POP3Thread:
    """Twisted's reactor in a thread of its own, with a server in it; one in a process.

    :raises pop3toy.CannotStart: where it is made, if the server cannot start.
    """

    def __init__(self, reactor: Any, settings: Settings, store: MemoryStore) -> None:
        self.reactor = reactor
        # Signals belong to the main thread.
        run = {"installSignalHandlers": False}
        self.thread = threading.Thread(target=reactor.run, kwargs=run, daemon=True)
        self.thread.start()
        self.store = store
        self.service = server(reactor, settings, store=store)
        blockingCallFromThread(reactor, self.service.startService)

    def add(self, user: str, message: bytes) -> None:
        """Put a message into a maildrop, from any thread: the store belongs to the reactor's."""
        self.reactor.callFromThread(self.store.add, user, message)

    def stop(self) -> None:
        """Let the sessions end, then the thread."""
        stop: Callable[[], Any] = self.service.stopService
        blockingCallFromThread(self.reactor, stop)
        self.reactor.callFromThread(self.reactor.stop)
        self.thread.join()


def make_app(pop3: POP3Thread) -> Callable[..., Iterable[bytes]]:
    """The web program."""

    def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        pop3.add("ann", b"Subject: A visit\n\nSomebody was here.\n")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"There is a message more.\n"]

    return app


def main(pop3_port: str = "2590", web_port: str = "8000") -> None:
    """Serve until Ctrl-C."""
    from twisted.internet import reactor

    settings = Settings(port=int(pop3_port), users=(("ann", "secret"),))
    pop3 = POP3Thread(reactor, settings, MemoryStore({"ann": []}))
    try:
        with make_server("127.0.0.1", int(web_port), make_app(pop3)) as web:
            web.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        pop3.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
