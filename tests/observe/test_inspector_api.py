"""The inspector's HTTP API: who may ask, and what is told."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from openapi_spec_validator import validate
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.web.static import Data

from pop3toy import MemoryStore, Settings, server
from pop3toy.errors import BadSetting
from pop3toy.observe.inspector.site import CONNECTIONS
from pop3toy.observe.inspector.stream import BATCH, PING

from ..inspector_world import HERE, TOKEN, InspectorCase, answer_of, checked

OPENAPI = json.loads(
    (Path(__file__).parent.parent.parent / "docs" / "openapi.json").read_text(encoding="utf-8")
)
SCRIPT = "<script>alert(1)</script>"
MAIL = (
    b"Subject: " + SCRIPT.encode() + b"\nFrom: =?utf-8?q?=3Cb=3E?= <eve@example.org>\nMIME-Version: 1.0\n"
    b'Content-Type: multipart/mixed; boundary="x"\n\n'
    b"--x\nContent-Type: text/plain\n\nhello\n"
    b"--x\nContent-Type: text/html\n\n<img src=x onerror=alert(1)>\n"
    b'--x\nContent-Type: text/html; name="<i>.html"\nContent-Disposition: attachment; filename="<i>.html"\n\n'
    b"<script></script>\n--x--\n"
)


class AccessTests(InspectorCase):
    """Who may ask."""

    def test_token(self) -> None:
        """No request is answered without the token, but the page says where it is."""
        for path in ("/api/status", "/api/sessions", "/api/events", "/healthz", "/nothing"):
            self.assertIn("token", self.problem(401, path, token=None))
            self.assertIn("token", self.problem(401, path, token=TOKEN + "x"))
            self.assertIn("token", self.problem(401, path, token=None, Authorization=f"Basic {TOKEN}"))
        page = self.ask("/", token=None)
        self.assertEqual((page.status, page.headers["content-type"]), (401, "text/plain; charset=utf-8"))
        self.assertEqual(self.ask("/api/status").status, 200)

    def cookie(self) -> str:
        """What the link sets."""
        answer = self.ask(f"/?token={TOKEN}", token=None)
        self.assertEqual((answer.status, answer.headers["location"]), (303, "/"))
        self.assertRegex(answer.headers["set-cookie"], r"(?i); HttpOnly.*; SameSite=Strict")
        cookie = answer.headers["set-cookie"].partition(";")[0]
        self.assertNotIn(TOKEN, cookie)
        return cookie

    def test_link(self) -> None:
        """The link sets a cookie, with which the page is shown; a wrong one does not."""
        cookie = self.cookie()
        self.assertIn(b"<html", self.ask("/", token=None, Cookie=cookie).body)
        self.assertEqual(self.ask("/api/status", token=None, Cookie=cookie).status, 200)
        wrong = self.ask("/?token=x", token=None)
        self.assertEqual(wrong.status, 401)
        self.assertNotIn("set-cookie", wrong.headers)
        self.problem(401, "/api/status", token=None, Cookie=cookie[:-1])

    def test_other_pages(self) -> None:
        """With the cookie nothing changes but by this server's own page (CSRF)."""
        cookie = self.cookie()
        refused: list[dict[str, Any]] = [
            {},
            {"Sec_Fetch_Site": "same-site"},
            {"Origin": "http://127.0.0.1:9999"},
            {"Origin": "null", "Sec_Fetch_Site": "same-origin"},
        ]
        for headers in refused:
            self.problem(403, "/api/drain", "POST", token=None, Cookie=cookie, **headers)
        self.assertFalse(self.server.control.draining)
        allowed: list[dict[str, Any]] = [
            {"Sec_Fetch_Site": "same-origin"},
            {"Origin": "http://127.0.0.1:8025"},
        ]
        for headers in allowed:
            self.assertEqual(
                self.ask("/api/resume", "POST", token=None, Cookie=cookie, **headers).status, 202
            )
        self.problem(403, "/api/drain", "POST", Origin="http://evil.example")

    def test_host(self) -> None:
        """A name of somebody else's that leads here is refused (DNS rebinding), the link too."""
        for host in ("evil.example", "127.0.0.1.evil.example:8025", "192.0.2.1", "", "a b", "[::1", "127.1"):
            self.problem(421, "/api/status", Host=host)
        self.assertEqual(self.ask(f"/?token={TOKEN}", token=None, Host="evil.example").status, 421)
        for host in ("localhost", "LOCALHOST:80", "127.0.0.1", "[::1]:8025"):
            self.assertEqual(self.ask("/api/status", Host=host).status, 200, host)

    def test_unix(self) -> None:
        """On a Unix socket the file's mode is the authorisation; its endpoint has one."""
        local = UNIXAddress("/run/pop3toy/inspector.sock")
        self.assertEqual(self.ask("/api/status", token=None, Host="x", local=local).status, 200)
        self.assertEqual(self.ask("/api/resume", "POST", token=None, Host="x", local=local).status, 202)
        self.assertEqual(Settings(inspector="unix:/x").inspector, "unix:/x:mode=600")
        self.assertEqual(Settings(inspector="unix:/x:mode=660").inspector, "unix:/x:mode=660")

    def test_headers(self) -> None:
        """Each answer, good or bad, forbids framing, sniffing, keeping and foreign scripts."""
        for answer in (self.ask("/"), self.ask("/", token=None), self.ask("/api/status"), self.ask("/x")):
            policy = answer.headers["content-security-policy"]
            self.assertIn("default-src 'none'", policy)
            self.assertIn("frame-ancestors 'none'", policy)
            self.assertNotIn("unsafe", policy)
            self.assertEqual(answer.headers["x-frame-options"], "DENY")
            self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
            self.assertEqual(answer.headers["cache-control"], "no-store")
            self.assertNotIn("access-control-allow-origin", answer.headers)

    def test_not_logged(self) -> None:
        """No request comes into the log: a link has the token in it."""
        with capturedLogs() as logged:
            self.ask(f"/?token={TOKEN}", token=None)
            self.ask(f"/?token={TOKEN}", "HEAD", token=None)
            self.ask(f"/api/status?token={TOKEN}", "HEAD")
        self.assertEqual([formatEvent(event) for event in logged], [])

    def test_strangers_bring_nothing(self) -> None:
        """What is sent without the token is not kept."""
        transport = self.open()
        head = b"POST /api/mailboxes/user/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
        transport.channel.dataReceived(head + b"\r\n" + b"x" * 50_000)
        [request] = transport.channel.wrappedProtocol.requests
        self.assertEqual(request.content.tell(), 0)

    def test_too_many(self) -> None:
        """Strangers' connections are bounded: each is an open file that the mail has not."""
        connections = [self.open() for _ in range(CONNECTIONS)]
        site = self.reactor.factory_at(2)
        self.assertIsNone(site.buildProtocol(HERE))
        connections[0].channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.ask("/api/status").status, 200)
        self.assertIsNone(site.buildProtocol(HERE))


