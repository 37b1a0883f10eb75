"""What speaks to a running server's inspector, over TCP or a Unix socket."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import click

from .options import Failed, printable

__all__ = ["InspectorClient"]

#: Seconds for an answer, and for the next sign of life of a stream, which comes every 15.
_PATIENCE, _SILENCE = 10.0, 60.0


#: What to do where there is none.
_HINT = (
    "Start the server with --inspector-port 8025, or --inspector unix:PATH, and name it here by --server"
    " if it is another one"
)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class InspectorClient:
    """Asks, and says what is wrong in one line.

    :param server: ``unix:PATH`` or a URL.
    :param token_file: whose first line is the token; without it that of the URL is, or POP3TOY_TOKEN.
    :param private: whether nobody else can read the URL, so that the token may be in it.
    """

    def __init__(self, server: str, token_file: Path | None, *, private: bool = False) -> None:
        parts = urlsplit(server)
        in_link = ""
        if "token=" in parts.query:
            if not private:
                raise click.UsageError(
                    "Others can read a token in a command line: it goes into --token-file, POP3TOY_TOKEN or"
                    " the link in POP3TOY_SERVER."
                )
            in_link = parse_qs(parts.query).get("token", [""])[0]
            # It is said in errors, without what is secret.
            server = server.partition("?")[0]
            parts = urlsplit(server)
        self._server = server
        if parts.scheme not in ("http", "https", "unix") or not (parts.netloc or parts.scheme == "unix"):
            raise click.UsageError("--server is unix:PATH or a URL such as http://127.0.0.1:8025.")
        self._parts = parts
        token = in_link or os.environ.get("POP3TOY_TOKEN", "")
        if token_file is not None:
            with token_file.open(encoding="utf-8", errors="replace") as file:
                token = file.readline().strip()
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        if not token.isascii() or not token.isprintable():
            raise click.UsageError("The token is no line of printable ASCII.")

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        parts = self._parts
        if parts.scheme == "unix":
            return _UnixConnection(self._server.removeprefix("unix:").removeprefix("//"), timeout)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        try:
            return kind(parts.hostname or "", parts.port, timeout=timeout)
        except ValueError as error:
            raise click.UsageError(f"--server {self._server}: {error}") from None

    @contextmanager
    def _asked(
        self, method: str, path: str, headers: dict[str, str], timeout: float
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._connection(timeout)
        try:
            try:
                connection.request(method, path, headers={**self._headers, **headers})
                answer = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                why = getattr(error, "strerror", None) or str(error) or type(error).__name__
                raise Failed(
                    f"no inspector answers at {self._server}: {printable(why.strip())}. {_HINT}",
                    os.EX_UNAVAILABLE,
                ) from None
            if answer.status >= 400:
                raise self._failed(answer)
            yield answer
        finally:
            connection.close()

    def _failed(self, answer: http.client.HTTPResponse) -> Failed:
        try:
            detail = str(json.loads(answer.read(65536))["detail"])
        except (ValueError, KeyError, TypeError):
            detail = f"{answer.status} {answer.reason}"
        if answer.status == 401:
            detail = "the token is missing or wrong: --token-file FILE, or POP3TOY_TOKEN, says it"
        status = {401: os.EX_NOPERM, 403: os.EX_NOPERM, 404: 1}.get(answer.status, os.EX_UNAVAILABLE)
        return Failed(printable(detail), status)

    def ask(self, path: str, method: str = "GET") -> Any:
        """The JSON of an answer."""
        with self._asked(method, path, {}, _PATIENCE) as answer:
            try:
                return json.loads(answer.read())
            except (ValueError, OSError) as error:
                raise Failed(
                    f"{self._server} does not answer as an inspector: {error}", os.EX_PROTOCOL
                ) from None

    def events(self, session: int | None, since: int | None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Events as they happen: the kind of each message (``message``, ``missed``), and what it says.

        Ends when the server does.
        """
        query = "&".join(
            f"{name}={quote(str(value))}"
            for name, value in (("session", session), ("since", since))
            if value is not None
        )
        with self._asked("GET", f"/api/events?{query}", {"Accept": "text/event-stream"}, _SILENCE) as answer:
            kind = "message"
            data: list[str] = []
            while True:
                try:
                    octets = answer.readline()
                except (OSError, http.client.HTTPException):
                    return
                if not octets:
                    return
                line = octets.decode("utf-8", "replace").rstrip("\r\n")
                if not line and data:
                    yield kind, json.loads("\n".join(data))
                if not line:
                    kind, data = "message", []
                name, _, value = line.partition(":")
                if name == "event":
                    kind = value.strip()
                elif name == "data":
                    data.append(value.strip())
