"""``pop3toy replay`` as people and CI call it: a recording played to a server, its words, its exit status."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import poplib
import socket
import ssl
from collections.abc import Callable
from typing import Any
from unittest import mock

from pop3toy.testing import RunningServer, running_server

from ..cli_world import CommandTests, Outcome

PASSWORD = "open sesame"
MAIL = ("Subject: one\n\n1\n", "Subject: two\n\n.2\n")
#: What a client does that leaves nothing behind.
READS = ("STAT", "LIST", "UIDL", "RETR 2", "TOP 1 0", "NOOP", "LIST 7", "QUIT")


def ann(*messages: str, **options: Any) -> contextlib.AbstractContextManager[RunningServer]:
    """A server of one user."""
    return running_server({"ann": messages or MAIL}, {"ann": PASSWORD}, **options)


class ReplayCase(CommandTests):
    """A recording, and servers that it is played to."""

    def setUp(self) -> None:
        super().setUp()
        self.password: str | None = PASSWORD

    def replay(self, recording: str, server: RunningServer | int, *options: str) -> Outcome:
        """Play it; whatever happens, no secret is shown."""
        path = self.root / "recording"
        path.write_text(recording)
        port = server if isinstance(server, int) else server.port
        known = {} if self.password is None else {"POP3TOY_PASSWORD": self.password}
        with mock.patch.dict(os.environ, known):
            done = self.run_command("replay", str(path), f"localhost:{port}", "--timeout=5", *options)
        for secret in (PASSWORD, base64.b64encode(f"\0ann\0{PASSWORD}".encode()).decode()):
            self.assertNotIn(secret, done.out + done.err)
        return done

    def record(self, server: RunningServer, *lines: str, login: bool = True) -> str:
        """What a session's transcript is."""
        with socket.create_connection((server.host, server.port), 10) as sock, sock.makefile("rb") as file:
            file.readline()
            first = ("USER ann", f"PASS {PASSWORD}") if login else ()
            for line in (*first, *lines):
                sock.sendall(line.encode() + b"\r\n")
                reply = file.readline()
                if reply.startswith(b"+OK") and line.split()[0] in ("RETR", "TOP", "CAPA", "LIST", "UIDL"):
                    self.assertIn(b".\r\n", iter(file.readline, b""))
        return server.wait_for_session().transcript


