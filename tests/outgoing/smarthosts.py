"""Smarthosts for tests, in threads: they take mail by a script, and say what they were told."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.realserver import DEADLINE

__all__ = ["FakeSmarthost", "Taken"]

#: Extensions that it announces, but for STARTTLS and AUTH.
ALL = ("PIPELINING", "SIZE 10000000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")


@dataclass
class Taken:
    """A message that was taken."""

    mail: str
    rcpt: list[str] = field(default_factory=list)
    text: bytes = b""


class FakeSmarthost:
    """A smarthost on loopback.

    :param replies: by the start of a command (``RCPT TO:<bob@``, ``DATA``, ``.``, ``greeting``): the reply,
        or ``None`` to hang up there.
    :param implicit: TLS from the first octet on.
    :param hook: is called with each command, before it is answered.
    """

    def __init__(
        self,
        certificate: Path | None = None,
        *,
        login: tuple[str, str] | None = None,
        replies: Mapping[str, str | None] | None = None,
        extensions: tuple[str, ...] = ALL,
        hook: Callable[[str], object] = lambda line: None,
        port: int = 0,
        implicit: bool = False,
    ) -> None:
        self.login, self.extensions, self.hook, self.implicit = login, extensions, hook, implicit
        self.replies = dict(replies or {})
        self.taken: list[Taken] = []
        self.lines: list[str] = []
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more, and hang up."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._thread.join(DEADLINE)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(DEADLINE)
        self._open.add(client)
        try:
            self._talk(client)
        except (OSError, ssl.SSLError, ConnectionError):
            pass
        finally:
            self._open.discard(client)
            client.close()

    def _scripted(self, line: str) -> tuple[bool, str | None]:
        for start, reply in self.replies.items():
            if line.upper().startswith(start.upper()):
                return True, reply
        return False, None

    def _talk(self, client: socket.socket) -> None:
        secure = known = False
        if self.implicit and self._context is not None:
            client, secure = self._context.wrap_socket(client, server_side=True), True
        taken = Taken("")
        stream = client.makefile("rwb")

        def say(reply: str) -> None:
            stream.write(reply.encode() + b"\r\n")
            stream.flush()

        def said(line: str, default: str) -> bool:
            """Answer; whether it goes on."""
            self.hook(line)
            scripted, reply = self._scripted(line)
            if scripted and reply is None:
                client.shutdown(socket.SHUT_RDWR)
                return False
            say((reply or default) if scripted else default)
            return True

        if not said("greeting", "220 smart.example.net ESMTP"):
            return
        while raw := stream.readline():
            line = raw.decode("utf-8").rstrip("\r\n")
            self.lines.append(line)
            verb = line.split(" ")[0].upper()
            if verb == "EHLO":
                offered = list(self.extensions)
                if self._context is not None and not secure:
                    offered.append("STARTTLS")
                if self.login is not None and (secure or self._context is None):
                    offered.append("AUTH PLAIN LOGIN")
                lines = ["smart.example.net", *offered]
                whole = "\r\n".join(
                    f"250{' ' if n == len(lines) - 1 else '-'}{text}" for n, text in enumerate(lines)
                )
                if not said(line, whole):
                    return
            elif verb == "STARTTLS" and self._context is not None:
                say("220 go on")
                client = self._context.wrap_socket(client, server_side=True)
                stream, secure = client.makefile("rwb"), True
            elif verb == "AUTH" and self.login is not None:
                given = base64.b64decode(line.split(" ")[2]).decode().split("\0")
                known = tuple(given[1:]) == self.login
                say("235 2.7.0 ok" if known else "535 5.7.8 no")
            elif verb == "MAIL":
                if self.login is not None and not known:
                    say("530 5.7.0 log in")
                    continue
                taken = Taken(line)
                if not said(line, "250 2.1.0 ok"):
                    return
            elif verb == "RCPT":
                scripted, reply = self._scripted(line)
                if not scripted or (reply or "").startswith("2"):
                    taken.rcpt.append(line)
                if not said(line, "250 2.1.5 ok"):
                    return
            elif verb == "DATA":
                if not said(line, "354 go on"):
                    return
                if self._scripted(line)[0]:
                    continue
                pieces = []
                while (piece := stream.readline()) != b".\r\n":
                    if not piece:
                        return
                    pieces.append(piece.removeprefix(b"."))
                taken.text = b"".join(pieces)
                scripted, reply = self._scripted(".")
                if not scripted or (reply or "").startswith("2"):
                    self.taken.append(taken)
                if not said(".", "250 2.0.0 queued as 12345"):
                    return
            elif verb == "QUIT":
                say("221 bye")
                return
            elif not said(line, "250 ok"):
                return
