"""``moving.client`` and ``moving.login``: what they make of servers, right ones and wrong ones."""

from __future__ import annotations

import base64
import io
import itertools
import shutil
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.moving import client as client_module
from pop3toy.moving.client import Client, Listed, LoginRefused, MessageRefused
from pop3toy.moving.login import log_in, session
from pop3toy.moving.server import NotTrusted, Server, Trouble, parse_url
from pop3toy.testing import RunningServer, running_server

from ..corpus import awkward_messages, wire_form
from ..tls_world import Authority

PASSWORD = "open sesame"
DOTS = b"Subject: dots\n\n.\n..\n.x\n\n.\n"
LONG = b"Subject: long\n\n" + b"x" * 200_000 + b"\n.y" + b"z" * 70_000


def at(port: int, **more: Any) -> Server:
    """A server on this machine, which is not waited for long."""
    return Server("127.0.0.1", port, **{"timeout": 20.0, **more})


class Scripted:
    """A server of one connection that answers line by line what it was told to.

    :param answers: what is sent for each line that comes; the first at once.
    """

    def __init__(self, *answers: bytes) -> None:
        self.lines: list[bytes] = []
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        with sock, self._listener, sock.makefile("rb") as file:
            for answer in self._answers:
                try:
                    sock.sendall(answer)
                except OSError:
                    return
                line = file.readline()
                if not line:
                    return
                self.lines.append(line)

    def ended(self) -> list[bytes]:
        """All lines that came."""
        self._thread.join(20)
        return self.lines


class AddressTests(SynchronousTestCase):
    """``pop3://``."""

    def test_read(self) -> None:
        """Host, port, TLS and user."""
        for text, found in (
            ("pop3://mail.example.org", ("mail.example.org", 110, False, None)),
            ("pop3s://ann@mail.example.org", ("mail.example.org", 995, True, "ann")),
            ("POP3://ann%40example.org@[::1]:2590/", ("::1", 2590, False, "ann@example.org")),
        ):
            self.assertEqual(parse_url(text), found)

    def test_refused(self) -> None:
        """What is none is refused in a sentence; a password is not repeated."""
        for text, said in (
            ("mail.example.org", "pop3://"),
            ("imap://mail.example.org", "pop3://"),
            ("pop3://", "host is missing"),
            ("pop3://host:99999", "port is no number"),
            ("pop3://host/INBOX", "nothing"),
            ("pop3://ann:sesame@host", "a password does not belong"),
        ):
            error = self.assertRaises(ValueError, parse_url, text)
            self.assertIn(said, str(error))
            self.assertNotIn("sesame", str(error))


