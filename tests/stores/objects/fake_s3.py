"""A small S3 on a loopback port, which does wrong what the test says."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

__all__ = ["FakeS3"]


class FakeS3:
    """An S3 with one bucket, ``mail``.

    :ivar objects: bodies and times by key.
    :ivar wrong: ``ignores-create``, ``ignores-swap``: that condition is not looked at; ``racy``: it is, but
        what is written meanwhile is not seen; ``unquoted``: ETags stand in conditions without their quotes;
        ``same-etag``, ``stale-list``.
    :ivar slow: seconds until a PUT is answered.
    :ivar answer: what is answered in place of all else: a status, and the code of the error.
    """

    def __init__(self, wrong: str = "", *, clock: Callable[[], float]) -> None:
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.wrong = wrong
        self.clock = clock
        self.answer: tuple[int, str] | None = None
        self.slow = 0.0
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # An answer of two writes would wait for the client's acknowledgement.
            wbufsize = 65536
            disable_nagle_algorithm = True

            def do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fake.do(self, body)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def etag(self, body: bytes) -> str:
        """What tells this body from others."""
        return '"{}"'.format("same" if self.wrong == "same-etag" else hashlib.md5(body).hexdigest())

    def do(self, request: Any, body: bytes) -> None:
        """Answer a request."""
        where = urlsplit(request.path)
        bucket, _, key = unquote(where.path.lstrip("/")).partition("/")
        with self.lock:
            self.requests.append((request.command, key))
        if self.answer is not None:
            self._refuse(request, *self.answer)
            return
        if bucket != "mail":
            self._refuse(request, 404, "NoSuchBucket")
            return
        getattr(self, f"_{request.command.lower()}")(request, key, parse_qs(where.query), body)

    def _put(self, request: Any, key: str, query: Any, body: bytes) -> None:
        with self.lock:
            refused = self._condition(request, key)
        if self.wrong == "racy" and not refused:
            # As a store that looks in one place and writes in another; who comes meanwhile looks, too.
            threading.Event().wait(0.01)
        with self.lock:
            # Between the look and the writing nobody else has been here, in a store that is right.
            refused = refused or (None if self.wrong == "racy" else self._condition(request, key))
            if not refused:
                self.objects[key] = (body, self.clock())
        threading.Event().wait(self.slow)
        if refused:
            self._refuse(request, *refused)
            return
        self._send(request, 200, b"", ETag=self.etag(body))

    def _condition(self, request: Any, key: str) -> tuple[int, str] | None:
        there = self.objects.get(key)
        if request.headers.get("If-None-Match") == "*" and there and self.wrong != "ignores-create":
            return 412, "PreconditionFailed"
        match = request.headers.get("If-Match")
        if match is None or self.wrong == "ignores-swap":
            return None
        if there is None:
            return 404, "NoSuchKey"
        wanted = self.etag(there[0])
        if match != (wanted.strip('"') if self.wrong == "unquoted" else wanted):
            return 412, "PreconditionFailed"
        return None

    def _get(self, request: Any, key: str, query: dict[str, list[str]], body: bytes) -> None:
        if "list-type" in query:
            self._list(request, query)
            return
        with self.lock:
            there = self.objects.get(key)
        if there is None:
            self._refuse(request, 404, "NoSuchKey")
            return
        body, when = there
        more = {"ETag": self.etag(body), "Last-Modified": formatdate(when, usegmt=True)}
        if found := re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range") or ""):
            start, end = int(found[1]), min(int(found[2]), len(body) - 1)
            more["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
            self._send(request, 206, body[start : end + 1], **more)
            return
        self._send(request, 200, body, **more)

    def _list(self, request: Any, query: dict[str, list[str]]) -> None:
        prefix = query["prefix"][0]
        after = query.get("continuation-token", [""])[0]
        with self.lock:
            keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
            found = [(key, *self.objects[key]) for key in keys[:1000]]
        if self.wrong == "stale-list":
            found = found[:-1]
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(body)}</Size><ETag>{self.etag(body)}</ETag>"
            f"<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key, body, when in found
        )
        more = f"<NextContinuationToken>{escape(keys[999])}</NextContinuationToken>" if keys[1000:] else ""
        truncated = "true" if keys[1000:] else "false"
        text = f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{more}{rows}</ListBucketResult>"
        self._send(request, 200, text.encode())

    def _post(self, request: Any, key: str, query: object, body: bytes) -> None:
        keys = re.findall(r"<Key>(.*?)</Key>", body.decode())
        with self.lock:
            for one in keys:
                self.objects.pop(one, None)
        rows = "".join(f"<Deleted><Key>{one}</Key></Deleted>" for one in keys)
        self._send(request, 200, f"<DeleteResult>{rows}</DeleteResult>".encode())

    def _delete(self, request: Any, key: str, query: object, body: bytes) -> None:
        with self.lock:
            self.objects.pop(key, None)
        self._send(request, 204, b"")

    def _refuse(self, request: Any, status: int, code: str) -> None:
        text = (
            f'<?xml version="1.0"?><Error><Code>{code}</Code><AWSAccessKeyId>AKIDEXAMPLE</AWSAccessKeyId>'
            f"<StringToSign>{request.headers.get('Authorization')}</StringToSign></Error>"
        )
        self._send(request, status, text.encode())

    def _send(self, request: Any, status: int, body: bytes, **headers: str) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        if status != 204:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
        request.wfile.flush()