class SameTests(ReplayCase):
    """Where nothing differs, the status is 0."""

    def same(self, done: Outcome, count: int) -> None:
        self.assertEqual((done.status, done.err), (0, ""), done.out)
        self.assertIn(f"{count} replies, all as recorded\n", done.out)

    def test_user(self) -> None:
        """USER and PASS, the password from outside: the same server says the same again."""
        with ann() as server:
            recording = self.record(server, *READS)
            self.assertIn("C: PASS ****\n", recording)
            self.same(self.replay(recording, server), 11)
            again = server.wait_for_session()
            self.assertEqual(again.commands, ["USER ann", "PASS ****", *READS])
            self.assertEqual(again.ended, "quit")

    def test_own_password(self) -> None:
        """A script with its password needs no other, and the password is not shown."""
        self.password = None
        with ann() as server:
            recording = self.record(server, "STAT", "QUIT").replace("****", PASSWORD)
            self.same(self.replay(recording, server), 5)

    def test_no_login(self) -> None:
        """Where nobody logs in, no password is asked for."""
        self.password = None
        with ann() as server:
            self.same(self.replay(self.record(server, "CAPA", "QUIT", login=False), server), 3)

    def test_hostile(self) -> None:
        """What nobody can have recorded is refused in a line, or shown without harm and not at length."""
        with ann() as server:
            for recording in (
                '{"event": "LineReceived", "session": 1e999, "line": "x"}\n',
                "S: +OK\nC: APOP\nS: +OK\n",
            ):
                done = self.replay(recording, server)
                self.assertEqual((done.status, done.err.count("\n")), (2, 1), done.err)
            done = self.replay(f"S: +OK\nC: NOOP \x1b[2J{'x' * 999}\nS: -ERR \x1b[2J\n", server)
        self.assertNotIn("\x1b[2J", done.out + done.err)
        self.assertIn("C: NOOP ****\n", done.out)
        with ann() as server:
            done = self.replay(f"S: +OK\nC: RETR {'9' * 999}\nS: +OK\nS: \x1b[2J\nS: .\n", server)
        self.assertNotIn("\x1b[2J", done.out + done.err)
        self.assertIn("\\x1b[2J", done.out)
        self.assertLess(max(map(len, done.out.splitlines())), 300)

    def test_another_user(self) -> None:
        """--user takes the place of who is in the recording, its password too."""
        script = f"S: +OK\nC: USER bob\nS: +OK\nC: PASS {PASSWORD}\nS: +OK\nC: QUIT\nS: +OK\n"
        plain = base64.b64encode(b"\0bob\0bobs").decode()
        sasl = f"S: +OK\nC: AUTH PLAIN {plain}\nS: +OK\nC: QUIT\nS: +OK\n"
        with running_server({"ann": []}, {"ann": "ann's"}) as server:
            self.password = "ann's"
            for recording, count in ((script, 4), (sasl, 3)):
                self.same(self.replay(recording, server, "--user=ann"), count)
                self.assertEqual(server.wait_for_session().user, "ann")

    def test_sasl_and_apop(self) -> None:
        """What answers to a challenge is not said again; USER and PASS are, and that is told."""
        for kind in ("PLAIN", "PLAIN ", "LOGIN", "CRAM-MD5", "APOP"):
            with ann() as server:
                poplib_session(server, kind)
                recording = server.wait_for_session().transcript
                # Who logs in by SASL is masked as well.
                done = self.replay(recording, server, *([] if kind == "APOP" else ["--user=ann"]))
                self.assertEqual((done.status, done.err), (0, ""), (kind, recording, done.out))
                self.assertIn("-- USER and PASS were said in its place", done.out)
                again = server.wait_for_session()
                self.assertEqual((again.user, again.commands[2:]), ("ann", ["STAT", "QUIT"]), kind)

    def test_sasl_as_it_was(self) -> None:
        """AUTH PLAIN that is not masked is said again, in either form."""
        self.password = None
        secret = base64.b64encode(f"\0ann\0{PASSWORD}".encode()).decode()
        with ann() as server:
            for script in (f"C: AUTH PLAIN {secret}\n", f"C: AUTH PLAIN\nS: + \nC: {secret}\n"):
                recording = f"S: +OK\n{script}S: +OK\nC: STAT\nS: +OK 2 39\nC: QUIT\nS: +OK\n"
                done = self.replay(recording, server)
                self.assertEqual((done.status, done.err), (0, ""), done.out)
                self.assertEqual(server.wait_for_session().mechanism, "PLAIN")

    def test_login_that_failed(self) -> None:
        """A wrong password is not in the recording: nothing is said in its place, and the next one counts."""
        with ann() as server:
            with socket.create_connection((server.host, server.port), 10) as sock:
                sock.sendall(b"USER ann\r\nPASS wrong\r\nUSER ann\r\nPASS open sesame\r\nSTAT\r\nQUIT\r\n")
                while sock.recv(4096):
                    pass
            recording = server.wait_for_session().transcript
            done = self.replay(recording, server)
            self.assertEqual((done.status, done.err), (0, ""), done.out)
            self.assertIn("-- not said: this login failed", done.out)
            self.assertEqual(
                server.wait_for_session().commands,
                ["USER ann", "USER ann", "PASS ****", "STAT", "QUIT"],
            )

    def test_json_lines(self) -> None:
        """What --transcript-json writes."""
        path = self.root / "session.jsonl"
        with ann(transcript_json=str(path)) as server:
            self.record(server, *READS)
        with ann() as server:
            done = self.replay(path.read_text(), server, "--ignore=uids")
        self.same(done, 11)

    def test_tls(self) -> None:
        """STLS where it was said, and TLS from the start where --tls says so; certificates are verified."""
        with ann(tls="both") as server:
            with contextlib.closing(poplib.POP3("localhost", server.port, timeout=10)) as client:
                client.stls(ssl.create_default_context(cafile=server.ca_file))
                client.user("ann")
                client.pass_(PASSWORD)
                client.quit()
            recording = server.wait_for_session().transcript
            self.assertIn("C: STLS\n", recording)
            trust = f"--ca-file={server.ca_file}"
            self.same(self.replay(recording, server, trust), 6)
            self.assertTrue(server.wait_for_session().tls)
            self.same(self.replay(recording, server, "--insecure"), 6)
            server.wait_for_session()
            implicit = recording.replace("C: STLS\nS: +OK begin TLS negotiation\n", "")
            done = self.replay(implicit, server.tls_port, "--tls=implicit", trust, "--ignore=capabilities")
            self.same(done, 5)
            for port, tls in ((server.port, "none"), (server.tls_port, "implicit")):
                done = self.replay(recording, port, f"--tls={tls}")
                self.assertEqual(done.status, 2, done.out)
                self.assertNotIn("C: USER", done.out)
                self.assertRegex(done.err, r"\AError: the certificate is not to be trusted: .*\n\Z")

    def test_stls_refused(self) -> None:
        """What was said within TLS is not said in the clear."""
        script = "S: +OK\nC: STLS\nS: +OK\nC: USER ann\nS: +OK\nC: PASS ****\nS: +OK\nC: QUIT\nS: +OK\n"
        with ann() as server:
            done = self.replay(script, server)
            self.assertEqual((done.status, done.err), (1, ""))
            self.assertIn("the first behind STLS; 3 commands were not said\n", done.out)
            self.assertEqual(server.wait_for_session().commands, ["STLS"])

    def test_stls_taken(self) -> None:
        """Where it was refused and is not now, TLS begins all the same: the server waits for it."""
        script = "S: +OK\nC: STLS\nS: -ERR\nC: NOOP\nS: -ERR\nC: QUIT\nS: +OK\n"
        with ann(tls="stls") as server:
            done = self.replay(script, server, f"--ca-file={server.ca_file}")
            self.assertIn("1 of 4 replies differ, the first behind STLS\n", done.out)

    def test_dele(self) -> None:
        """What was removed in the recording is not, unless --destructive says so."""
        for options, left in (((), 2), (("--destructive",), 1)):
            with ann() as server:
                recording = self.record(server, "DELE 1", "QUIT")
                self.assertEqual(len(server.mailbox("ann").messages), 1)
                server.deliver("ann", MAIL[0])
                self.same(self.replay(recording, server, *options), 5)
                self.assertEqual(len(server.mailbox("ann").messages), left)
                said = server.wait_for_session().commands[2:]
                self.assertEqual(said, ["DELE 1", *([] if options else ["RSET"]), "QUIT"])

    def test_rset_refused(self) -> None:
        """Where RSET is refused, QUIT would remove: it is not said."""
        with ann() as server:
            recording = self.record(server, "DELE 1", "QUIT")
            server.faults.add("answer", command="RSET")
            done = self.replay(recording, server)
            self.assertIn("-- not said: RSET was refused", done.out)
            self.assertEqual(server.wait_for_session().ended, "dropped")
            self.assertEqual(len(server.mailbox("ann").messages), 1)


