"""Requests to object storage: counted between a server and a gateway, and made without any server.

Lives here: a proxy that notes each request's first line and passes everything on, and what a session's
requests cost alone::

    python -m benchmarks.requests ENDPOINT URL CREDENTIALS DROP SESSIONS

makes the requests of a session that fetches all of a maildrop, so many times, and prints seconds of CPU for
one: with ``obstore`` in a pool of threads, and nothing else.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks.peers.object_store import Place

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
#: Sessions at once when requests are made alone, as many as the load of the table has.
AT_ONCE = 32


class Request(NamedTuple):
    """One request to a gateway."""

    #: ``GET``, ``PUT``, ``LIST``, ``DELETE``...
    method: str
    #: What it is about: ``a`` for accounts, ``l`` for leases, ``m`` for messages (see ``docs/scaling.rst``).
    about: str
    #: The key's last part.
    name: str
    #: When it came, by :func:`time.monotonic`.
    when: float


def understood(line: bytes, prefix: str, when: float = 0.0) -> Request:
    """What a request's first line asks for.

    :param prefix: of the keys, with the bucket's name: ``mail/prefix``.
    """
    method, target = line.decode("ascii").split(" ")[:2]
    path, _, query = target.partition("?")
    if "list-type=2" in query:
        return Request("LIST", "m", "", when)
    if method == "POST" and query.startswith("delete"):
        return Request("DELETE", "m", "", when)
    key = path.removeprefix(f"/{prefix}/").split("/")
    return Request(method, key[0], key[-1], when)


class CountingProxy:
    """Stands before a gateway, passes all on, and notes what is asked.

    :ivar place: where a server finds it.
    :ivar seen: all requests since :meth:`take`.
    """

    def __init__(self, behind: Place) -> None:
        where = urlsplit(behind.endpoint)
        self._target = (where.hostname or "", where.port or 80)
        self._prefix = behind.url.partition("//")[2]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.place = Place(
            behind.url, f"http://127.0.0.1:{self._listener.getsockname()[1]}", behind.credentials
        )
        self._seen: list[Request] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def seen(self) -> list[Request]:
        """A copy of what was noted."""
        return list(self._seen)

    def take(self) -> Counter[str]:
        """How many there were of each kind (``GET m``), and begin anew."""
        seen, self._seen = self._seen, []
        return Counter(f"{one.method} {one.about}" for one in seen)

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target, 10)
            except OSError:
                return
            for one in (client, server):
                one.settimeout(None)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_pass_on, args=(server, client), daemon=True).start()
            threading.Thread(target=self._requests, args=(client, server), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        head, body = b"", 0
        with suppress(OSError):
            while data := client.recv(1 << 16):
                # What is noted is so before the gateway can answer.
                rest = data
                while rest:
                    rest, body = rest[body:], max(body - len(rest), 0)
                    head, end, rest = (head + rest).partition(b"\r\n\r\n") if rest else (head, b"", b"")
                    if end:
                        line = head.partition(b"\r\n")[0]
                        self._seen.append(understood(line, self._prefix, time.monotonic()))
                        found = _LENGTH.search(head)
                        head, body = b"", int(found[1]) if found else 0
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)


def _pass_on(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 18):
            to.sendall(data)
    for one in (source, to):
        one.close()


def expected(messages: int, octets: int = 0, *, fetched: bool = False, removed: int = 0) -> Counter[str]:
    """The requests of a session, as the design has them; for messages of so many octets each."""
    counts = Counter({"GET a": 1, "GET l": 1, "PUT l": 2, "LIST m": max(-(-messages // 1000), 1)})
    if fetched:
        counts["GET m"] = messages * max(-(-octets // 1_048_576), 1)
    if removed:
        counts["PUT l"] += 1
        counts["DELETE m"] = -(-removed // 1000)
    return counts


def _alone(place: Place, drop: str, sessions: int) -> Iterator[float]:
    """The requests of sessions that fetch a maildrop, by obstore alone."""
    import obstore
    from obstore.store import S3Store

    words = dict(line.split("=", 1) for line in place.credentials.read_text().split())
    bucket, _, prefix = place.url.partition("//")[2].partition("/")
    store: Any = S3Store(
        bucket,
        prefix=prefix,
        config={
            "endpoint": place.endpoint,
            "region": "us-east-1",
            **{name.lower(): value for name, value in words.items()},
        },
        client_options={"allow_http": True},
    )

    def session(number: int) -> None:
        # Objects of its own in place of the user's record and the lease, which are a server's.
        own = f"x/{number}"
        obstore.get(store, own).bytes()
        tag = obstore.get(store, own).meta["e_tag"] or ""
        for after in (1, 2):
            put = obstore.put(store, own, b"%d" % after, mode={"e_tag": tag.strip('"')}, use_multipart=False)
            tag = put["e_tag"] or ""
            if after == 1:
                for part in obstore.list(store, f"m/{drop}", chunk_size=1000):
                    for one in part:
                        bytes(obstore.get_range(store, one["path"], start=0, length=one["size"]))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for count in (AT_ONCE, sessions):
            for number in range(count):
                obstore.put(store, f"x/{number}", b"0", use_multipart=False)
            before = time.process_time()
            list(pool.map(session, range(count)))
            yield (time.process_time() - before) / count
    obstore.delete(store, [f"x/{number}" for number in range(max(sessions, AT_ONCE))])


if __name__ == "__main__":
    _endpoint, _url, _credentials, _drop, _sessions = sys.argv[1:]
    # The first ones make connections.
    *_, _cpu = _alone(Place(_url, _endpoint, Path(_credentials)), _drop, int(_sessions))
    print(json.dumps(_cpu))
