"""What the command line says, what fits together, and the service that is made of it."""

from __future__ import annotations

import os
import sys
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet.address import IPv4Address
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

import pop3toy
from pop3toy.config.table import OPTIONS
from pop3toy.pop3.factory import POP3Factory
from pop3toy.stores.registry import Maildirs
from pop3toy.tap import Options, makeService

from ..folders import new_folder
from ..memory_world import LOOPBACK, MemoryReactor, StringClient, talk

STRANGER = IPv4Address("TCP", "192.0.2.7", 50110)


def parsed(*arguments: str) -> Options:
    """The options of a command line that is right."""
    options = Options()
    options.parseOptions(list(arguments))
    return options


class OptionsCase(SynchronousTestCase):
    """A folder with what options may name."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.mail = self.folder / "mail"
        (self.mail / "ann" / "new").mkdir(parents=True)
        self.pattern = f"{self.mail}/{{user}}"
        self.passwords = self.folder / "passwords"
        self.passwords.write_text("ann:secret\n")

    def refused(self, *arguments: str) -> str:
        """The one line that a wrong command line is answered with."""
        end = self.assertRaises(SystemExit, parsed, *arguments)
        # sys.exit with a text prints it and ends with status 1.
        self.assertIsInstance(end.code, str)
        line = str(end.code)
        self.assertTrue(line.startswith("pop3toy: "), line)
        self.assertTrue(line.endswith(" (twistd pop3toy --help tells more)"), line)
        self.assertEqual(len(line.splitlines()), 1)
        return line.removeprefix("pop3toy: ").removesuffix(" (twistd pop3toy --help tells more)")

    def assertRefused(self, says: str, *arguments: str) -> None:
        """A wrong command line is answered with just this."""
        self.assertEqual(self.refused(*arguments), says)


class DefaultTests(OptionsCase):
    """Without options it is the toy."""

    def test_toy(self) -> None:
        """The toy listens on loopback, port 2590, and shows its conversations."""
        settings = parsed().settings
        self.assertEqual((settings.port, settings.interface), (2590, "127.0.0.1"))
        self.assertEqual((settings.transcript_to, settings.users, settings.listen), ("-", (), ()))
        self.assertTrue(settings.is_toy)
        self.assertFalse(settings.tls.wanted)
        self.assertFalse(settings.wants_mail)

    def test_real_mail(self) -> None:
        """With real mail no conversation is written down."""
        settings = parsed("--maildir", self.pattern, "--user=ann:secret").settings
        self.assertEqual(settings.transcript_to, "off")
        self.assertEqual(settings.store, Maildirs(self.pattern))

    def test_short_names(self) -> None:
        """The options that people type have a letter."""
        options = parsed("-p", "2591", "-i", "::1", "-m", self.pattern, "-u", "ann:secret", "-u", "bob:x")
        self.assertEqual((options.settings.port, options.settings.interface), (2591, "::1"))
        self.assertEqual(options.settings.users, (("ann", "secret"), ("bob", "x")))

    def test_two_command_lines(self) -> None:
        """What one command line gathers is not in the next one."""
        parsed("--user=ann:secret", "--listen=tcp:1")
        self.assertEqual((parsed().settings.users, parsed().settings.listen), ((), ()))

    def test_transcript(self) -> None:
        """A transcript's file is absolute: twistd may change to another folder; ``-`` and ``off`` stay."""
        where = os.path.relpath(self.folder / "transcript.txt")
        self.assertEqual(
            parsed(f"--transcript={where}").settings.transcript_to, str(self.folder / "transcript.txt")
        )
        self.assertEqual(parsed("--transcript=-").settings.transcript_to, "-")
        self.assertEqual(parsed("--transcript=off").settings.transcript_to, "off")

    def test_password_with_colons(self) -> None:
        """Only the first colon of ``--user`` separates."""
        self.assertEqual(parsed("--user=ann:a:b: c").settings.users, (("ann", "a:b: c"),))

    def test_help(self) -> None:
        """The help names every option and says something about each."""
        text = Options().getUsage(width=80)
        for name, option in OPTIONS.items():
            self.assertRegex(text, rf"\n  (-., )?--{name}( [A-Z:]+)?\n {{8}}\S")
            self.assertIn(" ".join(option.help.split()), " ".join(text.split()).replace("- ", "-"))
        self.assertEqual([line for line in text.splitlines() if len(line) > 80], [])

    def test_version(self) -> None:
        """``--version`` says pop3toy's own, with status 0."""
        self.patch(sys, "stdout", StringIO())
        end = self.assertRaises(SystemExit, parsed, "--version")
        self.assertEqual((end.code, sys.stdout.getvalue()), (0, f"pop3toy {pop3toy.__version__}\n"))  # type: ignore[attr-defined]