class ServedTests(SynchronousTestCase):
    """With a server of ours."""

    messages: ClassVar[list[bytes]] = [DOTS, LONG, b"Subject: three\n\n3\n", DOTS]

    def served(self, *messages: bytes, **options: Any) -> RunningServer:
        """A server with the mailbox of ann."""
        context = running_server({"ann": messages or self.messages}, {"ann": PASSWORD}, **options)
        server: RunningServer = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return server

    def session(self, server: RunningServer, **more: Any) -> Client:
        """A session of ann."""
        found = session(at(server.port, **more), "ann", PASSWORD, time.monotonic)
        self.addCleanup(found.close)
        return found

    def test_messages(self) -> None:
        """All messages come as they are, in as many octets as LIST says; TOP has the header."""
        awkward = awkward_messages()
        server = self.served(*(one.stored for one in awkward), LONG)
        client = self.session(server)
        listed = client.listing()
        self.assertEqual(client.stat(), (len(awkward) + 1, sum(one.octets or 0 for one in listed)))
        for one, wire in zip(listed, [*(one.wire for one in awkward), wire_form(LONG)], strict=True):
            file = io.BytesIO()
            self.assertEqual(client.retr(one.number, file), one.octets)
            self.assertEqual(file.getvalue(), wire)
            top = io.BytesIO()
            client.top(one.number, top)
            self.assertTrue(wire.startswith(top.getvalue()))
            self.assertTrue(top.getvalue().endswith(b"\r\n"))
        client.quit()
        self.assertEqual(server.sessions[0].removed, [])

    def test_ahead(self) -> None:
        """Commands are sent ahead, and answers that are not wanted are passed over."""
        server = self.served()
        client = self.session(server)
        numbers = [one.number for one in client.listing()]
        first, third = io.BytesIO(), io.BytesIO()
        client.retr(1, first, ahead=numbers[1:])
        client.retr(3, third, ahead=numbers[3:])
        self.assertEqual(client.stat()[0], len(self.messages))
        again = io.BytesIO()
        client.retr(3, again)
        self.assertEqual(again.getvalue(), third.getvalue())
        self.assertNotEqual(first.getvalue(), third.getvalue())
        said = server.sessions[0].commands
        # Each once, but for the one that was asked for again.
        self.assertEqual(said.count("RETR 2"), 1)
        self.assertEqual(said.count("RETR 3"), 2)

    def test_not_ahead(self) -> None:
        """Where PIPELINING is not announced each answer is waited for."""
        server = self.served()
        server.faults.add("capa", lines=["UIDL", "TOP", "USER"])
        client = self.session(server)
        client.retr(1, io.BytesIO(), ahead=[2, 3])
        self.assertEqual([one for one in server.sessions[0].commands if one.startswith("RETR")], ["RETR 1"])

    def test_ways(self) -> None:
        """Each way to log in: PLAIN, LOGIN, USER, APOP, also with a name and a password in Unicode."""
        name, secret = "änn", "grüße " + "x" * 200
        for capabilities, command in (
            (["SASL PLAIN LOGIN", "USER"], "AUTH PLAIN"),
            (["SASL CRAM-MD5 LOGIN", "USER"], "AUTH LOGIN"),
            (["USER"], "PASS"),
        ):
            with running_server({name: [DOTS]}, {name: secret}) as server:
                server.faults.add("capa", lines=[*capabilities, "UIDL"])
                client = Client(at(server.port), time.monotonic)
                client.timestamp = b""
                log_in(client, name, secret)
                self.assertEqual(client.stat()[0], 1)
                client.quit()
                commands = " ".join(server.sessions[0].commands)
                self.assertIn(command, commands)
                self.assertNotIn("APOP", commands)

    def test_refused(self) -> None:
        """A wrong password is said, and not shown."""
        server = self.served()
        error = self.assertRaises(LoginRefused, session, at(server.port), "ann", "hush", time.monotonic)
        self.assertEqual(error.given_code, "AUTH")
        self.assertTrue(
            error.detail.startswith("127.0.0.1 refuses the login of ann, are name and password right?"),
            error.detail,
        )
        self.assertNotIn("hush", error.detail)

    def test_in_use(self) -> None:
        """So is a mailbox that is in use, and one that cannot be served."""
        server = self.served()
        for code, said in (
            ("IN-USE", "is busy with another session of ann"),
            ("LOGIN-DELAY", "wants a longer wait"),
            ("SYS/TEMP", "cannot serve ann now"),
        ):
            server.faults.add("login-refused", code=code, times=1)
            error = self.assertRaises(LoginRefused, self.session, server)
            self.assertEqual(error.given_code, code)
            self.assertIn(said, error.detail)

    def test_vanished(self) -> None:
        """A message that is refused leaves the session usable."""
        server = self.served()
        server.faults.add("vanished", message=1)
        client = self.session(server)
        error = self.assertRaises(MessageRefused, client.retr, 1, io.BytesIO(), ahead=[2])
        self.assertIn("127.0.0.1 refuses RETR 1", str(error))
        self.assertEqual(client.retr(2, io.BytesIO()), client.listing()[1].octets)

    def test_faults(self) -> None:
        """What servers do wrong ends in time, with a sentence of one line that names the server."""

        def listed(client: Client) -> object:
            return client.listing()

        def fetched(client: Client) -> object:
            return client.retr(1, io.BytesIO())

        for kind, words, do, said in (
            (
                "drop",
                {"command": "RETR", "octets": 40},
                fetched,
                "closes the connection in its answer to RETR 1",
            ),
            ("drop-before-dot", {"command": "RETR"}, fetched, "closes the connection"),
            ("no-dot", {"command": "RETR"}, fetched, "says nothing for 0.3 s"),
            ("no-final-crlf", {"command": "RETR"}, fetched, "says nothing for 0.3 s"),
            ("silence", {"command": "RETR"}, fetched, "says nothing for 0.3 s"),
            ("no-dot", {"command": "UIDL"}, listed, "in answer to UIDL"),
            ("drop", {"command": "LIST"}, listed, "closes the connection"),
            ("uidl-empty", {}, listed, "has a line that is none in the answer to UIDL: 1"),
            ("negative-size", {}, listed, "has a line that is none in the answer to LIST: 1 -"),
            ("missing-number", {}, listed, "has a line that is none"),
            ("missing-number", {}, Client.stat, "answers STAT with something else"),
            (
                "not-implemented",
                {"command": "UIDL"},
                listed,
                "without unique-ids nobody can tell what is new",
            ),
            ("status", {"command": "STAT", "text": "yes"}, Client.stat, "neither +OK nor -ERR"),
            (
                "long-reply",
                {"command": "STAT", "octets": 20_000},
                Client.stat,
                "a line of more than 8192 octets",
            ),
        ):
            with running_server({"ann": [DOTS, DOTS]}, {"ann": PASSWORD}) as server:
                server.faults.add(kind, **words)
                client = session(at(server.port), "ann", PASSWORD, time.monotonic)
                client.server = at(server.port, timeout=0.3)
                with client:
                    error = self.assertRaises(Trouble, do, client)
                self.assertIn(said, error.detail, kind)
                self.assertTrue(error.detail.startswith("127.0.0.1"), error.detail)
                self.assertNotIn("\n", error.detail)

    def test_faults_that_do_no_harm(self) -> None:
        """Late octets, odd packets and bare line feeds change no message."""
        for kind, words in (
            ("split-end", {"command": "RETR", "seconds": 0.01}),
            ("packets", {"command": "RETR", "octets": 3, "seconds": 0.0}),
            ("wrong-size", {}),
            ("huge-size", {}),
            ("uidl-long", {"octets": 300}),
            ("list-missing", {"message": 1}),
            ("uidl-missing", {"message": 1}),
        ):
            with running_server({"ann": [DOTS]}, {"ann": PASSWORD}) as server:
                server.faults.add(kind, **words)
                with session(at(server.port), "ann", PASSWORD, time.monotonic) as client:
                    client.listing()
                    file = io.BytesIO()
                    client.retr(1, file)
                    self.assertEqual(file.getvalue(), DOTS.replace(b"\n", b"\r\n"), kind)