class DifferentTests(ReplayCase):
    """Where something differs, the status is 1, and all of it is shown."""

    def test_other_mail(self) -> None:
        """The first difference is named, all are counted, and what is ignored is not."""
        with ann() as server:
            recording = self.record(server, *READS)
        with ann(MAIL[0], MAIL[1] + "more\n") as server:
            done = self.replay(recording, server)
            self.assertEqual((done.status, done.err), (1, ""))
            self.assertIn("   C: STAT\n - S: +OK 2 39\n + S: +OK 2 45\n   C: LIST\n", done.out)
            self.assertIn("4 of 11 replies differ, the first behind STAT\n", done.out)
            quiet = self.replay(recording, server, "--quiet")
            self.assertNotIn("C: NOOP", quiet.out)
            self.assertIn("+ S: more\n", quiet.out)
            for ignored, rest in (
                (("uids",), "3 of 11 replies differ, the first behind STAT"),
                (("uids", "sizes"), "1 of 11 replies differ, the first behind RETR 2"),
                (("uids", "sizes", "messages"), "11 replies, all as recorded"),
            ):
                done = self.replay(recording, server, *(f"--ignore={one}" for one in ignored))
                self.assertIn(f"{rest}\n", done.out)

    def test_dashes(self) -> None:
        """Lines that look like a difference's own are shown, too."""
        with ann("Subject: x\n\n-- \n") as server:
            recording = self.record(server, "RETR 1", "QUIT")
        with ann("Subject: x\n\n++ \n") as server:
            done = self.replay(recording, server)
        self.assertIn(" - S: -- \n + S: ++ \n", done.out)

    def test_exact(self) -> None:
        """With --exact the timestamp and the texts count."""
        with ann() as server:
            recording = self.record(server, "STAT", "QUIT")
            self.assertEqual(self.replay(recording, server).status, 0)
            done = self.replay(recording, server, "--exact")
            self.assertIn("1 of 5 replies differ, the first behind the greeting\n", done.out)
            server.wait_for_session()
            server.faults.add("answer", command="STAT", text="+OK 2 39 or so")
            self.assertEqual(self.replay(recording, server).status, 0)
            self.assertIn("2 of 5 replies differ", self.replay(recording, server, "--exact").out)

    def test_session(self) -> None:
        """Of several sessions the one that is wanted."""
        with ann() as server:
            self.record(server, "STAT", "QUIT")
            self.record(server, "NOOP", "QUIT")
            both = "".join(
                f"[{number}] {line}\n"
                for number, one in enumerate(server.sessions, 1)
                for line in one.transcript.splitlines()
            )
            for number, said in ((1, "STAT"), (2, "NOOP")):
                done = self.replay(both, server, f"--session={number}")
                self.assertEqual(done.status, 0, done.out)
                self.assertIn(f"C: {said}\n", done.out)
            done = self.replay(both, server, "--session=3")
            self.assertEqual(done.status, 2)
            self.assertRegex(done.err, r"\AError: \S+: there is no session 3 in it; there are 1, 2\n\Z")

    def test_closes(self) -> None:
        """A server that closes too early."""
        with ann() as server:
            recording = self.record(server, "STAT", "LIST", "QUIT")
            server.faults.add("drop", command="STAT")
            done = self.replay(recording, server)
        self.assertEqual((done.status, done.err), (1, ""))
        self.assertIn("+ S: (closed)\n", done.out)
        self.assertIn("the first behind STAT; 2 commands were not said\n", done.out)

    def test_hangs(self) -> None:
        """A server that says nothing more, before the login and behind it; no secret is told in why."""
        with ann() as server:
            recording = self.record(server, "STAT", "QUIT")
            for command, shown in (("STAT", "STAT"), ("PASS", "PASS [*]{4}")):
                server.faults.clear()
                server.faults.add("silence", command=command)
                done = self.replay(recording, server, "--timeout=0.2")
                self.assertEqual((done.status, done.err), (1, ""))
                self.assertRegex(done.out, rf"\n!! no answer to {shown} within 0.2 s\n\Z")
            server.faults.clear()
            server.faults.add("delay", command="GREETING", seconds=60.0)
            done = self.replay(recording, server, "--timeout=0.2")
            self.assertEqual((done.status, done.out), (2, ""))
            self.assertEqual(done.err, "Error: no answer to (greeting) within 0.2 s\n")

    def test_closes_at_login(self) -> None:
        """Also where USER and PASS stand for another login, of which more than one line is recorded."""
        script = "S: +OK\nC: AUTH CRAM-MD5\nS: + ****\nC: ****\nS: +OK\nC: STAT\nS: +OK 0 0\n"
        with ann() as server:
            server.faults.add("drop", command="PASS")
            done = self.replay(script, server, "--user=ann")
        self.assertEqual((done.status, done.err), (1, ""))
        self.assertIn("+ S: (closed)\n1 of 2 replies differ", done.out)
        self.assertIn("the first behind AUTH CRAM-MD5; 1 command was not said\n", done.out)

    def test_echo(self) -> None:
        """A server that says a password again: it is not shown."""
        with ann() as server:
            recording = self.record(server, "STAT", "QUIT")
            server.faults.add("answer", command="PASS", text=f"-ERR what is {PASSWORD}?")
            done = self.replay(recording, server)
        self.assertIn("+ S: -ERR what is ****?\n", done.out)

    def test_exchange_refused(self) -> None:
        """Where AUTH is refused at once, its answers are not said: they would be commands."""
        self.password = None
        with ann() as server:
            server.faults.add("not-implemented", command="AUTH")
            done = self.replay("S: +OK\nC: AUTH PLAIN\nS: + \nC: QUIT\nS: +OK\nC: NOOP\nS: -ERR\n", server)
            self.assertEqual(done.status, 1, done.out)
            self.assertIn("C: ****\n   -- not said: it was not asked for\n", done.out)
            self.assertEqual(server.wait_for_session().commands, ["AUTH PLAIN", "NOOP"])