class RefusedTests(OptionsCase):
    """Each mistake has a line that names the option and says what to do."""

    def test_refused(self) -> None:
        """The line names the option and what is wrong or missing; an empty option is no missing one."""
        real = ("--maildir", self.pattern, "-u", "ann:a")
        one, bob = f"--maildir={self.mail}/ann", ("-u", "bob:b")
        file = f"--auth=file:{self.passwords}"
        needs_certificate = "needs --certificate"
        for begins, holds, *arguments in (
            ("--maildir is", "empty", "--maildir=", "--user=ann:secret"),
            ("--interface is", "every network", "--interface="),
            ("--workers", "needs --maildir", "--workers=2"),
            ("--user:", "twice", "-u", "ann:a", *bob, "-u", "ann:c"),
            (
                "who may log in?",
                "--accounts FILE, --user NAME:PASSWORD, or --auth",
                f"--maildir={self.pattern}",
            ),
            ("--auth", "needs --maildir", file),
            ("--auth", "needs --maildir", "--auth=memory:ann:secret"),
            ("--accounts", "needs --maildir", f"--accounts={self.passwords}"),
            ("--create", "needs --maildir", "--create"),
            ("--max-listed-size", "needs --maildir", "--max-listed-size=1"),
            ("--create", "needs --maildir or --store", "--create"),
            ("--store-node", "needs --store", "--store-node=one"),
            ("--store-node", "is for object storage, which --maildir", "--store-node=one", *real),
            ("--max-listed-size", "is for Maildirs, which --store", "--max-listed-size=1", "--store=s3://m"),
            ("--store", "is for object storage, which --maildir replaces", "--store=s3://mail", *real),
            ("--store", "is an address such as s3://BUCKET", "--store=mail", "-u", "ann:a"),
            ("--store", "holds no credentials", "--store=s3://key:secret@mail", "-u", "ann:a"),
            ("--workers:", "one process alone", "--workers=2", "--store=memory://x", "-u", "ann:a"),
            ("who may log in?", "--accounts FILE", "--store=s3://mail"),
            ("--domain", "needs --maildir", "--smtp-port=0", "--domain=example.org"),
            ("--show-secrets", "for the built-in mailbox", "--show-secrets", *real),
            ("--catch-all", "needs --smtp-port", "--catch-all=ann"),
            ("--introspection-audience", "needs --introspection", "--introspection-audience=x"),
            ("--introspection-scope", "needs --introspection", "--introspection-scope=x"),
            ("--introspection-claim", "needs --introspection", "--introspection-claim=x"),
            ("--tls-port", needs_certificate, "--tls-port=2995"),
            ("--submission-tls-port", needs_certificate, "--submission-tls-port=2995"),
            ("--tls-listen", needs_certificate, "--tls-listen=tcp:2995"),
            ("--submission-tls", needs_certificate, "--submission-tls=tcp:2995"),
            ("--key", needs_certificate, "--key=k.pem"),
            ("--client-ca", needs_certificate, "--client-ca=c.pem"),
            ("--certificate and --self-signed", "together", "--certificate=c", "--self-signed"),
            # Several users need {user} in the path.
            ("--maildir", "needs {user}", one, "-u", "ann:a", *bob),
            ("--maildir", "needs {user}", one, file),
            ("--maildir", "needs {user}", one, "-u", "ann:a", file),
            ("--maildir", "needs {user}", one, f"--accounts={self.passwords}"),
            ("--maildir", "needs {user}", f"--maildir={self.mail}/{{usr}}", "-u", "ann:a"),
        ):
            with self.subTest(arguments=arguments):
                line = self.refused(*arguments)
                self.assertTrue(line.startswith(f"{begins} "), line)
                self.assertIn(holds, line)
        self.assertEqual(parsed(one, "-u", "ann:a").settings.store, Maildirs(f"{self.mail}/ann"))
        self.assertTrue(parsed("--self-signed", "--tls-port=0").settings.tls.wanted)

    def test_values(self) -> None:
        """What cannot be a value is refused with what can; a password is not repeated."""
        real = ("--maildir", self.pattern, "--user=ann:secret")
        for option, fact, wrong in (
            ("port", "0 to 65535", ("abc", "", "-1", "65536", "25.9", "1e3", "0x19", "\u00b2", " 25")),
            ("mechanisms", "there are ANONYMOUS, APOP, ", ("PLIAN", "USER,PLIAN", "", ",")),
            ("workers", "1 to 64, or auto", ("0", "65", "-1", "two", "", "Auto")),
            ("user", ": an account is written NAME:PASSWORD", ("ann", "hunter2", "ann:", ":secret", ":", "")),
            ("trusted", "no address and no network", ("webmail.example", "192.0.2.7/24", "")),
        ):
            for value in wrong:
                line = self.refused(*real, f"--{option}={value}")
                self.assertTrue(line.startswith(f"--{option}"), line)
                self.assertIn(fact, line)
                self.assertNotIn("hunter2", line)
        for port in ("0", "65535", "02590"):
            self.assertEqual(parsed(f"--port={port}").settings.port, int(port))
        self.assertEqual(
            parsed("--mechanisms=user, scram-sha-256").settings.mechanisms, ("USER", "SCRAM-SHA-256")
        )
        cores = min(len(os.sched_getaffinity(0)), 64)
        for given, workers in (((), None), (("-w", "3"), 3), (("--workers=auto",), cores)):
            self.assertEqual(parsed(*real, *given).settings.workers, workers)
        networks = parsed("--trusted=192.0.2.7", "--trusted=2001:db8::/64").settings.limits.trusted
        self.assertEqual(networks, ("192.0.2.7", "2001:db8::/64"))

    def test_folder(self) -> None:
        """The folder above the users has to be there."""
        self.assertRefused(
            f"--maildir: there is no folder {self.folder}/nowhere",
            f"--maildir={self.folder}/nowhere/{{user}}",
            "-u",
            "ann:a",
        )
        self.assertRefused(
            f"--maildir: {self.passwords} is no folder",
            f"--maildir={self.passwords}/{{user}}",
            "-u",
            "ann:a",
        )
        self.assertRefused(
            f"--maildir: there is no folder {self.mail}/bob", f"--maildir={self.mail}/bob", "-u", "bob:a"
        )
        # With --create it is made at the first login.
        parsed(f"--maildir={self.mail}/bob", "-u", "bob:a", "--create")

    def test_transcript(self) -> None:
        """A transcript that cannot be written is found at start, not at the first conversation."""
        self.assertRefused("--transcript is empty", "--transcript=")
        for where in (f"{self.folder}/nowhere/t", str(self.folder), f"{self.passwords}/t"):
            self.assertRefused(
                f"--transcript: cannot write to {os.path.abspath(where)}", f"--transcript={where}"
            )

    def test_checkers(self) -> None:
        """``--auth`` with a way that does not exist, or a file that does not, is refused."""
        nonsense = parsed(f"--maildir={self.pattern}", "--auth=nonsense:x")
        end = self.assertRaises(SystemExit, makeService, nonsense, MemoryReactorClock())
        self.assertIn("pop3toy: --auth nonsense: there is no such checker", str(end.code))
        self.assertIn("/nowhere", self.refused(f"--maildir={self.pattern}", "--auth=file:/nowhere"))
        parsed(f"--maildir={self.pattern}", f"--auth=file:{self.passwords}")
        parsed(f"--maildir={self.pattern}", "--auth=memory:ann:secret")

    def test_strange_words(self) -> None:
        """An option that does not exist, one without its value, a stray word."""
        for arguments in (["--nope"], ["-z"], ["--port"], ["extra"], ["--create=yes"]):
            self.refused(*arguments)

    def test_numbers(self) -> None:
        """Every option that is a number says its bounds."""
        for option, bounds in {
            "login-delay": "0 to 86400",
            "lock-wait": "0 to 60",
            "stop-delay": "0 to 3600",
            "max-connections": "1 to 1000000",
            "max-per-address": "1 to 1000000",
            "max-per-user": "1 to 1000000",
            "smtp-port": "0 to 65535",
            "submission-port": "0 to 65535",
            "max-message-size": "1000 to 1000000000000",
            "max-listed-size": "0 to 100000000000000",
        }.items():
            real = () if option != "max-listed-size" else ("--maildir", self.pattern, "--user=ann:secret")
            for value in ("x", "-1", "", "9" * 20):
                self.assertRefused(f"--{option} is a number from {bounds}", f"--{option}={value}", *real)

    def test_mail_in(self) -> None:
        """What belongs to mail that comes in needs a way for it."""
        endpoint = "tcp:0:interface=127.0.0.1"
        for way in ("smtp-port=0", f"smtp={endpoint}", "submission-port=0", f"submission={endpoint}",
                    "submission-tls-port=0", f"submission-tls={endpoint}", f"lmtp={endpoint}"):  # fmt: skip
            settings = parsed(f"--{way}", "--self-signed", "--hostname=mail.example.org").settings
            self.assertTrue(settings.wants_mail, way)
        self.assertFalse(parsed("--self-signed").settings.wants_mail)

    def test_lmtp_socket(self) -> None:
        """Not everybody on the machine may deliver through a Unix socket unless somebody says so."""
        for given, meant in (
            ("unix:/run/s", "unix:/run/s:mode=660"),
            ("unix:/run/s:mode=666", "unix:/run/s:mode=666"),
            ("tcp:2400:interface=127.0.0.1", "tcp:2400:interface=127.0.0.1"),
        ):
            self.assertEqual(parsed(f"--lmtp={given}").settings.lmtp, (meant,))