class TokenFileTests(InspectorCase):
    """Where the token comes from."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor.run()

    def test_new_one(self) -> None:
        """Without a file it is new at each start, and the log shows the link."""
        links = []
        for port in (5, 6):
            with capturedLogs() as logged:
                started = self.started(Settings(port=0, inspector_port=port, transcript="off"))
            links.append(started.inspector)
            said = [text for event in logged if "inspector: " in (text := formatEvent(event) or "")]
            self.assertEqual(said, [f"pop3toy's inspector: {started.inspector}"])
        self.assertRegex(links[0], r"^http://[\d.]+:\d+/\?token=[\w-]{32}$")
        self.assertNotEqual(links[0].partition("=")[2], links[1].partition("=")[2])

    def test_of_a_file(self) -> None:
        """That of a file does not come into the log."""
        with capturedLogs() as logged:
            self.started(
                Settings(
                    port=0, inspector_port=5, inspector_token_file=str(self.token_file), transcript="off"
                )
            )
        self.assertNotIn(TOKEN, str([formatEvent(event) for event in logged]))

    def test_bad(self) -> None:
        """A token that can be guessed, or none, is one line at the start."""
        for text in ("", "short\n", "with blanks in it, and long\n", "ümläütümläütümläüt\n"):
            self.token_file.write_text(text, encoding="utf-8")
            with self.assertRaisesRegex(BadSetting, "inspector-token-file .*16 characters"):
                server(self.reactor, Settings(inspector_port=5, inspector_token_file=str(self.token_file)))
        with self.assertRaisesRegex(BadSetting, "inspector-token-file"):
            server(self.reactor, Settings(inspector_port=5, inspector_token_file="/nowhere/token"))

    def test_alone(self) -> None:
        """Its options go with it, and it has one place."""
        with self.assertRaisesRegex(BadSetting, "inspector-token-file needs --inspector-port"):
            Settings(inspector_token_file="x")
        with self.assertRaisesRegex(BadSetting, "inspector-shows-mail needs --inspector-port"):
            Settings(inspector_shows_mail=True)
        with self.assertRaisesRegex(BadSetting, "do not go together"):
            Settings(inspector_port=1, inspector="tcp:2")


class SessionTests(InspectorCase):
    """Sessions and what happens in them."""

    def test_one(self) -> None:
        """A session with its events and explanations, whatever the client says."""
        client = self.client()
        client.say(f"USER {SCRIPT}".encode(), b"\xff\x1b[2J", b"USER user", b"PASS pass", b"RETR 1")
        answer = self.ask("/api/sessions/1")
        self.assertEqual(answer.headers["content-type"], "application/json")
        told = checked(answer.json, "SessionWithEvents")
        self.assertEqual((told["user"], told["state"], told["ended"]), ("user", "TRANSACTION", None))
        self.assertEqual((told["retrieved"], told["received"]), (1, told["received"]))
        lines = [one["line"] for one in told["events"] if one["event"] == "LineReceived"]
        self.assertEqual(lines[:2], [f"USER {SCRIPT}", "\udcff\x1b[2J"])
        self.assertTrue(any(one["explained"] for one in told["events"]))
        seqs = [one["seq"] for one in told["events"]]
        self.assertEqual(seqs, list(range(1, len(seqs) + 1)))
        client.say(b"QUIT")
        client.leave()
        self.assertEqual(self.ask("/api/sessions/1").json["ended"], "quit")

    def test_list(self) -> None:
        """Live ones and those that have ended, by user and by text."""
        first, second = self.client(), self.client()
        first.say(b"USER user", b"PASS pass")
        second.leave()

        def ids(query: str) -> list[int]:
            found = checked(self.ask(f"/api/sessions{query}").json, "Sessions")
            return [one["id"] for one in found["sessions"]]

        self.assertEqual(ids(""), [2, 1])
        self.assertEqual(ids("?state=live"), [1])
        self.assertEqual(ids("?state=ended"), [2])
        self.assertEqual(ids("?user=user"), [1])
        self.assertEqual(ids("?q=transACTION"), [1])
        self.assertEqual(ids("?q=nothing"), [])
        self.problem(400, "/api/sessions?state=x")

    def test_gone(self) -> None:
        """A session that is gone is a problem, wherever it is asked for."""
        for path in ("", "/transcript", "/events.jsonl"):
            self.assertIn("7", self.problem(404, f"/api/sessions/7{path}"))
        for what in ("close", "hold", "step", "release"):
            self.problem(404, f"/api/sessions/7/{what}", "POST")
        self.problem(404, "/api/events?session=7")
        self.client().leave()
        self.problem(404, "/api/sessions/1/close", "POST")

    def test_downloads(self) -> None:
        """The conversation as text, and as JSON Lines; neither is shown as a page."""
        self.client().say(b"CAPA")
        text = self.ask("/api/sessions/1/transcript")
        self.assertIn(b"[1] C: CAPA\n[1] S: +OK", text.body)
        lines = self.ask("/api/sessions/1/events.jsonl")
        for line in lines.body.splitlines():
            checked(json.loads(line), "Event")
        for answer in (text, lines):
            self.assertIn("attachment", answer.headers["content-disposition"])

    def test_close(self) -> None:
        """A session can be closed."""
        client = self.client()
        self.assertEqual(
            checked(self.ask("/api/sessions/1/close", "POST").json, "Closing"), {"closing": True}
        )
        self.assertTrue(client.closed)

    def test_step(self) -> None:
        """The server is held before it answers, and goes on command by command."""
        client = self.client()
        self.assertTrue(checked(self.ask("/api/sessions/1/hold", "POST").json, "Held")["held"])
        self.assertEqual(client.send(b"NOOP\r\nCAPA\r\nNOOP\r\n"), b"")
        self.assertTrue(self.ask("/api/sessions/1").json["held"])
        self.assertTrue(self.ask("/api/sessions/1/step", "POST").json["held"])
        first = client.read()
        self.assertEqual(first.count(b"\r\n"), 1)
        self.assertFalse(self.ask("/api/sessions/1/release", "POST").json["held"])
        self.assertIn(b"\r\n.\r\n-ERR", client.read())

    def test_held_to_the_end(self) -> None:
        """A client that hangs up while it is held leaves nothing behind."""
        client = self.client()
        self.ask("/api/sessions/1/hold", "POST")
        client.send(b"NOOP\r\n")
        client.leave()
        self.assertEqual(self.ask("/api/sessions/1").json["ended"], "dropped")
        self.assertFalse(self.ask("/api/sessions/1").json["held"])

    def test_drain(self) -> None:
        """No more clients, until they are let in again."""
        self.assertEqual(checked(self.ask("/api/drain", "POST").json, "Draining"), {"draining": True})
        self.assertIn(b"stopping", self.client().greeting)
        self.assertTrue(self.ask("/api/status").json["draining"])
        self.ask("/api/resume", "POST")
        self.assertIn(b"+OK", self.client().greeting)

    def test_status(self) -> None:
        """The server at a glance."""
        self.client()
        told = checked(self.ask("/api/status").json, "Status")
        self.assertEqual((told["connections"], told["sessions_total"], told["toy"]), (1, 1, True))
        self.assertEqual([one["protocol"] for one in told["protocols"]], ["POP3"])
        self.assertEqual(checked(self.ask("/healthz").json, "Health"), {"healthy": True, "problems": []})
        [minute] = checked(self.ask("/api/history").json, "History")["minutes"]
        self.assertEqual((minute["sessions"], minute["live"]), (1, 1))

    def test_whole_api(self) -> None:
        """The description is valid, and has each path and method that is answered, no other."""
        validate(OPENAPI)
        self.client()
        samples = {"id": "1", "user": "nobody", "uid": "x", "part": "0"}
        described = set()
        for path, operations in OPENAPI["paths"].items():
            asked = re.sub(r"\{(\w+)\}", lambda name: samples[name[1]], path)
            for method in ("get", "post", "delete"):
                transport = self.begin(asked, method.upper(), local=HERE)
                status = int(transport.value()[9:12] or b"0")
                if method in operations:
                    described.add((method.upper(), path))
                    self.assertNotIn(status, (405, 501), f"{method} {path}")
                else:
                    self.assertEqual(status, 405, f"{method} {path}")
        table = self.reactor.factory_at(2).wrappedFactory.resource._table
        self.assertEqual(
            len(described),
            sum(3 if "hold" in pattern.pattern else 0 for _, pattern, _ in table) + len(table) + 1,
        )
        self.problem(404, "/api/nothing")


class StreamTests(InspectorCase):
    """Server-sent events."""

    def follow(self, query: str = "", **headers: Any) -> Any:
        return self.begin(f"/api/events{query}", **headers)

    def told(self, transport: Any) -> list[tuple[str, Any]]:
        """What came since the last look, each with its kind."""
        self.reactor.advance(BATCH)
        self.reactor.advance(BATCH)
        octets = transport.value()
        transport.clear()
        if octets.startswith(b"HTTP/"):
            octets = octets.partition(b"\r\n\r\n")[2]
        body = b""
        while octets:
            length, _, octets = octets.partition(b"\r\n")
            body, octets = body + octets[: int(length, 16)], octets[int(length, 16) + 2 :]
        found = re.findall(r"(?:event: (\w+)\n)?id: \d+\ndata: (.*)\n\n", body.decode("ascii"))
        return [(kind, json.loads(data)) for kind, data in found]

    def test_live(self) -> None:
        """What happens is told as it happens, explained; many events in one write."""
        stream = self.follow()
        self.assertIn(b"Content-Type: text/event-stream", stream.value())
        self.assertEqual(self.told(stream), [])
        client = self.client()
        client.say(b"CAPA", b"NOOP")
        told = self.told(stream)
        self.assertEqual([checked(one, "Event")["seq"] for _, one in told], list(range(1, len(told) + 1)))
        self.assertEqual(
            [one.get("command") for _, one in told if one["event"] == "LineReceived"], ["CAPA", "NOOP"]
        )

    def test_resume(self) -> None:
        """It goes on behind Last-Event-ID, or since a number; of one session alone."""
        self.client()
        self.client()
        for stream in (self.follow(Last_Event_ID="1"), self.follow("?since=1")):
            self.assertEqual([one["seq"] for _, one in self.told(stream)], [2, 3, 4])
        stream = self.follow("?since=0&session=2")
        self.assertEqual([one["session"] for _, one in self.told(stream)], [2, 2])

    def test_too_slow(self) -> None:
        """One that does not read is written nothing more, and is told how many it has missed."""
        hub = self.reactor.factory_at(2).wrappedFactory.resource._hub
        hub.bounds = hub.bounds._replace(last_events=20)
        stream = self.follow()
        self.told(stream)
        stream.producer.pauseProducing()
        client = self.client()
        for _ in range(100):
            client.say(b"NOOP")
        self.assertEqual(self.told(stream), [])
        stream.producer.resumeProducing()
        (kind, missed), *rest = self.told(stream)
        self.assertEqual(kind, "missed")
        self.assertEqual(missed["events"] + len(rest), hub.seq)
        self.assertEqual(rest[0][1]["seq"], missed["events"] + 1)
        self.assertLessEqual(len(rest), 20)

    def test_signs_of_life(self) -> None:
        """A comment comes every 15 seconds."""
        stream = self.follow()
        stream.clear()
        self.reactor.advance(PING)
        self.assertIn(b": \n\n", stream.value())

    def test_end(self) -> None:
        """Who has gone is forgotten, and nothing is scheduled for them."""
        hub = self.reactor.factory_at(2).wrappedFactory.resource._hub
        before = len(self.reactor.getDelayedCalls())
        stream = self.follow()
        self.assertEqual(hub.followers, 1)
        stream.channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((hub.followers, len(self.reactor.getDelayedCalls())), (0, before))

    def test_stop(self) -> None:
        """At the stop followers hear the last and are let go; one that does not read is cut off."""
        site = self.reactor.factory_at(2)
        reads, slow = self.follow(), self.follow()
        slow.producer.pauseProducing()
        self.client()
        site.stopFactory()
        self.assertIn(b"Connected", reads.value())
        self.assertTrue(reads.value().endswith(b"\r\n0\r\n\r\n"))
        self.assertTrue(reads.disconnecting)
        self.assertNotIn(b"Connected", slow.value())
        self.assertTrue(slow.disconnected)


class MailboxTests(InspectorCase):
    """The toy's mailboxes."""

    PATH = "/api/mailboxes/user/messages"

    def test_in_and_out(self) -> None:
        """A message is put in, fetched by POP3, shown, and taken out."""
        added = self.ask(self.PATH, "POST", MAIL)
        self.assertEqual(added.status, 201)
        uid = checked(added.json, "Added")["uid"]
        client = self.client()
        self.assertIn(b"2 messages", client.say(b"USER user", b"PASS pass"))
        listed = checked(self.ask("/api/mailboxes").json, "Mailboxes")["mailboxes"]
        self.assertEqual(
            [(one["user"], one["messages"], one["locked_by"]) for one in listed], [("user", 2, 1)]
        )
        self.assertIn("open", self.problem(409, self.PATH, "DELETE"))
        client.say(b"QUIT")
        self.assertEqual(self.ask(f"{self.PATH}/{uid}", "DELETE").json, {"removed": 1})
        self.problem(404, f"{self.PATH}/{uid}", "DELETE")
        self.assertEqual(checked(self.ask(self.PATH, "DELETE").json, "Removed"), {"removed": 1})
        self.assertEqual(self.ask("/api/mailboxes").json["mailboxes"][0]["messages"], 0)

    def test_text_stays_text(self) -> None:
        """Subjects, names and HTML of others are strings of JSON; parts are saved, never shown."""
        uid = self.ask(self.PATH, "POST", MAIL).json["uid"]
        listed = checked(self.ask(self.PATH, results=1).json, "Messages")["messages"]
        self.assertEqual((listed[1]["subject"], listed[1]["from"]), (SCRIPT, '"<b>" <eve@example.org>'))
        answer = self.ask(f"{self.PATH}/{uid}", Accept="application/json", results=1)
        self.assertEqual(answer.headers["content-type"], "application/json")
        told = checked(answer.json, "Message")
        self.assertEqual((told["text"], told["html"]), ("hello", "<img src=x onerror=alert(1)>"))
        self.assertIn(["Subject", SCRIPT], told["headers"])
        [attached] = told["attachments"]
        self.assertEqual((attached["name"], attached["type"]), ("<i>.html", "text/html"))
        part = self.ask(f"{self.PATH}/{uid}/parts/{attached['part']}", results=1)
        self.assertEqual(part.headers["content-type"], "application/octet-stream")
        self.assertEqual(part.headers["content-disposition"], "attachment; filename*=UTF-8''%3Ci%3E.html")
        self.assertEqual(part.body, b"<script></script>")
        raw = self.ask(f"{self.PATH}/{uid}")
        self.assertEqual((raw.headers["content-type"], raw.body), ("message/rfc822", MAIL))

    def test_broken_mail(self) -> None:
        """What is no mail, or a lie, is told all the same."""
        for mail in (
            b"\xff\xfe\x00",
            b"Subject: =?nonsense?q?=zz?=\nContent-Type: text/plain; charset=nonsense\n\n\xe4\n",
            b"Content-Type: multipart/mixed\n\nx",
            b"From: " + b"<" * 3000 + b"\nTo: (((\nDate: never\n\n",
            b"Content-Transfer-Encoding: base64\n\n====\n",
        ):
            uid = self.ask(self.PATH, "POST", mail).json["uid"]
            checked(self.ask(f"{self.PATH}/{uid}", Accept="application/json", results=1).json, "Message")
        checked(self.ask(self.PATH, results=1).json, "Messages")

    def test_bad(self) -> None:
        """Nobody's mailbox, no message, and no body are problems."""
        self.problem(404, "/api/mailboxes/nobody/messages", "POST", MAIL)
        self.problem(404, "/api/mailboxes/nobody/messages", "DELETE")
        self.problem(404, "/api/mailboxes/nobody/messages")
        self.problem(404, f"{self.PATH}/nothing")
        self.problem(400, self.PATH, "POST")