class NotPlayedTests(ReplayCase):
    """What cannot be played is told in one line, and the status is 2."""

    def refused(self, done: Outcome, about: str) -> None:
        self.assertEqual((done.status, done.out), (2, ""))
        self.assertRegex(done.err, r"\AError: [^\n]*\n\Z")
        self.assertIn(about, done.err)

    def test_recordings(self) -> None:
        for text, about in (
            ("", "there is no session in it"),
            ("hello\n\x1b[31m\n", "there is no session in it"),
            ('{"event": 5}\n', "line 1 is no event"),
            ("S: +OK\nC: AUTH PLAIN ****\nS: +OK\n", "the recording does not say who logs in; --user"),
        ):
            with ann() as server:
                path = self.root / "recording"
                path.write_text(text)
                with mock.patch.dict(os.environ, {"POP3TOY_PASSWORD": PASSWORD}):
                    done = self.run_command("replay", str(path), f"localhost:{server.port}", "--quiet")
                self.refused(done, about)
        self.refused(self.run_command("replay", str(self.root / "none"), "localhost:1"), "none: ")
        (self.root / "a.in").write_bytes(b"")
        self.refused(self.run_command("replay", str(self.root / "a.in"), "localhost:1"), "a.out: ")

    def test_nobody(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.refused(self.replay("S: +OK\nC: QUIT\nS: +OK\n", port), "does not answer")

    def test_usage(self) -> None:
        """Mistakes on the command line have the status of mistakes there."""
        path = self.root / "recording"
        path.write_text("S: +OK\nC: QUIT\nS: +OK\n")
        for arguments, about in (
            ((), "HOST:PORT is missing"),
            (("localhost:x",), "x is no port"),
            (("localhost:1", "--ignore=all"), "all"),
            (("--as-server", "--certificate=none"), "--certificate none"),
        ):
            done = self.run_command("replay", str(path), *arguments)
            self.assertNotEqual(done.status, 0)
            self.assertIn(about, done.err)
            self.assertNotIn("Traceback", done.err)


def poplib_session(server: RunningServer, kind: str) -> None:
    """Log in in one way, and look at what is there."""
    with contextlib.closing(poplib.POP3("localhost", server.port, timeout=10)) as client:
        plain = base64.b64encode(f"\0ann\0{PASSWORD}".encode()).decode()
        say: Callable[[str], bytes] = client._shortcmd  # type: ignore[attr-defined]
        if kind == "APOP":
            client.apop("ann", PASSWORD)
        elif kind == "PLAIN ":
            say(f"AUTH PLAIN {plain}")
        else:
            put, get = client._putcmd, client._getline  # type: ignore[attr-defined]
            put(f"AUTH {kind}")
            challenge = base64.b64decode(get()[0][2:])
            digest = hmac.new(PASSWORD.encode(), challenge, hashlib.md5).hexdigest()
            for answer in {
                "PLAIN": [f"\0ann\0{PASSWORD}"],
                "LOGIN": ["ann", PASSWORD],
                "CRAM-MD5": [f"ann {digest}"],
            }[kind]:
                put(base64.b64encode(answer.encode()).decode())
                reply = get()[0]
            assert reply.startswith(b"+OK"), reply
        client.stat()
        client.quit()