class Nowhere(Server):
    """A server that nobody speaks to."""

    def connect(self) -> socket.socket:
        return socket.socketpair()[0]


class InPieces(Client):
    """A client to which octets come as they are given here.

    :param pieces: of what the server says behind the greeting.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        super().__init__(Nowhere("127.0.0.1", 1, timeout=20.0), time.monotonic)

    def _begin(self) -> None:
        pass

    def _put(self, data: bytes) -> None:
        pass

    def _receive(self, command: str) -> None:
        self._buffer += next(self._pieces)


class ScriptedTests(SynchronousTestCase):
    """With servers that nobody would write."""

    GREETING = b"+OK hello\r\n"
    NO_CAPA = b"-ERR what?\r\n"

    def client(self, *answers: bytes, **more: Any) -> tuple[Scripted, Callable[[], Client]]:
        """A server with these answers, behind greeting and CAPA, and what connects to it."""
        server = Scripted(self.GREETING, self.NO_CAPA, *answers)
        return server, lambda: Client(at(server.port, **more), time.monotonic)

    def test_bare_lf(self) -> None:
        """A server that ends all lines by LF is understood, and its messages get CRLF."""
        _, connect = self.client(b"+OK\nSubject: x\n\n..a\n.\n")
        with connect() as client:
            file = io.BytesIO()
            client.retr(1, file)
        self.assertEqual(file.getvalue(), b"Subject: x\r\n\r\n.a\r\n")

    def test_final_dot_in_parts(self) -> None:
        """The end is seen wherever the pieces of it fall, and nothing else is the end."""
        body = b"a\r\n..\r\na\n.\n\r\n" + b"b" * 65_536 + b"\r\n..b\r\n"
        buffer = b"+OK\r\n" + body + b".\r\n+OK next\r\n"
        for size in (1, 2, 3, 5, 65_535, 65_536, 65_537):
            client = InPieces(buffer[start : start + size] for start in range(0, len(buffer), size))
            file = io.BytesIO()
            client.retr(1, file)
            self.assertEqual(file.getvalue(), body.replace(b"\r\n..", b"\r\n."), size)
            self.assertEqual(client.ask("NOOP").text, "next")

    def test_endless(self) -> None:
        """What has no end is left: a listing, a line, a message, and one that comes too slowly."""
        self.patch(client_module, "LISTING_LINES", 10)
        self.patch(client_module, "MESSAGE", 1000)
        _, connect = self.client(b"+OK\r\n" + b"1 x\r\n" * 50)
        with connect() as client:
            error = self.assertRaises(Trouble, client.listing)
        self.assertIn("more than 10 lines", error.detail)
        _, connect = self.client(b"+OK\r\n" + b"x\r\n" * 1000)
        with connect() as client:
            error = self.assertRaises(Trouble, client.retr, 1, io.BytesIO())
        self.assertIn("more than 1000 octets", error.detail)
        passed = iter(range(1_000_000))
        slow = InPieces(itertools.chain([b"+OK\r\n"], itertools.repeat(b"x")))
        slow._clock = lambda: float(next(passed))
        error = self.assertRaises(Trouble, slow.retr, 1, io.BytesIO())
        self.assertIn("too slowly to ever get it", error.detail)
        slow = InPieces(itertools.repeat(b"x"))
        slow._clock = lambda: float(next(passed))
        error = self.assertRaises(Trouble, slow.stat)
        self.assertIn("no whole line within 20 s", error.detail)

    def test_numbers_twice(self) -> None:
        """A number that is listed twice is refused."""
        _, connect = self.client(b"+OK\r\n1 a\r\n1 b\r\n.\r\n")
        with connect() as client:
            error = self.assertRaises(Trouble, client.listing)
        self.assertIn("lists message 1 twice", error.detail)

    def test_not_as_listed(self) -> None:
        """UIDL and LIST that tell of other messages are both heard; more words in LIST are passed over."""
        _, connect = self.client(b"+OK\r\n1 a\r\n2 b\r\n.\r\n", b"+OK\r\n2 10 octets\r\n3 20\r\n.\r\n")
        with connect() as client:
            self.assertEqual(
                client.listing(), [Listed(1, b"a", None), Listed(2, b"b", 10), Listed(3, None, 20)]
            )

    def test_password_in_the_answer(self) -> None:
        """A server that repeats the password is not quoted."""
        plain = base64.b64encode(b"\0ann\0open sesame")
        for repeated in (b"open sesame", plain):
            server, connect = self.client(b"+OK\r\n", b"-ERR no user with " + repeated + b"\r\n")
            with connect() as client:
                error = self.assertRaises(LoginRefused, log_in, client, "ann", PASSWORD)
            self.assertIn("(an answer with the password in it)", error.detail)
            self.assertNotIn("sesame", error.detail + repr(error) + repr(client.server))
            self.assertEqual(server.ended()[1:], [b"USER ann\r\n", b"PASS open sesame\r\n"])

    def test_apop(self) -> None:
        """Without TLS APOP comes first; refused, the others are tried, for it is offered to all."""
        server = Scripted(
            b"+OK hi <1896.697170952@dbc.mtview.ca.us>\r\n", self.NO_CAPA, b"+OK\r\n", self.NO_CAPA
        )
        with Client(at(server.port), time.monotonic) as client:
            # RFC 1939 section 7.
            log_in(client, "mrose", "tanstaaf")
        self.assertIn(b"APOP mrose c4c9334bac560ecc979e58001b3e22fb\r\n", server.ended())
        server = Scripted(
            b"+OK hi <1@x>\r\n", self.NO_CAPA, b"-ERR no\r\n", b"+OK\r\n", b"+OK\r\n", self.NO_CAPA
        )
        with Client(at(server.port), time.monotonic) as client:
            log_in(client, "ann", PASSWORD)
        self.assertEqual([line[:4] for line in server.ended()[1:]], [b"APOP", b"USER", b"PASS", b"CAPA"])

    def test_line_ends_in_a_password(self) -> None:
        """Nothing is sent of a password that would be several lines."""
        server, connect = self.client(b"+OK\r\n")
        with connect() as client:
            self.assertRaises(LoginRefused, log_in, client, "ann", "x\r\nDELE 1")
        self.assertEqual(server.ended(), [b"CAPA\r\n"])

    def test_escapes(self) -> None:
        """What a server says steers no terminal."""
        server = Scripted(b"-ERR \x1b[2Jgo away\r\n")
        error = self.assertRaises(Trouble, Client, at(server.port), time.monotonic)
        self.assertNotIn("\x1b", error.detail)
        self.assertIn("turns the connection away", error.detail)

    def test_cleartext(self) -> None:
        """Elsewhere than on this machine a server without TLS is left, unless that is allowed."""
        self.patch(client_module, "is_loopback", lambda sock: False)
        server, connect = self.client()
        error = self.assertRaises(Trouble, connect)
        self.assertIn("offers no TLS (STLS)", error.detail)
        self.assertIn("--allow-cleartext", error.detail)
        self.assertEqual(server.ended(), [b"CAPA\r\n"])
        _, connect = self.client(cleartext=True)
        connect().close()

    def test_injected(self) -> None:
        """Clear text behind the answer to STLS ends it (CVE-2011-0411 and its kin)."""
        server = Scripted(self.GREETING, b"+OK\r\nSTLS\r\n.\r\n", b"+OK begin\r\n+OK more\r\n")
        error = self.assertRaises(Trouble, Client, at(server.port), time.monotonic)
        self.assertIn("somebody may be in between", error.detail)

    def test_nobody(self) -> None:
        """Who cannot be reached is said in one line."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        error = self.assertRaises(Trouble, Client, at(port), time.monotonic)
        self.assertEqual(error.detail, f"127.0.0.1: port {port}: Connection refused")