class RealMailTests(InspectorCase):
    """Mail that is not the toy's is private."""

    shows_mail = False

    def settings(self) -> Settings:
        return Settings(
            port=1,
            users=(("ann", "secret"),),
            inspector_port=2,
            inspector_token_file=str(self.token_file),
            inspector_shows_mail=self.shows_mail,
        )

    def more(self) -> dict[str, Any]:
        return {"store": MemoryStore({"ann": [MAIL]})}

    def test_private(self) -> None:
        """How many there are is told, what is in them is not; nor can a session be held."""
        told = checked(self.ask("/api/mailboxes", results=1).json, "Mailboxes")
        self.assertEqual([(one["user"], one["messages"]) for one in told["mailboxes"]], [("ann", 1)])
        self.assertIn("--inspector-shows-mail", self.problem(403, "/api/mailboxes/ann/messages"))
        self.problem(403, "/api/mailboxes/ann/messages", "POST", MAIL)
        self.problem(403, "/api/mailboxes/ann/messages", "DELETE")
        self.client().say(b"USER ann", b"PASS secret")
        self.problem(403, "/api/sessions/1/hold", "POST")
        self.assertNotIn("secret", self.ask("/api/sessions/1").body.decode())


class ShownMailTests(RealMailTests):
    """Unless the operator has it shown."""

    shows_mail = True

    def test_private(self) -> None:
        """Then it can be read, and not changed."""
        told = checked(self.ask("/api/mailboxes/ann/messages", results=2).json, "Messages")
        self.assertEqual(told["messages"][0]["subject"], SCRIPT)
        self.problem(403, "/api/mailboxes/ann/messages", "POST", MAIL)
        self.problem(403, "/api/mailboxes/ann/messages", "DELETE")


