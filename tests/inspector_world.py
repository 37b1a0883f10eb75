"""What the tests of the inspector share: a server in memory, and requests to its inspector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.testing import StringTransport

from pop3toy import Settings

from .memory_world import MemoryCase, StringClient

__all__ = ["HERE", "Answer", "InspectorCase", "checked"]

HERE = IPv4Address("TCP", "127.0.0.1", 8025)
TOKEN = "a token of some length"[2:].replace(" ", "-")
_OPENAPI = json.loads((Path(__file__).parent.parent / "docs" / "openapi.json").read_text(encoding="utf-8"))


class Answer(NamedTuple):
    """Of an HTTP request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """What it says."""
        return json.loads(self.body)


def checked(value: Any, schema: str) -> Any:
    """A value that is as ``docs/openapi.json`` says it of this schema."""
    whole = {"$ref": f"#/components/schemas/{schema}", "components": _OPENAPI["components"]}
    Draft202012Validator(whole).validate(value)
    return value


def answer_of(octets: bytes) -> Answer:
    """What was sent in answer to one request."""
    head, _, body = octets.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        whole = b""
        while body:
            length, _, body = body.partition(b"\r\n")
            whole, body = whole + body[: int(length, 16)], body[int(length, 16) + 2 :]
        body = whole
    return Answer(int(first.split(" ")[1]), headers, body)


class Client(StringClient):
    """A client that leaves once."""

    left = False

    def leave(self) -> None:
        """Hang up."""
        if not self.left:
            self.left = True
            super().leave()


class InspectorCase(MemoryCase):
    """The toy with an inspector, in memory."""

    def setUp(self) -> None:
        super().setUp()
        folder = Path(self.mktemp())
        folder.mkdir()
        self.token_file = folder / "token"
        self.token_file.write_text(f"{TOKEN}\n")
        self.server = self.started(self.settings(), **self.more())

    def settings(self) -> Settings:
        """Of the server."""
        return Settings(port=1, inspector_port=2, inspector_token_file=str(self.token_file), transcript="off")

    def more(self) -> dict[str, Any]:
        """Arguments for ``server`` besides."""
        return {}

    def open(self, local: IPv4Address | UNIXAddress = HERE) -> Any:
        """A connection to the inspector."""
        transport: Any = StringTransport(hostAddress=local, lenient=True)
        channel = self.reactor.factory_at(2).buildProtocol(IPv4Address("TCP", "127.0.0.1", 50000))
        channel.makeConnection(transport)
        transport.channel = channel
        return transport

    def begin(
        self,
        path: str,
        method: str = "GET",
        body: bytes = b"",
        *,
        local: IPv4Address | UNIXAddress = HERE,
        token: str | None = TOKEN,
        **headers: str,
    ) -> Any:
        """Send a request, on a connection of its own."""
        said = {"Host": "127.0.0.1:8025", "Content-Length": str(len(body))}
        if token is not None:
            said["Authorization"] = f"Bearer {token}"
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        transport = self.open(local)
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items() if value)]
        transport.channel.dataReceived("\r\n".join([*lines, "", ""]).encode("utf-8") + body)
        return transport

    def ask(
        self, path: str, method: str = "GET", body: bytes = b"", *, results: int = 0, **more: Any
    ) -> Answer:
        """What is answered to a request.

        :param results: of threads that the answer needs.
        """
        transport = self.begin(path, method, body, **more)
        for _ in range(results):
            self.reactor.deliver()
        return answer_of(transport.value())

    def problem(self, status: int, path: str, method: str = "GET", body: bytes = b"", **more: Any) -> str:
        """Why a request is refused, with this status."""
        answer = self.ask(path, method, body, **more)
        self.assertEqual(
            (answer.status, answer.headers["content-type"]), (status, "application/problem+json")
        )
        self.assertEqual(checked(answer.json, "Problem")["status"], status)
        return str(answer.json["detail"])

    def client(self) -> Client:
        """A client of POP3, which leaves when the test ends, if it has not left before."""
        client = Client(self.reactor.factory_at(1))
        self.addCleanup(client.leave)
        return client