class ServiceTests(OptionsCase):
    """What ``makeService`` makes of them."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor: Any = MemoryReactor()

    def start(self, *arguments: str) -> IService:
        """Start the service as twistd does; it is stopped when the test ends."""
        service = makeService(parsed(*arguments), self.reactor)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(lambda: self.successResultOf(service.stopService()))
        return service

    def talk(self, *lines: bytes, peer: IPv4Address = LOOPBACK) -> bytes:
        """What the first POP3 port answers a client that says these lines."""
        return talk(self.reactor.tcpServers[0][1], *lines, peer=peer)

    def test_nothing_before_the_start(self) -> None:
        """Making the service opens no port and starts no thread."""
        makeService(parsed(), self.reactor)
        self.assertEqual(self.reactor.tcpServers, [])

    def test_where_it_listens(self) -> None:
        """Port and interface, IPv6 too, and endpoints of any kind instead of them."""
        for arguments, where in {
            (): [("127.0.0.1", 2590)],
            ("--port=0",): [("127.0.0.1", 0)],
            ("--interface=0.0.0.0", "--port=110"): [("0.0.0.0", 110)],
            ("--interface=::1",): [("::1", 2590)],
            ("--listen=tcp:1:interface=127.0.0.1", "--listen=tcp6:2"): [("127.0.0.1", 1), ("::", 2)],
        }.items():
            self.reactor = MemoryReactor()
            self.start("--transcript=off", *arguments)
            self.assertEqual([(host, port) for port, _, _, host in self.reactor.tcpServers], where)
        path = f"{new_folder(self)}/socket"
        self.start("--transcript=off", f"--listen=unix:{path}")
        self.assertEqual(self.reactor.unixServers[0][0], path)

    def test_mechanisms_that_cannot_work(self) -> None:
        """Mechanisms of which none can work are refused with what they need; one that can is enough."""
        served = [f"--maildir={self.pattern}", "--user=ann:secret"]
        for mechanisms, needed in {
            "EXTERNAL": "--client-ca",
            "OAUTHBEARER,XOAUTH2": "--introspection",
            "ANONYMOUS": "--anonymous",
            "SCRAM-SHA-256-PLUS": "a certificate",
        }.items():
            served_so = [*served, "--channel-binding"] if "PLUS" in mechanisms else served
            said = self.refused(*served_so, f"--mechanisms={mechanisms}")
            self.assertIn(f"--mechanisms: nobody can log in without {needed}", said)
            parsed(*served_so, f"--mechanisms={mechanisms},PLAIN")
        parsed(*served, "--mechanisms=SCRAM-SHA-256-PLUS", "--channel-binding", "--self-signed")
        said = self.refused(*served, "--mechanisms=SCRAM-SHA-1-PLUS,PLAIN", "--self-signed")
        self.assertIn("--mechanisms: SCRAM-SHA-1-PLUS needs --channel-binding", said)

    def test_names_of_domains(self) -> None:
        """What cannot be a domain or a host is refused, an address book's whole line for instance."""
        served = [f"--maildir={self.pattern}", "--user=ann:secret", "--smtp-port=0"]
        for value in ("a b", "a@b", "", ".", "a..b", "x;y"):
            for option in ("domain", "hostname"):
                said = self.refused(*served, f"--{option}={value}")
                self.assertIn(f"--{option}", said)
        for value in ("localhost", "example.org", "example.org.", "b\xfccher.example", "[192.0.2.1]"):
            parsed(*served, f"--domain={value}")

    def test_one_maildir_for_one_user(self) -> None:
        """A folder of Maildirs in the place of a Maildir is refused, with where {user} goes."""
        parsed(f"--maildir={self.mail}/ann", "--user=ann:secret")
        said = self.refused(f"--maildir={self.mail}", "--user=ann:secret")
        self.assertIn(f"{self.mail} is no Maildir", said)
        self.assertIn("{user} goes where", said)

    def test_help_is_prose(self) -> None:
        """No sentence of the help has a hole where a docstring had a new line."""
        text = " ".join(line[32:] for line in Options().getUsage(width=100).splitlines() if line[:3] == "   ")
        self.assertNotRegex(text, r"[a-z.,:]   +[a-zA-Z0-9]")

    def test_own_messages(self) -> None:
        """The toy shows messages of one's own instead of the one that says hello."""
        paths = []
        for number in range(2):
            paths.append(self.folder / f"{number}.eml")
            paths[-1].write_bytes(b"Subject: %d\n\n." % number)
        self.start("--transcript=off", *(f"--message={path}" for path in paths))
        said = self.talk(b"USER user", b"PASS pass", b"RETR 1", b"RETR 2")
        self.assertIn(b"Subject: 0\r\n\r\n..\r\n.\r\n+OK 17 octets\r\nSubject: 1\r\n", said)
        self.assertRefused(
            f"--message: there is no file {self.folder}/2.eml", f"--message={self.folder}/2.eml"
        )
        self.assertRefused(
            "--message is for the built-in mailbox, which --maildir replaces",
            f"--maildir={self.pattern}", "--user=ann:secret", f"--message={paths[0]}",
        )  # fmt: skip

    def test_nobody_can_log_in(self) -> None:
        """Whoever opens the port to a network without TLS is told that it does not help."""
        for arguments, warned in {
            ("--interface=0.0.0.0",): True,
            ("--interface=::",): True,
            ("--interface=0.0.0.0", "--allow-cleartext"): False,
            ("--interface=127.0.0.9",): False,
            ("--listen=tcp:2591",): True,
            ("--listen=tcp6:2591:interface=\\:\\:",): True,
            ("--listen=tcp:2591:interface=127.0.0.1", "--listen=unix:socket"): False,
            ("--listen=tcp6:2591:interface=\\:\\:1",): False,
            ("--submission=tcp:2591",): True,
            ("--submission=tcp:2591:interface=127.0.0.1",): False,
            ("--interface=0.0.0.0", "--listen=unix:socket"): False,
            ("--interface=0.0.0.0", "--listen=unix:socket", "--submission-port=2591"): True,
        }.items():
            with capturedLogs() as events:
                makeService(parsed("--transcript=off", *arguments), self.reactor)
            said = [formatEvent(event) or "" for event in events if event["log_level"].name == "warn"]
            self.assertEqual(warned, any("--certificate" in line for line in said), (arguments, said))

    def test_bad_endpoint(self) -> None:
        """An endpoint that cannot be read ends the start with one line."""
        self.assertRefused("--listen is empty", "--listen=")
        for endpoint in ("nonsense:1", "tcp:abc", "unix"):
            end = self.assertRaises(SystemExit, makeService, parsed(f"--listen={endpoint}"), self.reactor)
            self.assertTrue(str(end.code).startswith(f"pop3toy: --listen {endpoint}: "), end.code)
            self.assertEqual(len(str(end.code).splitlines()), 1)

    def test_port_taken(self) -> None:
        """A port that is taken ends the start with one line on standard error and status 1."""
        from twisted.internet.error import CannotListenError

        def taken(port: int, factory: object, backlog: int, interface: str) -> None:
            raise CannotListenError(interface, port, OSError(98, "Address already in use"))

        self.reactor.listenTCP = taken  # type: ignore[assignment]
        self.patch(sys, "__stderr__", StringIO())
        service = makeService(parsed("--transcript=off"), self.reactor)
        end = self.assertRaises(SystemExit, service.privilegedStartService)
        self.assertEqual(end.code, 1)
        self.assertEqual(
            sys.__stderr__.getvalue(),  # type: ignore[union-attr]
            "pop3toy: cannot listen on 127.0.0.1:2590: address already in use\n",
        )

    def test_toy(self) -> None:
        """The toy takes its public account, and has its message."""
        self.start("--transcript=off")
        said = self.talk(b"USER user", b"PASS pass", b"UIDL", b"RETR 1", b"QUIT")
        self.assertIn(b"\r\nSubject: Hello World!\r\n", said)
        self.assertNotIn(b"-ERR", said)

    def test_toy_with_other_accounts(self) -> None:
        """With ``--user`` the toy takes those accounts instead, each with a message of its own."""
        self.start("--transcript=off", "-u", "ann:a", "-u", "bob:b")
        for name in (b"ann", b"bob"):
            self.assertIn(
                b"+OK 1 ", self.talk(b"USER " + name, b"PASS " + name[:1], b"STAT", b"DELE 1", b"QUIT")
            )
        self.assertIn(b"+OK 0 0", self.talk(b"USER ann", b"PASS a", b"STAT"))
        self.assertIn(b"-ERR [AUTH]", self.talk(b"USER user", b"PASS pass"))

    def test_apop(self) -> None:
        """APOP is offered where passwords are recoverable."""
        self.start("--transcript=off")
        self.assertRegex(self.talk(), rb"\A\+OK pop3toy ready <[0-9a-f]+@pop3toy>\r\n")

    def test_no_clear_text_from_a_network(self) -> None:
        """A stranger on a network cannot send a password in the clear, unless that is allowed."""
        self.start("--transcript=off")
        self.assertIn(b"-ERR clear-text", self.talk(b"USER user", peer=STRANGER))
        self.reactor = MemoryReactor()
        self.start("--transcript=off", "--allow-cleartext")
        self.assertIn(b"+OK send PASS", self.talk(b"USER user", peer=STRANGER))

    def test_transcript_of_the_toy(self) -> None:
        """The toy's own password is shown; that of an account from the command line if one asks for it."""
        path = self.folder / "transcript"
        for arguments, login, text in (
            ((), (b"USER user", b"PASS pass"), "PASS pass"),
            (("-u", "ann:hunter2"), (b"USER ann", b"PASS hunter2"), "PASS ****"),
            (("-u", "ann:hunter2", "--show-secrets"), (b"USER ann", b"PASS hunter2"), "PASS hunter2"),
        ):
            path.unlink(missing_ok=True)
            self.reactor = MemoryReactor()
            service = makeService(parsed(f"--transcript={path}", *arguments), self.reactor)
            service.startService()
            self.talk(*login, b"QUIT")
            self.successResultOf(service.stopService())
            lines = path.read_text().splitlines()
            self.assertIn(f"[1] C: {text}", lines)
            self.assertEqual(lines[0], "[1] -- connected from 127.0.0.1:50110")
            self.assertEqual(lines[-1], "[1] -- closed (quit)")

    def test_one_factory_for_all_ports(self) -> None:
        """Sessions are numbered and drained together, wherever they came in."""
        self.start("--transcript=off", "--listen=tcp:1", "--listen=tcp:2")
        first, second = (server[1] for server in self.reactor.tcpServers)
        self.assertIs(first, second)
        self.assertIsInstance(first, POP3Factory)

    def test_stop(self) -> None:
        """Stopping closes the ports and lets go of the sessions, in bounded time."""
        service = makeService(parsed("--transcript=off"), self.reactor)
        service.startService()
        client = StringClient(self.reactor.tcpServers[0][1])
        done = service.stopService()
        self.assertNoResult(done)
        self.assertTrue(client.closed)
        client.leave()
        self.successResultOf(done)