class OtherAnswersTests(InspectorCase):
    """What others have to say through the inspector."""

    def test_trouble(self) -> None:
        """What is wrong with the server is told, also if it has to be found out first."""
        inspector = self.reactor.factory_at(2).wrappedFactory.resource
        looking: list[Deferred[list[str]]] = []

        def look() -> Deferred[list[str]]:
            looking.append(Deferred())
            return looking[-1]

        inspector._inspected = replace(inspector._inspected, problems=look, also={})
        healthz, status = self.begin("/healthz"), self.begin("/api/status")
        self.assertEqual(healthz.value() + status.value(), b"")
        for one in looking:
            one.callback(["the disk is full"])
        answer = answer_of(healthz.value())
        self.assertEqual(answer.status, 503)
        self.assertEqual(checked(answer.json, "Health"), {"healthy": False, "problems": ["the disk is full"]})
        told = checked(answer_of(status.value()).json, "Status")
        self.assertEqual((told["healthy"], told["problems"]), (False, ["the disk is full"]))

    def test_other_resources(self) -> None:
        """Other resources answer, to whom has the token."""
        inspector = self.reactor.factory_at(2).wrappedFactory.resource
        also = {b"metrics": Data(b"up 1\n", "text/plain")}
        inspector._inspected = replace(inspector._inspected, also=also)
        self.assertEqual(self.ask("/metrics").body, b"up 1\n")
        self.problem(401, "/metrics", token=None)
        self.problem(404, "/metrics", "POST")


class LanguageTests(InspectorCase):
    """In the language that was asked for."""

    def settings(self) -> Settings:
        return replace(super().settings(), language="it")

    def test_italian(self) -> None:
        """Explanations are in Italian, the conversation is what it is."""
        self.client()
        connected, greeting = self.ask("/api/sessions/1").json["events"]
        self.assertIn("Stato AUTHORIZATION", connected["explained"][0]["text"])
        self.assertIn("+OK pop3toy ready", greeting["data"])
