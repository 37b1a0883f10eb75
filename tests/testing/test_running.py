"""A server in a thread: what a test sees of clients, its clock, its TLS, and that nothing is left of it."""

from __future__ import annotations

import base64
import gc
import hashlib
import hmac
import os
import poplib
import re
import smtplib
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.pollreactor import PollReactor
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from pop3toy import IGate, errors
from pop3toy.testing import RunningServer, running_server
from pop3toy.testing.reactor_thread import ReactorThread

from ..realserver import run_python, wait_until
from ..store_world import open_descriptors

#: Seconds that a client waits for an answer before it gives up.
PATIENCE = 20.0

MESSAGE = "Subject: one\n\n1\n"


@contextmanager
def client(
    server: RunningServer, user: str | None = "ann", password: str = "secret"
) -> Iterator[poplib.POP3]:
    """A client that has logged in, if there is a user; it hangs up without a word."""
    with closing(poplib.POP3(server.host, server.port, timeout=PATIENCE)) as pop3:
        if user is not None:
            pop3.user(user)
            pop3.pass_(password)
        yield pop3


def ann(*messages: Any, **options: Any) -> Any:
    """A server of one user."""
    return running_server({"ann": messages}, {"ann": "secret"}, **options)


class SessionTests(SynchronousTestCase):
    """What clients did."""

    def test_commands_and_replies(self) -> None:
        """Commands and replies are there in order, the password is not; and what was fetched and removed."""
        with ann(MESSAGE, MESSAGE) as server:
            uids = server.mailbox("ann").uids
            with client(server, None) as pop3:
                pop3.capa()
                pop3.user("ann")
                pop3.pass_("secret")
                pop3.stat()
                pop3.retr(2)
                pop3.dele(1)
                pop3.quit()
            session = server.sessions[0]
            self.assertEqual(
                session.commands, ["CAPA", "USER ann", "PASS ****", "STAT", "RETR 2", "DELE 1", "QUIT"]
            )
            self.assertEqual(session.replies[1], "+OK capability list follows")
            self.assertEqual(
                session.replies[4:],
                ["+OK 2 38", "+OK 19 octets", "+OK message 1 deleted", "+OK bye, 1 message removed"],
            )
            self.assertEqual(len(session.replies), 1 + len(session.commands))
            self.assertEqual((session.user, session.mechanism, session.tls), ("ann", "USER", None))
            self.assertEqual((session.retrieved, session.removed), (uids[1:], uids[:1]))
            self.assertEqual(server.mailbox("ann").uids, uids[1:])
            self.assertEqual(server.mailbox("ann").deleted, uids[:1])
            self.assertEqual(session.ended, "quit")
            self.assertIn("\nC: RETR 2\nS: +OK 19 octets\nS: Subject: one\n", session.transcript)

    def test_secrets(self) -> None:
        """Neither passwords nor what AUTH exchanges are written down, nor a password at the wrong place."""
        plain = base64.b64encode(b"\0ann\0secret").decode()
        with ann() as server:
            with client(server, None) as pop3:
                pop3._shortcmd(f"AUTH PLAIN {plain}")  # type: ignore[attr-defined]
                pop3.quit()
            with client(server, None) as pop3:
                self.assertRaises(poplib.error_proto, pop3._shortcmd, "secret")  # type: ignore[attr-defined]
                pop3._putcmd("AUTH PLAIN")  # type: ignore[attr-defined]
                pop3._getline()  # type: ignore[attr-defined]
                pop3._shortcmd(plain)  # type: ignore[attr-defined]
                pop3.quit()
            first, second = server.sessions
            self.assertEqual(first.commands, ["AUTH PLAIN ****", "QUIT"])
            self.assertEqual(second.commands[1:], ["AUTH PLAIN", "****", "QUIT"])
            self.assertEqual(second.mechanism, "PLAIN")
            self.assertNotIn("secret", server.transcript)
            self.assertNotIn(plain, server.transcript)

    def test_at_once(self) -> None:
        """What a client has been answered is written down as soon as it knows the answer."""
        with ann() as server, client(server) as pop3:
            for count in range(200):
                pop3.noop()
                self.assertEqual(len(server.sessions[0].replies), 4 + count)

    def test_wait(self) -> None:
        """Sessions are given in the order in which they end, each once."""
        with running_server({"ann": [], "bob": []}) as server:
            with client(server, "ann", "pass"), client(server, "bob", "pass") as pop3:
                pop3.quit()
                self.assertEqual(server.wait_for_session(PATIENCE).user, "bob")
            ended = server.wait_for_session(PATIENCE)
            self.assertEqual((ended.user, ended.ended), ("ann", "dropped"))
            self.assertRaises(AssertionError, server.wait_for_session, 0.01)

    def test_waits(self) -> None:
        """A session that is still to come is waited for."""
        with ann() as server:
            found: list[Any] = []
            waiting = threading.Thread(target=lambda: found.append(server.wait_for_session(PATIENCE)))
            waiting.start()
            with client(server) as pop3:
                pop3.quit()
            waiting.join(PATIENCE)
            self.assertEqual([one.user for one in found], ["ann"])

    def test_waits_in_vain(self) -> None:
        """What went on until then is told where a session does not end."""
        with ann() as server:
            why = self.assertRaises(AssertionError, server.wait_for_session, 0.01)
            self.assertIn("nobody has connected", str(why))
            with client(server):
                why = self.assertRaises(AssertionError, server.wait_for_session, 0.01)
                self.assertIn("0.01 seconds", str(why))
                self.assertIn("C: USER ann\nS: +OK send PASS\nC: PASS ****\n", str(why))

    def test_failing_block(self) -> None:
        """What fails within the block tells of the conversation."""
        with self.assertRaises(ZeroDivisionError) as caught, ann() as server:
            with client(server):
                pass
            1 / 0  # noqa: B018
        [note] = caught.exception.__notes__
        self.assertTrue(note.startswith(f"POP3 at 127.0.0.1:{server.port}\nsession 1:\n-- connected"), note)
        self.assertIn("C: PASS ****", note)

    def test_afterwards(self) -> None:
        """All of it can be asked for when the server has stopped, and stopping twice does no harm."""
        with ann(MESSAGE) as server, client(server) as pop3:
            pop3.dele(1)
            server.stop()
        server.stop()
        self.assertEqual([one.ended for one in server.sessions], ["shutdown"])
        self.assertEqual(server.mailbox("ann").messages, [MESSAGE.encode()])
        server.clock.advance(1)
        self.assertRaises(OSError, socket.create_connection, (server.host, server.port), PATIENCE)


