"""Requests to object storage: counted between a server and a gateway, and made without any server.

Lives here: a proxy that notes each request's first line and passes everything on, and what a session's
requests cost alone::

    python -m benchmarks.requests ENDPOINT URL CREDENTIALS DROP SESSIONS AT_ONCE

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
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks.peers.object_store import Place
from pop3toy.stores.objects.engine import KEYS

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


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
        counts["DELETE m"] = -(-removed // KEYS)
    return counts


#: One request after the other: each waits until it was carried out.
Steps = Iterator[Callable[[], object]]


def _session(store: Any, drop: str, own: str) -> Steps:
    """The requests of a session that fetches a maildrop."""
    import obstore

    # An object of its own in place of the user's record and of the lease, which are the server's.
    tag = ""

    def look() -> None:
        nonlocal tag
        found = obstore.get(store, own)
        found.bytes()
        tag = (found.meta["e_tag"] or "").strip('"')

    def change(body: bytes) -> None:
        nonlocal tag
        tag = (obstore.put(store, own, body, mode={"e_tag": tag}, use_multipart=False)["e_tag"] or "").strip(
            '"'
        )

    found: list[Any] = []
    yield look
    yield look
    yield lambda: change(b"1")
    yield lambda: found.extend(
        one for part in obstore.list(store, f"m/{drop}", chunk_size=1000) for one in part
    )
    for one in found:
        yield partial(obstore.get_range, store, one["path"], start=0, length=one["size"])
    yield lambda: change(b"2")


def in_turn(sessions: Iterable[Steps], at_once: int) -> None:
    """Carry out so many sessions at once; each request is given to a pool of threads, as by a server."""
    done: SimpleQueue[tuple[Steps, Future[object]]] = SimpleQueue()
    waiting = iter(sessions)

    with ThreadPoolExecutor(at_once) as pool:

        def go_on(steps: Steps) -> bool:
            step = next(steps, None)
            if step is not None:
                pool.submit(step).add_done_callback(lambda future: done.put((steps, future)))
            return step is not None

        running = sum(go_on(steps) for steps in islice(waiting, at_once))
        while running:
            steps, future = done.get()
            future.result()
            while not go_on(steps):
                if (following := next(waiting, None)) is None:
                    running -= 1
                    break
                steps = following


def _alone(place: Place, drop: str, sessions: int, at_once: int) -> float:
    """Seconds of CPU of a session's requests."""
    import obstore
    from obstore.store import S3Store

    words = dict(line.split("=", 1) for line in place.credentials.read_text().split())
    bucket, _, prefix = place.url.partition("//")[2].partition("/")
    config: Any = {"endpoint": place.endpoint, "region": "us-east-1"}
    config |= {name.lower(): value for name, value in words.items()}
    store: Any = S3Store(bucket, prefix=prefix, config=config, client_options={"allow_http": True})
    own = [f"x/{number}" for number in range(sessions)]
    for name in own:
        obstore.put(store, name, b"0", use_multipart=False)
    # The first ones make connections.
    in_turn([_session(store, drop, name) for name in own[:at_once]], at_once)
    before = time.process_time()
    in_turn([_session(store, drop, name) for name in own], at_once)
    took = time.process_time() - before
    obstore.delete(store, own)
    return took / sessions


if __name__ == "__main__":
    _endpoint, _url, _credentials, _drop, _sessions, _at_once = sys.argv[1:]
    print(
        json.dumps(_alone(Place(_url, _endpoint, Path(_credentials)), _drop, int(_sessions), int(_at_once)))
    )
