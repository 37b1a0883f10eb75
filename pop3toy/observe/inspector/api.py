"""The HTTP API and the page: which request is answered by what."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.web.http import Request
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from ..._version import __version__
from ...interfaces import IServerControl, MaybeDeferred
from ..transcript import MemoryTranscript
from .access import FOR_MAIL, HEADERS, Access
from .html import harmless
from .hub import Hub, Session
from .mailboxes import Mailboxes, problem_of
from .problem import Problem
from .stepping import Stepping
from .stream import EventStream
from .told import event_as_json, session_as_dict

__all__ = ["Inspected", "Inspector"]

log = Logger()

#: Lines of a transcript.
_LINES = 100_000
#: What the page's files are.
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
}
_Answer = bytes | Awaitable[bytes] | int


@dataclass(frozen=True)
class Inspected:
    """The server that is looked at."""

    hub: Hub
    #: Gives the server's control, which is there when it runs.
    control: Callable[[], IServerControl]
    mailboxes: Mailboxes
    #: The open ports, each ``{"protocol", "tls", "address"}``.
    protocols: Callable[[], Sequence[Mapping[str, object]]]
    #: What is in trouble, a sentence each.
    problems: Callable[[], MaybeDeferred[Sequence[str]]] = lambda: ()
    #: Holds sessions; only in the toy.
    stepping: Stepping | None = None
    toy: bool = False
    #: What else is answered to GET, by its path without the first slash, as ``metrics``; goes before what is
    #: here.
    also: Mapping[bytes, IResource] = field(default_factory=dict)


class Inspector(Resource):
    """Answers everything; the one place that lets requests in.

    :param access: decides who may ask.
    """

    isLeaf = True

    def __init__(self, inspected: Inspected, access: Access) -> None:
        super().__init__()
        self._inspected = inspected
        self._hub = inspected.hub
        self._access = access
        self._streams: set[EventStream] = set()
        self._began = self._hub.clock.seconds()
        self._page = {
            file.name: file.read_bytes()
            for file in files(__package__).joinpath("page").iterdir()
            if file.name.rpartition(".")[2] in _TYPES
        }
        session, user, uid = r"(\d{1,18})", "([^/]+)", "([^/]+)"
        messages = f"api/mailboxes/{user}/messages"
        table: Sequence[tuple[str, str, Callable[..., _Answer]]] = (
            ("GET", "api/status", self._status),
            ("GET", "api/sessions", self._sessions),
            ("GET", f"api/sessions/{session}", self._session),
            ("GET", f"api/sessions/{session}/transcript", self._transcript),
            ("GET", rf"api/sessions/{session}/events\.jsonl", self._json_lines),
            ("POST", f"api/sessions/{session}/(close|hold|step|release)", self._act),
            ("GET", "api/events", self._events),
            ("POST", "api/(drain|resume)", self._drain),
            ("GET", "api/history", self._minutes),
            ("GET", "api/mailboxes", self._mailboxes),
            ("GET", messages, self._messages),
            ("POST", messages, self._add),
            ("DELETE", messages, self._remove),
            ("GET", f"{messages}/{uid}", self._message),
            ("DELETE", f"{messages}/{uid}", self._remove),
            ("GET", f"{messages}/{uid}/html", self._html),
            ("GET", rf"{messages}/{uid}/parts/(\d{{1,5}})", self._part),
            ("GET", "healthz", self._healthz),
        )
        self._table = [(method, re.compile(path), answer) for method, path, answer in table]

    # -- the one way in ------------------------------------------------------------------

    def render(self, request: Request) -> Any:
        """See ``IResource``."""
        for name, value in HEADERS:
            request.setHeader(name, value)
        request.responseHeaders.removeHeader("server")
        try:
            token = self._argument(request, "token")
            answer: _Answer
            if request.method == b"GET" and request.path == b"/" and token is not None:
                self._let_in(request, token)
                return b""
            self._access.check(request)
            answer = self._answer(request)
        except Exception as error:
            answer = self._failed(request, error)
        if isinstance(answer, bytes):
            return self._head(request, answer)
        if isinstance(answer, int):
            return answer
        return self._later(request, answer)

    def _later(self, request: Request, answer: Awaitable[bytes]) -> int:
        async def write() -> None:
            try:
                body = await answer
            except CancelledError:
                return
            except Exception as error:
                body = self._failed(request, error)
            request.setHeader("Content-Length", str(len(body)))
            request.write(self._head(request, body))
            request.finish()

        work = Deferred.fromCoroutine(write())
        request.notifyFinish().addErrback(lambda _: work.cancel())
        work.addErrback(lambda why: log.failure("an answer failed", why))
        return NOT_DONE_YET

    @staticmethod
    def _head(request: Request, body: bytes) -> bytes:
        """What is sent of a body."""
        if request.method != b"HEAD":
            return body
        # With a body Twisted would log the request, and the token with it.
        request.setHeader("Content-Length", str(len(body)))
        return b""

    def _let_in(self, request: Request, token: str) -> None:
        self._access.check_link(request, token)
        self._access.set_cookie(request)
        request.setResponseCode(303)
        # The token does not stay in the address line, nor in the browser's history.
        request.setHeader("Location", "/")

    def _answer(self, request: Request) -> _Answer:
        path = request.path.decode("ascii", "replace").removeprefix("/")
        method = "GET" if request.method == b"HEAD" else request.method.decode("ascii", "replace")
        other = self._inspected.also.get(request.path.removeprefix(b"/"))
        if other is not None and method == "GET":
            rendered: _Answer = other.render(request)
            return rendered
        name = path or "index.html"
        if name in self._page and method == "GET":
            request.setHeader("Content-Type", _TYPES[name.rpartition(".")[2]])
            return self._page[name]
        allowed = []
        for known, pattern, answer in self._table:
            if found := pattern.fullmatch(path):
                if known == method:
                    parts = [
                        unquote_to_bytes(one).decode("utf-8", "surrogateescape") for one in found.groups()
                    ]
                    return answer(request, *parts)
                allowed.append(known)
        if allowed:
            request.setHeader("Allow", ", ".join(sorted({*allowed, *(["HEAD"] if "GET" in allowed else [])})))
            raise Problem(405, f"This is for {' and '.join(allowed)}.")
        raise Problem(404, "There is nothing here.")

    def _failed(self, request: Request, error: Exception) -> bytes:
        problem = error if isinstance(error, Problem) else problem_of(error)
        if problem is None:
            log.failure("a request failed")
            problem = Problem(500, "A bug; the server's log tells of it.")
        request.setResponseCode(problem.status)
        if problem.status == 401:
            request.setHeader("WWW-Authenticate", 'Bearer realm="pop3toy"')
        if request.method == b"GET" and request.path in (b"/", b"/index.html"):
            request.setHeader("Content-Type", "text/plain; charset=utf-8")
            return f"{problem.detail}\n".encode()
        request.setHeader("Content-Type", "application/problem+json")
        return _octets(problem.as_dict())

    @staticmethod
    def _argument(request: Request, name: str) -> str | None:
        found = (request.args or {}).get(name.encode("ascii"))
        return found[0].decode("utf-8", "surrogateescape") if found else None

    def _number(self, request: Request, name: str) -> int | None:
        text = self._argument(request, name)
        if not text:
            return None
        if not re.fullmatch("[0-9]{1,18}", text):
            raise Problem(400, f"{name} is a number.")
        return int(text)

    # -- the server ----------------------------------------------------------------------

    async def _problems(self) -> list[str]:
        found = self._inspected.problems()
        return list(await found if isinstance(found, Deferred) else found)

    async def _status(self, request: Request) -> bytes:
        problems = await self._problems()
        live = sum(one.ended is None for one in self._hub.sessions())
        return _json(
            request,
            {
                "version": __version__,
                "protocols": list(self._inspected.protocols()),
                "uptime": round(self._hub.clock.seconds() - self._began, 3),
                "connections": live,
                "sessions_total": self._hub.total,
                "draining": self._inspected.control().draining,
                "toy": self._inspected.toy,
                "shows_mail": self._inspected.mailboxes.shows_mail,
                "healthy": not problems,
                "problems": problems,
                "seq": self._hub.seq,
            },
        )

    async def _healthz(self, request: Request) -> bytes:
        problems = await self._problems()
        if problems:
            request.setResponseCode(503)
        return _json(request, {"healthy": not problems, "problems": problems})

    def _minutes(self, request: Request) -> bytes:
        return _json(request, {"minutes": self._hub.minutes()})

    def _drain(self, request: Request, what: str) -> bytes:
        control = self._inspected.control()
        if what == "drain":
            # Whoever asked need not wait for the last session.
            control.drain()
        else:
            control.resume()
        return _json(request, {"draining": control.draining}, 202)

    # -- sessions ------------------------------------------------------------------------

    def _found(self, number: str) -> Session:
        session = self._hub.session(int(number))
        if session is None:
            raise Problem(404, f"Session {number} is gone, or never was.")
        return session

    def _told(self, sessions: Sequence[Session]) -> list[dict[str, Any]]:
        now, stepping = self._hub.clock.seconds(), self._inspected.stepping
        infos = {info.session: info for info in self._inspected.control().sessions()}
        return [
            session_as_dict(
                one,
                now,
                infos.get(one.number),
                held=stepping is not None and stepping.held(one.number),
            )
            for one in sessions
        ]

    def _sessions(self, request: Request) -> bytes:
        state, user, text = (self._argument(request, name) for name in ("state", "user", "q"))
        if state not in (None, "", "live", "ended"):
            raise Problem(400, "state is live or ended.")
        chosen = [
            one for one in self._hub.sessions() if not state or (one.ended is None) == (state == "live")
        ]
        told = self._told([one for one in chosen if not user or one.user == user])
        if text:
            told = [one for one in told if text.casefold() in " ".join(map(str, one.values())).casefold()]
        return _json(request, {"sessions": told, "seq": self._hub.seq})

    def _session(self, request: Request, number: str) -> bytes:
        session = self._found(number)
        whole = self._told([session])[0]
        events = ",".join(map(event_as_json, session.records))
        head = json.dumps({**whole, "missed": session.dropped, "seq": self._hub.seq})
        request.setHeader("Content-Type", "application/json")
        return f'{head[:-1]}, "events": [{events}]}}'.encode("ascii")

    def _transcript(self, request: Request, number: str) -> bytes:
        session = self._found(number)
        transcript = MemoryTranscript(size=_LINES)
        for record in session.records:
            if type(record.event) in transcript.wants:
                transcript.observe(record.event)
        _download(request, f"session-{number}.txt", "text/plain; charset=utf-8")
        return "".join(f"{line}\n" for line in transcript.lines).encode("utf-8", "backslashreplace")

    def _json_lines(self, request: Request, number: str) -> bytes:
        session = self._found(number)
        _download(request, f"session-{number}.jsonl", "application/jsonl")
        return "".join(f"{event_as_json(record)}\n" for record in session.records).encode("ascii")

    def _act(self, request: Request, number: str, what: str) -> bytes:
        session, stepping = self._found(number), self._inspected.stepping
        if session.ended is not None:
            raise Problem(404, f"Session {number} has ended.")
        if what == "close":
            if not self._inspected.control().close(session.number):
                raise Problem(404, f"Session {number} has ended.")
            return _json(request, {"closing": True}, 202)
        if stepping is None:
            raise Problem(403, "Only the toy's sessions can be held.")
        if what == "hold":
            stepping.hold(session.number)
        elif what == "step":
            stepping.step(session.number)
        else:
            stepping.release(session.number)
        return _json(request, {"held": stepping.held(session.number)})

    def _events(self, request: Request) -> _Answer:
        session = self._number(request, "session")
        if session is not None:
            self._found(str(session))
        last = request.getHeader("last-event-id") or self._argument(request, "since") or ""
        self._hub.flush()
        since = int(last) if re.fullmatch("[0-9]{1,18}", last) else self._hub.seq
        # A number from before this server's start is none of its own.
        since = 0 if since > self._hub.seq else since
        if request.method == b"HEAD":
            request.setHeader("Content-Type", "text/event-stream; charset=utf-8")
            return b""
        stream = EventStream(request, self._hub, session, since)
        self._streams.add(stream)
        request.notifyFinish().addBoth(lambda _: self._streams.discard(stream))
        stream.start()
        return NOT_DONE_YET

    def finish(self) -> None:
        """The server stops: tell those who follow the last of it, and let them go."""
        self._hub.flush()
        for stream in list(self._streams):
            stream.finish()

    # -- mailboxes -----------------------------------------------------------------------

    async def _mailboxes(self, request: Request) -> bytes:
        return _json(request, await self._inspected.mailboxes.all(self._hub.holder))

    async def _messages(self, request: Request, user: str) -> bytes:
        return _json(request, await self._inspected.mailboxes.messages(user))

    async def _message(self, request: Request, user: str, uid: str) -> bytes:
        mailboxes = self._inspected.mailboxes
        if "application/json" in (request.getHeader("accept") or ""):
            return _json(request, await mailboxes.message_as_dict(user, uid))
        message = await mailboxes.message(user, uid)
        _download(request, f"{uid}.eml", "message/rfc822")
        return message

    async def _part(self, request: Request, user: str, uid: str, number: str) -> bytes:
        name, octets = await self._inspected.mailboxes.attachment(user, uid, int(number))
        # Whatever it says it is: this server's page must not run it.
        _download(request, name, "application/octet-stream")
        return octets

    async def _html(self, request: Request, user: str, uid: str) -> bytes:
        html = (await self._inspected.mailboxes.message_as_dict(user, uid))["html"]
        if html is None:
            raise Problem(404, "The message has no HTML.")
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        request.setHeader("Content-Security-Policy", FOR_MAIL)
        # The page shows it in a frame; FOR_MAIL says that nobody else may.
        request.responseHeaders.removeHeader("x-frame-options")
        return harmless(str(html)).encode("utf-8", "replace")

    async def _add(self, request: Request, user: str) -> bytes:
        if getattr(request, "too_large", False):
            raise Problem(413, "The message is too large.")
        message = request.content.read() if request.content is not None else b""
        if not message:
            raise Problem(400, "There is no message in the request.")
        return _json(request, {"uid": await self._inspected.mailboxes.add(user, message)}, 201)

    async def _remove(self, request: Request, user: str, uid: str | None = None) -> bytes:
        return _json(request, {"removed": await self._inspected.mailboxes.remove(user, uid)})


def _octets(value: object) -> bytes:
    return json.dumps(value).encode("ascii") + b"\n"


def _json(request: Request, value: object, status: int = 200) -> bytes:
    request.setHeader("Content-Type", "application/json")
    if status != 200:
        request.setResponseCode(status)
    return _octets(value)


def _download(request: Request, name: str, kind: str) -> None:
    """It is to be saved, not shown."""
    request.setHeader("Content-Type", kind)
    safe = quote(name.encode("utf-8", "replace"), safe="")
    request.setHeader("Content-Disposition", f"attachment; filename*=UTF-8''{safe}")