class MailTests(SynchronousTestCase):
    """What is in the mailboxes."""

    def fetched(self, server: RunningServer, user: str = "ann") -> list[bytes]:
        """What a client gets."""
        with client(server, user) as pop3:
            return [b"\n".join(pop3.retr(number + 1)[1]) for number in range(pop3.stat()[0])]

    def test_forms(self) -> None:
        """A message may be octets, text, an EmailMessage or the path of a file."""
        message = EmailMessage()
        message["Subject"] = "Zo\u00eb"
        message.set_content("dear\n.\n")
        path = Path(self.mktemp())
        path.write_bytes(b"Subject: file\n\nf\n")
        with ann(b"Subject: octets\r\n\r\no\r\n", "Subject: text\n\n\u00eb\n", message, path) as server:
            octets, text, email, file = self.fetched(server)
        self.assertEqual(octets, b"Subject: octets\n\no")
        self.assertEqual(text, "Subject: text\n\n\u00eb".encode())
        self.assertTrue(email.startswith(b"Subject: =?utf-8?") and email.endswith(b"\n\ndear\n."), email)
        self.assertEqual(file, b"Subject: file\n\nf")

    def test_no_messages(self) -> None:
        """What is no message, or no list of them, is told at once."""
        path = Path(self.mktemp())
        path.write_bytes(b"x")
        for wrong in ([17], [str(path)], "Subject: x\n\nx\n", path):
            mailboxes: Any = {"ann": wrong}
            why = self.assertRaises(TypeError, RunningServer, mailboxes)
            self.assertRegex(str(why), "message|path")

    def test_accounts(self) -> None:
        """Nothing said is the toy; a mailbox without a password has ``pass``, a password has a mailbox."""
        with running_server() as server:
            self.assertEqual(dict(server.passwords), {"user": "pass"})
            self.assertIn(b"Subject: Hello World!", server.mailbox("user").messages[0])
        with running_server({"ann": [MESSAGE]}, {"bob": "b"}) as server:
            self.assertEqual(dict(server.passwords), {"ann": "pass", "bob": "b"})
            self.assertEqual(self.fetched_by(server), [1, 0])
            self.assertIn("ann, bob", str(self.assertRaises(KeyError, server.mailbox, "carl")))
            self.assertRaises(KeyError, server.deliver, "carl", MESSAGE)

    def fetched_by(self, server: RunningServer) -> list[int]:
        """How many messages each user has."""
        counts = []
        for user, password in server.passwords.items():
            with client(server, user, password) as pop3:
                counts.append(pop3.stat()[0])
        return counts

    def test_while_a_session_runs(self) -> None:
        """Mail that comes is seen by the next session, mail that vanishes is missed by this one."""
        with ann(MESSAGE) as server:
            [uid] = server.mailbox("ann").uids
            with client(server) as pop3:
                self.assertEqual(server.deliver("ann", "Subject: two\n\n2\n", uid="two"), "two")
                self.assertEqual(pop3.stat()[0], 1)
                server.mailbox("ann").vanish(uid)
                self.assertRaises(poplib.error_proto, pop3.retr, 1)
                pop3.quit()
            self.assertEqual(self.fetched(server), [b"Subject: two\n\n2"])
            self.assertEqual((len(server.mailbox("ann")), server.mailbox("ann").deleted), (1, []))
            self.assertRaises(KeyError, server.mailbox("ann").vanish, uid)
            self.assertRaises(ValueError, server.deliver, "ann", MESSAGE, "two")
            self.assertRaises(ValueError, server.deliver, "ann", MESSAGE, "t w o")

    def test_in_use(self) -> None:
        """Of two sessions the second is refused at once, and so is a first one if the test has the lock."""
        with ann() as server:
            with client(server):
                self.refused(server)
                self.assertRaises(errors.InUse, server.mailbox("ann").locked().__enter__)
            server.wait_for_session(PATIENCE)
            with server.mailbox("ann").locked():
                self.refused(server)
            self.fetched(server)

    def refused(self, server: RunningServer) -> None:
        """Somebody hears that the mailbox is locked."""
        with client(server, None) as pop3:
            pop3.user("ann")
            self.assertIn("[IN-USE]", str(self.assertRaises(poplib.error_proto, pop3.pass_, "secret")))
            pop3.quit()
        server.wait_for_session(PATIENCE)

    def test_large(self) -> None:
        """Twenty megabytes arrive whole, and are not all kept in the transcript."""
        message = b"Subject: large\r\n\r\n" + b"." + b"x" * 70 + b"\r\n" + b"y" * 998 + b"\r\n"
        message += (b"z" * 76 + b"\r\n") * (20_000_000 // 78)
        with ann(message) as server:
            with client(server) as pop3:
                _, lines, octets = pop3.retr(1)
                self.assertEqual(octets, len(message))
                self.assertEqual(hash(b"\r\n".join([*lines, b""])), hash(message))
                pop3.quit()
            self.assertEqual(server.sessions[0].replies[3], f"+OK {len(message)} octets")
            self.assertLess(len(server.transcript), 20_000)

    def test_uids_are_new(self) -> None:
        """Two servers never give the same unique-ids, so that a client's list of them tells them apart."""
        with ann(MESSAGE) as first, ann(MESSAGE) as second:
            self.assertNotEqual(first.mailbox("ann").uids, second.mailbox("ann").uids)


class LoginTests(SynchronousTestCase):
    """Ways in."""

    def test_apop(self) -> None:
        """APOP works, and its digest is not written down."""
        with ann() as server, client(server, None) as pop3:
            pop3.apop("ann", "secret")
            self.assertEqual(server.sessions[0].mechanism, "APOP")
            self.assertEqual(server.sessions[0].commands, ["APOP ann ****"])

    def test_cram(self) -> None:
        """A mechanism with a challenge works."""
        with ann() as server, client(server, None) as pop3:
            pop3._putcmd("AUTH CRAM-MD5")  # type: ignore[attr-defined]
            line, _ = pop3._getline()  # type: ignore[attr-defined]
            digest = hmac.new(b"secret", base64.b64decode(line[2:]), hashlib.md5).hexdigest()
            pop3._shortcmd(base64.b64encode(f"ann {digest}".encode()).decode())  # type: ignore[attr-defined]
            self.assertEqual(server.sessions[0].mechanism, "CRAM-MD5")

    def test_scram_is_offered(self) -> None:
        """So is SCRAM, best first; ``mechanisms`` says otherwise."""
        with ann() as server, client(server, None) as pop3:
            self.assertEqual(pop3.capa()["SASL"][0], "SCRAM-SHA-256")
        with ann(mechanisms=("USER", "PLAIN")) as server, client(server, None) as pop3:
            self.assertEqual(pop3.capa()["SASL"], ["PLAIN"])

    def test_wrong_passwords(self) -> None:
        """Nobody waits for having mistyped a password before."""
        with ann() as server:
            began = server.clock.seconds()
            for _ in range(9):
                with client(server, None) as pop3:
                    pop3.user("ann")
                    self.assertRaises(poplib.error_proto, pop3.pass_, "wrong")
            self.assertLess(server.clock.seconds() - began, 10)


class ClockTests(SynchronousTestCase):
    """Time that goes on because the test says so."""

    def test_idle(self) -> None:
        """Ten minutes of silence end a session, and not less; nothing is removed."""
        with ann(MESSAGE) as server, client(server) as pop3:
            pop3.dele(1)
            server.clock.advance(595)
            self.assertIsNone(server.sessions[0].ended)
            pop3.noop()
            server.clock.advance(595)
            self.assertIsNone(server.sessions[0].ended)
            server.clock.advance(6)
            self.assertEqual(server.sessions[0].ended, "timeout")
            self.assertEqual(len(server.mailbox("ann")), 1)
            self.assertRaises((poplib.error_proto, OSError), pop3.noop)

    def test_no_time(self) -> None:
        """Time neither stands still for ever nor goes back."""
        with ann() as server:
            for seconds in (float("nan"), float("inf"), -1):
                self.assertRaises(ValueError, server.clock.advance, seconds)
            server.clock.advance(0)

    def test_login_delay(self) -> None:
        """LOGIN-DELAY is over when so much time has gone by."""
        with ann(login_delay=60) as server:
            with client(server) as pop3:
                self.assertEqual(pop3.capa()["LOGIN-DELAY"], ["60"])
                pop3.quit()
            server.wait_for_session(PATIENCE)
            server.clock.advance(30)
            with self.assertRaises(poplib.error_proto) as caught, client(server):
                pass
            self.assertIn("[LOGIN-DELAY]", str(caught.exception))
            server.clock.advance(31)
            with client(server):
                pass

    def test_lock_wait(self) -> None:
        """A login that waits for a locked mailbox gives up, or gets it."""
        with ann(lock_wait=30) as server, client(server, None) as pop3:
            pop3.user("ann")
            with server.mailbox("ann").locked():
                pop3._putcmd("PASS secret")  # type: ignore[attr-defined]
                while len(server.sessions[0].commands) < 2:
                    server.clock.advance(0)
                server.clock.advance(25)
                self.assertEqual(len(server.sessions[0].replies), 2)
            server.clock.advance(1)
            self.assertIn(b"+OK maildrop has", pop3._getline()[0])  # type: ignore[attr-defined]
            with client(server, None) as other:
                other.user("ann")
                other._putcmd("PASS secret")  # type: ignore[attr-defined]
                while len(server.sessions[1].commands) < 2:
                    server.clock.advance(0)
                server.clock.advance(31)
                self.assertIn("[IN-USE]", server.sessions[1].replies[-1])


class TLSTests(SynchronousTestCase):
    """Certificates that a client can verify."""

    def test_stls(self) -> None:
        """STLS is offered, and its certificate is one of an authority in a file."""
        with ann(tls="stls") as server, client(server, None) as pop3:
            pop3.stls(ssl.create_default_context(cafile=server.ca_file))
            pop3.user("ann")
            pop3.pass_("secret")
            pop3.quit()
            session = server.wait_for_session(PATIENCE)
            self.assertEqual((session.tls, session.user), ("TLSv1.3", "ann"))
            self.assertIn(
                "tls='implicit'", str(self.assertRaises(AttributeError, getattr, server, "tls_port"))
            )

    def test_implicit(self) -> None:
        """There is one port alone, with TLS from the first octet on."""
        with ann(tls="implicit") as server:
            self.assertEqual(server.port, server.tls_port)
            context = ssl.create_default_context(cafile=server.ca_file)
            for host in ("localhost", "127.0.0.1"):
                with closing(poplib.POP3_SSL(host, server.port, context=context, timeout=PATIENCE)) as pop3:
                    self.assertNotIn("STLS", pop3.capa())

    def test_both(self) -> None:
        """Two ports, one for each."""
        with ann(tls="both") as server:
            context = ssl.create_default_context(cafile=server.ca_file)
            poplib.POP3_SSL(server.host, server.tls_port, context=context, timeout=PATIENCE).close()
            with client(server, None) as pop3:
                self.assertIn("STLS", pop3.capa())

    def test_strict(self) -> None:
        """The certificates are good enough for who looks at them as Python 3.13 does."""
        with ann(tls="implicit") as server:
            context = ssl.create_default_context(cafile=server.ca_file)
            context.verify_flags |= ssl.VERIFY_X509_STRICT
            poplib.POP3_SSL("localhost", server.port, context=context, timeout=PATIENCE).close()

    def test_untrusted(self) -> None:
        """Nobody trusts it who has not been told to, nor under another name; each server has its own."""
        with ann(tls="implicit") as server, ann(tls="implicit") as other:
            strange = ssl.create_default_context(cafile=other.ca_file)
            for context in (ssl.create_default_context(), strange):
                self.assertRaises(ssl.SSLError, poplib.POP3_SSL, "localhost", server.port, context=context)
            good = ssl.create_default_context(cafile=server.ca_file)
            with closing(socket.create_connection((server.host, server.port))) as plain:
                self.assertRaises(ssl.SSLError, good.wrap_socket, plain, server_hostname="mail.example.org")

    def test_without(self) -> None:
        """Without TLS there is no file and no port; what is no way of TLS is told."""
        with ann() as server:
            for name in ("ca_file", "tls_port", "smtp_port"):
                self.assertIn(
                    "start the server with", str(self.assertRaises(AttributeError, getattr, server, name))
                )
            self.assertEqual((server.smtp_messages, server.smtp_sessions), ([], []))
        self.assertRaises(TypeError, RunningServer, tls="starttls")

    def test_file_goes(self) -> None:
        """The files of certificates go with the server."""
        with ann(tls="stls") as server:
            folder = Path(server.ca_file).parent
            self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        self.assertFalse(folder.exists())


class FilesTests(SynchronousTestCase):
    """Files that a server writes."""

    def test_transcripts(self) -> None:
        """Both transcripts are whole, and closed, at the end of the block."""
        paths = [Path(self.mktemp()).absolute() for _ in range(2)]
        with ann(transcript=str(paths[0]), transcript_json=str(paths[1])) as server, client(server):
            pass
        for path, last in zip(paths, ("-- closed", '"Ended"'), strict=True):
            self.assertIn(last, path.read_text().splitlines()[-1])
        self.assertFalse({str(path) for path in paths} & set(open_descriptors().values()))


class TrapTests(SynchronousTestCase):
    """Mail that comes in."""

    def test_everybody(self) -> None:
        """Mail for anybody is taken and kept; that for users is in their mailboxes, whatever the domain."""
        with running_server({"ann": [], "bob": []}, smtp=True) as server:
            with smtplib.SMTP(server.host, server.smtp_port, timeout=PATIENCE) as smtp:
                to = ["Ann@example.org", "bob+lists@localhost", "carl@example.net"]
                smtp.sendmail("me@example.org", to, "Subject: hi\n\nhi\n.\n")
                smtp.sendmail("me@example.org", ["dora@example.com"], "Subject: two\n\n2\n")
            first, second = server.smtp_messages
            self.assertEqual((first.sender, first.recipients), ("me@example.org", tuple(to)))
            self.assertEqual(first.email["Subject"], "hi")
            self.assertTrue(first.content.endswith(b"\r\n\r\nhi\r\n.\r\n"))
            self.assertEqual(second.recipients, ("dora@example.com",))
            for user in ("ann", "bob"):
                self.assertEqual(server.mailbox(user).messages, [first.content])
            [session] = server.smtp_sessions
            self.assertIn("RCPT TO:<carl@example.net>", session.commands)
            self.assertEqual(server.sessions, [])
            self.assertIn("C: RCPT TO:<carl@example.net>", server.transcript)

    def test_once(self) -> None:
        """A user who is named twice gets a message once; an address without a domain is somebody's, too."""
        with running_server({"ann": []}, smtp=True) as server:
            with smtplib.SMTP(server.host, server.smtp_port, timeout=PATIENCE) as smtp:
                to = ["ann@example.org", "nobody", "ann+x@example.net", "ann"]
                for subject in ("one", "two"):
                    smtp.sendmail("me@example.org", to, f"Subject: {subject}\n\nx\n")
            self.assertEqual([one.email["Subject"] for one in server.smtp_messages], ["one", "two"])
            self.assertEqual({one.recipients for one in server.smtp_messages}, {tuple(to)})
            contents = [one.content for one in server.smtp_messages]
            self.assertEqual(server.mailbox("ann").messages, contents)

    def test_bounces_and_tls(self) -> None:
        """An empty sender is taken, and STARTTLS is there where TLS is."""
        with running_server({"ann": []}, smtp=True, tls="stls") as server:
            with smtplib.SMTP("localhost", server.smtp_port, timeout=PATIENCE) as smtp:
                smtp.starttls(context=ssl.create_default_context(cafile=server.ca_file))
                smtp.sendmail("", ["ann@example.org"], "Subject: no\n\nno\n")
            self.assertEqual([one.sender for one in server.smtp_messages], [""])
            self.assertEqual(server.smtp_sessions[0].tls, "TLSv1.3")


@implementer(IGate)
class SilentGate:
    """Loses the answer to NOOP."""

    def command(self, record: object, line: bytes) -> bytes:
        return line

    def reply(self, record: object, line: bytes, reply: Any) -> Any:
        return None if line == b"NOOP" else reply


class OptionTests(SynchronousTestCase):
    """Whatever a server may be told."""

    def test_not_started(self) -> None:
        """Whoever shows a server that could not start can."""

        class Shown(RunningServer):
            def __init__(self, **options: Any) -> None:
                try:
                    super().__init__(**options)
                finally:
                    self.shown = repr(self)

        for options in ({"tls": "no"}, {"login_delay": -1}, {"login_dely": 1}):
            why = self.assertRaises((TypeError, errors.CannotStart), Shown, **options)
            self.assertNotIn("has no attribute", str(why))
        self.assertEqual(repr(RunningServer.__new__(RunningServer)), "<RunningServer, not started>")

    def test_unknown(self) -> None:
        """An option that does not exist is told, with what may have been meant; so is one for others."""
        why = self.assertRaises(TypeError, RunningServer, login_dely=1)
        self.assertIn("'login_dely' of a server under test; is it 'login_delay'?", str(why))
        for name in ("workers", "store", "users", "listen", "smtp_port"):
            self.assertRaises(TypeError, RunningServer, **{name: 1})

    def test_bad(self) -> None:
        """A value that cannot be is told as the command tells it, and nothing is left running."""
        own_temporary_folder(self)
        before = left()
        self.assertRaises(errors.CannotStart, RunningServer, login_delay=-1, tls="stls")
        with closing(socket.create_server(("127.0.0.1", 0))) as other:
            port = other.getsockname()[1]
            why = self.assertRaises(errors.CannotStart, RunningServer, port=port, tls="stls")
            self.assertIn("address already in use", str(why))
        assert_no_more(self, before)

    def test_gate(self) -> None:
        """A gate may act on what is said."""
        with ann(gate=SilentGate()) as server, client(server) as pop3:
            pop3._putcmd("NOOP")  # type: ignore[attr-defined]
            self.assertEqual(pop3.stat(), (0, 0))
            self.assertEqual(server.sessions[0].replies[3:], ["+OK 0 0"])


class FaultTests(SynchronousTestCase):
    """``server.faults``, while the server runs."""

    def test_told(self) -> None:
        """A fault happens when it is put in, also in a session that is there; then all is right again."""
        with ann(MESSAGE) as server, client(server) as pop3:
            fault = server.faults.add("wrong-size", add=5)
            self.assertEqual(pop3.stat(), (1, 24))
            server.faults.remove(fault)
            self.assertEqual(pop3.stat(), (1, 19))
            server.faults.add("answer", command="NOOP", user="ann", times=1)
            server.faults.add("vanished", message=1)
            for what in (pop3.noop, lambda: pop3.retr(1)):
                with self.assertRaises(poplib.error_proto):
                    what()
            self.assertEqual(pop3.noop(), b"+OK")
            server.faults.clear()
            self.assertEqual(pop3.retr(1)[2], 19)
            pop3.quit()
            self.assertEqual((fault.happened, len(server.faults)), (1, 0))
            told = server.wait_for_session().transcript
            self.assertEqual(
                re.findall(r"(?m)^C: (\S+).*\n-- fault ([\w-]+)", told),
                [("STAT", "wrong-size"), ("NOOP", "answer"), ("RETR", "vanished")],
            )

    def test_time(self) -> None:
        """What is late is so by the server's clock; nobody has to wait for it."""
        with ann() as server, client(server) as pop3:
            server.faults.add("delay", command="NOOP", seconds=300.0)
            pop3._putcmd("NOOP")  # type: ignore[attr-defined]
            wait_until(lambda: "fault delay" in server.transcript, "the fault happens")
            server.clock.advance(299)
            self.assertEqual(server.sessions[0].replies[3:], [])
            server.clock.advance(1)
            self.assertEqual(pop3._getresp(), b"+OK")  # type: ignore[attr-defined]

    def test_login(self) -> None:
        """[IN-USE] twice, then the user is in."""
        with ann() as server:
            fault = server.faults.add("login-refused", times=2)
            for _ in range(2):
                with self.assertRaisesRegex(poplib.error_proto, "IN-USE"), client(server):
                    pass
            with client(server) as pop3:
                pop3.quit()
            self.assertEqual(fault.happened, 2)

    def test_seed(self) -> None:
        """What is random is the same again."""
        seen = []
        for seed in (7, 7, 8):
            with ann() as server, client(server) as pop3:
                server.faults.random.seed(seed)
                server.faults.add("wrong-size", command="STAT", add=5, probability=0.5)
                seen.append([pop3.stat()[1] for _ in range(20)])
        self.assertEqual(seen[0], seen[1])
        self.assertNotEqual(seen[0], seen[2])

    def test_tls(self) -> None:
        """A certificate that is only too old: whoever trusts the server's authority sees that, and once."""
        with ann(tls="both") as server:
            trust = ssl.create_default_context(cafile=server.ca_file)
            server.faults.add("tls-expired", nth=1)
            with self.assertRaises(ssl.SSLCertVerificationError) as caught:
                poplib.POP3_SSL("localhost", server.tls_port, context=trust, timeout=PATIENCE)
            self.assertIn("expired", caught.exception.verify_message)
            poplib.POP3_SSL("localhost", server.tls_port, context=trust, timeout=PATIENCE).quit()

    def test_tls_where_warnings_are_errors(self) -> None:
        """No client hangs because something is warned of while it connects."""
        said = run_python(
            "import poplib, ssl, warnings\n"
            "from pop3toy.testing import running_server\n"
            "warnings.simplefilter('error', DeprecationWarning)\n"
            "with running_server(tls='both') as server:\n"
            "    for fault in 'expired', 'wrong-name', 'self-signed', 'no-close-notify':\n"
            "        server.faults.clear()\n"
            "        server.faults.add(f'tls-{fault}')\n"
            "        context = ssl.create_default_context(cafile=server.ca_file)\n"
            "        try:\n"
            "            poplib.POP3_SSL('localhost', server.tls_port, context=context, timeout=10).quit()\n"
            "        except ssl.SSLCertVerificationError:\n"
            "            print(fault)\n"
            "        except ssl.SSLEOFError:\n"
            "            print('end')\n",
            folder=Path(self.mktemp()),
        )
        self.assertEqual(said.split()[:3], ["expired", "wrong-name", "self-signed"])

    def test_mistakes(self) -> None:
        """What cannot be is said at once; with a gate of one's own there are no faults."""
        with ann() as server:
            self.assertRaises(ValueError, server.faults.add, "dorp")
            self.assertRaises(ValueError, server.faults.add, "drop", protocol="SMTP")
            self.assertEqual(len(server.faults), 0)
        with ann(gate=SilentGate()) as server:
            self.assertRaises(AttributeError, lambda: server.faults)


@implementer(IGate)
class HoldingGate:
    """Never lets a NOOP go on."""

    def command(self, record: object, line: bytes) -> Any:
        return Deferred() if line == b"NOOP" else line

    def reply(self, record: object, line: bytes, reply: Any) -> Any:
        return reply


def left() -> tuple[set[threading.Thread], int, list[str]]:
    """Which threads there are, how many open files, and which temporary files."""
    # What an earlier test has left to the garbage collector.
    gc.collect()
    return {*threading.enumerate()}, len(os.listdir("/dev/fd")), os.listdir(tempfile.gettempdir())


def assert_no_more(case: SynchronousTestCase, before: tuple[set[threading.Thread], int, list[str]]) -> None:
    """Nothing is left that was not there; what an earlier test has started may have ended meanwhile."""
    threads, files, temporary = left()
    case.assertEqual(threads - before[0], set())
    case.assertLessEqual(files, before[1])
    case.assertEqual(temporary, before[2])


def own_temporary_folder(case: SynchronousTestCase) -> None:
    """Others use the system's."""
    folder = Path(case.mktemp()).absolute()
    folder.mkdir()
    case.patch(tempfile, "tempdir", str(folder))


class LeakTests(SynchronousTestCase):
    """Starting and stopping."""

    def test_many(self) -> None:
        """Two hundred servers, with and without TLS, used and left in the middle, leave nothing behind."""
        own_temporary_folder(self)
        kinds: list[dict[str, Any]] = [{}, {"tls": "both"}, {"smtp": True}, {"tls": "stls", "smtp": True}]
        for warm in (True, False):
            before = left()
            for number in range(len(kinds) if warm else 200):
                with ann(MESSAGE, **kinds[number % len(kinds)]) as server, client(server) as pop3:
                    pop3.stat()
            if not warm:
                assert_no_more(self, before)

    def test_fast(self) -> None:
        """A start takes less than 0.2 seconds, TLS included, when all is imported."""
        times = []
        for _ in range(10):
            began = time.perf_counter()
            with running_server(tls="both"):
                times.append(time.perf_counter() - began)
        self.assertLess(min(times), 0.2)

    def test_unfinished(self) -> None:
        """A client that does not read what it has asked for holds up nobody who stops the server."""
        with ann(b"Subject: x\n\n" + b"x" * 30_000_000) as server, client(server) as pop3:
            pop3._putcmd("RETR 1")  # type: ignore[attr-defined]
            while len(server.sessions[0].replies) < 4:
                server.clock.advance(0)
            began = time.perf_counter()
            server.stop()
            self.assertLess(time.perf_counter() - began, 5)
        self.assertEqual(server.sessions[0].ended, "shutdown")
        self.assertEqual(server.sessions[0].retrieved, [])

    def test_held(self) -> None:
        """Nor does a command that a gate has not let go."""
        with ann(gate=HoldingGate()) as server, client(server) as pop3:
            pop3._putcmd("NOOP")  # type: ignore[attr-defined]
            while len(server.sessions[0].commands) < 3:
                server.clock.advance(0)
            server.stop()
        self.assertEqual(server.sessions[0].ended, "shutdown")

    def test_many_at_once(self) -> None:
        """Any number of them run at once, and have nothing in common."""
        with ExitStack() as running:
            servers = [running.enter_context(ann(*[MESSAGE] * number)) for number in range(20)]
            self.assertEqual(len({server.port for server in servers}), 20)
            servers[3].clock.advance(10_000)
            for number, server in enumerate(servers):
                with client(server) as pop3:
                    self.assertEqual(pop3.stat()[0], number)

    def test_installs_no_reactor(self) -> None:
        """The process gets no reactor by it, with TLS neither: who wants one can still choose."""
        said = run_python(
            "import poplib, smtplib, ssl, sys\n"
            "from pop3toy.testing import running_server\n"
            "with running_server(tls='both', smtp=True) as server:\n"
            "    context = ssl.create_default_context(cafile=server.ca_file)\n"
            "    poplib.POP3_SSL('localhost', server.tls_port, context=context).quit()\n"
            "    client = poplib.POP3('localhost', server.port)\n"
            "    client.stls(context)\n"
            "    client.quit()\n"
            "    with smtplib.SMTP('localhost', server.smtp_port) as smtp:\n"
            "        smtp.starttls(context=context)\n"
            "        smtp.sendmail('', ['a@example.org'], 'x')\n"
            "print('twisted.internet.reactor' in sys.modules)\n",
            folder=Path(self.mktemp()),
        )
        self.assertEqual(said, "False\n")


class ReactorThreadTests(SynchronousTestCase):
    """The thread, with each kind of reactor."""

    def test_kinds(self) -> None:
        """It works where there is no epoll, and leaves nothing behind, started or not."""
        own_temporary_folder(self)
        for kind in (PollReactor, SelectReactor):
            before = left()
            thread = ReactorThread("test", kind)
            thread.start()
            self.assertEqual(thread.call(threading.get_ident), thread._thread.ident)
            self.assertIsInstance(thread.reactor, kind)
            self.assertRaises(ZeroDivisionError, thread.call, lambda: 1 // 0)
            thread.stop()
            thread.stop()
            ReactorThread("never", kind).stop()
            assert_no_more(self, before)

    def test_advance(self) -> None:
        """Calls come in their order, each at its time, those that they ask for as well."""
        thread = ReactorThread("test")
        thread.start()
        self.addCleanup(thread.stop)
        seconds, later = thread.reactor.seconds, thread.reactor.callLater
        came: list[tuple[str, float]] = []

        def note(name: str, began: float, *more: Any) -> None:
            came.append((name, round((seconds() - began) / 100)))
            if more:
                later(100, note, more[0], began, *more[1:])

        def begin() -> None:
            later(300, note, "c", seconds())
            later(100, note, "a", seconds(), "b", "d")

        thread.call(begin)
        thread.advance(250)
        self.assertEqual(came, [("a", 1), ("b", 2)])
        thread.advance(60)
        self.assertEqual({name for name, _ in came[2:]}, {"c", "d"})
        self.assertEqual([at for _, at in came[2:]], [3, 3])

    def test_not_within(self) -> None:
        """The thread itself cannot wait for its own time, and may call what it would call."""
        thread = ReactorThread("test")
        thread.start()
        self.addCleanup(thread.stop)
        self.assertRaises(RuntimeError, thread.call, lambda: thread.advance(1))
        self.assertEqual(thread.call(lambda: thread.call(lambda: 7)), 7)
        thread.call(thread.settle)


class BesideReactorTests(TestCase):
    """Beside a reactor that runs, as in a test of trial."""

    def test_beside(self) -> Deferred[None]:
        """The process's reactor goes on, and its threads can be clients."""
        running = ann(MESSAGE)
        server = running.__enter__()

        def fetch() -> int:
            with client(server) as pop3:
                return pop3.stat()[0]

        def seen(count: int) -> None:
            self.assertEqual(count, 1)
            running.__exit__(None, None, None)

        return deferToThread(fetch).addCallback(seen)