class TLSTests(SynchronousTestCase):
    """Certificates."""

    def setUp(self) -> None:
        context = running_server({"ann": [DOTS]}, {"ann": PASSWORD}, tls="both")
        self.server: RunningServer = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.trust = ssl.create_default_context(cafile=self.server.ca_file)

    def test_trusted(self) -> None:
        """With the authority's certificate both ways work, and the password goes within TLS."""
        for port, implicit in ((self.server.port, False), (self.server.tls_port, True)):
            where = Server("localhost", port, implicit, self.trust, timeout=20.0)
            with session(where, "ann", PASSWORD, time.monotonic) as client:
                self.assertTrue(client.encrypted)
                self.assertEqual(client.stat()[0], 1)

    def test_not_trusted(self) -> None:
        """What is wrong with a certificate, and what to do; nobody has logged in."""
        for kind, host, said in (
            (None, "localhost", "signed by an authority unknown here: name that one's by --cafile FILE"),
            ("tls-self-signed", "localhost", "self-signed: copy it from there, and name it by --cafile FILE"),
            ("tls-expired", "localhost", "has expired"),
            ("tls-wrong-name", "localhost", "for another name than localhost"),
        ):
            self.server.faults.clear()
            if kind is not None:
                self.server.faults.add(kind)
            context = ssl.create_default_context() if kind is None else self.trust
            for port, implicit in ((self.server.port, False), (self.server.tls_port, True)):
                where = Server(host, port, implicit, context, timeout=20.0)
                error = self.assertRaises(NotTrusted, session, where, "ann", PASSWORD, time.monotonic)
                self.assertIn(said, error.detail)
                self.assertTrue(error.detail.startswith("localhost: its certificate"), error.detail)
        self.assertNotIn("sesame", self.server.transcript)

    def test_hangs(self) -> None:
        """A handshake that does not end, and a port without TLS, are said."""
        self.server.faults.add("tls-hangs")
        where = Server("localhost", self.server.port, False, self.trust, timeout=0.3)
        error = self.assertRaises(Trouble, Client, where, time.monotonic)
        self.assertIn("the TLS handshake does not end within 0.3 s", error.detail)
        self.server.faults.clear()
        where = Server("localhost", self.server.port, True, self.trust, timeout=20.0)
        error = self.assertRaises(Trouble, Client, where, time.monotonic)
        self.assertIn(f"does port {self.server.port} begin with TLS?", error.detail)

    def test_refused(self) -> None:
        """STLS that is announced and refused is no reason to go on without."""
        self.server.faults.add("stls-refused")
        where = Server("localhost", self.server.port, False, self.trust, timeout=20.0)
        error = self.assertRaises(Trouble, Client, where, time.monotonic)
        self.assertIn("refuses STLS", error.detail)

    def test_self_made(self) -> None:
        """A certificate for another name, of an authority that is trusted."""
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        authority = Authority(folder)
        pair = authority.issue("mail.example.org").write(folder / "pair.pem")
        with running_server({"ann": []}, {"ann": PASSWORD}, certificate=str(pair)) as server:
            where = Server("127.0.0.1", server.port, False, ssl.create_default_context(cafile=authority.file))
            error = self.assertRaises(NotTrusted, Client, where, time.monotonic)
        self.assertIn("for another name than 127.0.0.1", error.detail)
