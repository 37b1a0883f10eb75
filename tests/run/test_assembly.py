"""The whole server made of options: every combination starts and stops, every mistake is one line."""

from __future__ import annotations

import itertools
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import ITLSTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import limits
from pop3toy.auth.accounts.admin import add_user
from pop3toy.auth.throttle.login_throttle import LoginThrottle
from pop3toy.run import access
from pop3toy.run.service import ReloadService
from pop3toy.tap import makeService

from ..config.test_cmdline import parsed
from ..folders import new_folder
from ..memory_world import LOOPBACK, MemoryReactor, StringClient
from ..tls_world import Authority
from .test_start_errors import StartCase

STRANGER = IPv4Address("TCP", "192.0.2.7", 50110)


class TapCase(SynchronousTestCase):
    """A folder with everything that options can name."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactor()
        self.folder = Path(self.mktemp()).absolute()
        (self.folder / "mail" / "ann" / "new").mkdir(parents=True)
        self.authority = Authority(self.folder)
        self.authority.issue("localhost").write(self.folder / "localhost.pem")
        (self.folder / "names").mkdir()
        self.authority.issue("a.example").write(self.folder / "names" / "a.pem")
        (self.folder / "aliases").write_text("postmaster: ann\n")
        self.accounts = self.folder / "accounts"
        self.patch_environment()

    def patch_environment(self) -> None:
        """What --self-signed makes lands in the test's folder."""
        import os

        self.patch(os, "environ", {**os.environ, "XDG_DATA_HOME": str(self.folder / "data")})

    def user(self, name: str, scheme: str = "PLAIN") -> None:
        """Another line of the accounts file."""
        add_user(self.accounts, name, "secret", scheme=scheme)

    def warnings(self, *options: str) -> list[str]:
        """What the log warns of when the server is put together."""
        with capturedLogs() as events:
            makeService(parsed(f"--maildir={self.folder}/mail/{{user}}", *options), self.reactor)
        return [formatEvent(event) or "" for event in events if event["log_level"].name == "warn"]

    def talk(self, port: int, *lines: bytes, peer: IPv4Address = LOOPBACK) -> bytes:
        """What the server at one of its ports answers to these lines."""
        # TLS as a socket has it; it is not begun here.
        client = StringClient(self.reactor.factory_at(port), peer, ITLSTransport)
        said: bytes = client.greeting + client.say(*lines)
        client.leave()
        return said


class CombinationTests(TapCase):
    """What goes together works together."""

    def test_every_combination(self) -> None:
        """Ports, certificates, accounts and ways for mail to come in start and stop, each with each."""
        self.user("ann")
        passwords = self.folder / "passwords"
        passwords.write_text("bob:secret\n")
        maildir = f"--maildir={self.folder}/mail/{{user}}"
        ports: list[tuple[str, ...]] = [
            ("--port=1",),
            ("--listen=tcp:1:interface=127.0.0.1", "--listen=haproxy:tcp:2:interface=127.0.0.1"),
        ]
        certificates: list[tuple[str, ...]] = [
            (),
            ("--self-signed",),
            (f"--certificate={self.folder}/localhost.pem", "--tls-port=3"),
            (f"--certificates={self.folder}/names", "--tls-listen=haproxy:tcp:3:interface=127.0.0.1"),
            (
                f"--certificate={self.folder}/localhost.pem",
                f"--client-ca={self.authority.file}",
                "--tls-port=3",
            ),
        ]
        accounts: list[tuple[str, ...]] = [
            ("--user=ann:secret",),
            (maildir, "--user=ann:secret", "--allow-cleartext"),
            (maildir, f"--accounts={self.accounts}", "--renew-hashes", "--login-delay=5"),
            (
                maildir,
                f"--accounts={self.accounts}",
                "--user=carl:x",
                f"--auth=file:{passwords}",
                "--master=ann",
            ),
            (
                maildir,
                "--user=ann:secret",
                "--anonymous=ann",
                "--introspection=https://auth.example/introspect",
            ),
        ]
        mail: list[tuple[str, ...]] = [
            (),
            ("--smtp-port=4", "--submission-port=5"),
            (
                f"--lmtp=unix:{new_folder(self)}/lmtp.sock",
                "--smtp=tcp:4:interface=127.0.0.1",
                "--submission=haproxy:tcp:5:interface=127.0.0.1",
                "--max-message-size=1000",
            ),
        ]
        tried = 0
        for parts in itertools.product(ports, certificates, accounts, mail):
            options = [option for part in parts for option in part]
            self.reactor = MemoryReactor()
            hang_up = signal.getsignal(signal.SIGHUP)
            service = makeService(parsed("--transcript=off", *options), self.reactor)
            service.privilegedStartService()
            service.startService()
            said = self.talk(1, b"CAPA", b"QUIT")
            self.assertTrue(said.startswith(b"+OK pop3toy ready"), options)
            self.assertEqual(b"\r\nSTLS\r\n" in said, bool(parts[1]), options)
            self.assertEqual(b"\r\nLOGIN-DELAY 5\r\n" in said, "--login-delay=5" in options, options)
            self.assertEqual(b" ANONYMOUS" in said, "--anonymous=ann" in options, options)
            opened = {server[0] for server in self.reactor.tcpServers}
            self.assertEqual(3 in opened, any(option.startswith("--tls-") for option in options), options)
            self.assertEqual({4, 5} <= opened, bool(parts[3]), options)
            self.assertEqual(bool(self.reactor.unixServers), parts[3] == mail[2], options)
            self.successResultOf(service.stopService())
            self.assertEqual(signal.getsignal(signal.SIGHUP), hang_up, options)
            self.assertEqual(self.reactor.getDelayedCalls(), [], options)
            tried += 1
        self.assertEqual(tried, 150)

    def test_policy(self) -> None:
        """Clear-text passwords: from this machine, and from elsewhere only where the options say so."""
        for options, peer, allowed in (
            ((), LOOPBACK, True),
            ((), STRANGER, False),
            (("--allow-cleartext",), STRANGER, True),
            (("--self-signed",), STRANGER, False),
        ):
            self.reactor = MemoryReactor()
            service = makeService(parsed("--transcript=off", "--port=1", *options), self.reactor)
            service.privilegedStartService()
            said = self.talk(1, b"CAPA", b"AUTH", b"USER user", peer=peer)
            self.assertEqual(b"\r\nUSER\r\n" in said, allowed)
            self.assertEqual(b" PLAIN" in said, allowed)
            self.assertEqual(b"\r\nPLAIN\r\n" in said, allowed)
            self.assertEqual(said.endswith(b"+OK send PASS\r\n"), allowed)
            service.startService()
            self.successResultOf(service.stopService())

    def test_mechanisms(self) -> None:
        """``--mechanisms`` leaves out all others, USER and APOP among them."""
        service = makeService(
            parsed("--transcript=off", "--port=1", "--mechanisms=scram-sha-256,USER"), self.reactor
        )
        service.privilegedStartService()
        said = self.talk(1, b"CAPA", b"APOP user 0", b"AUTH")
        self.assertTrue(said.startswith(b"+OK pop3toy ready\r\n"), said)
        self.assertIn(b"\r\nUSER\r\nSASL SCRAM-SHA-256\r\n", said)
        self.assertTrue(said.endswith(b"mechanisms follow\r\nSCRAM-SHA-256\r\n.\r\n"), said)
        service.startService()
        self.successResultOf(service.stopService())

    def test_sessions_of_one_user(self) -> None:
        """``--max-per-user`` (default 10) and ``--lock-wait`` (default 5) reach whoever counts."""
        made: list[Any] = []

        def guard(clock: Any, limits: Any, peers: Any) -> LoginThrottle:
            made.append(limits)
            return LoginThrottle(clock, limits, peers=peers)

        self.patch(access, "LoginThrottle", guard)
        for options, most in (((), 10), (("--max-per-user=3",), 3)):
            makeService(parsed("--transcript=off", *options), self.reactor)
            self.assertEqual(made[-1].sessions_per_user, most)
        for options, seconds in (((), 5), (("--lock-wait=0",), 0), (("--lock-wait=30",), 30)):
            makeService(parsed("--transcript=off", *options), self.reactor)
            self.assertEqual(made[-1].lock_wait, seconds)
        maildir = f"--maildir={self.folder}/mail/{{user}}"
        makeService(parsed("--workers=4", maildir, "--user=ann:secret"), self.reactor)
        self.assertEqual(
            (made[-1].visitors, made[-1].attempts_per_address), (16, 8), "each worker has a part"
        )

    def test_limits(self) -> None:
        """``--max-connections`` and ``--max-per-address`` reach whoever counts."""
        for option, why in (
            ("--max-per-address=1", b"too many connections from your address"),
            ("--max-connections=1", b""),
        ):
            self.reactor = MemoryReactor()
            service = makeService(parsed("--transcript=off", "--port=1", option), self.reactor)
            service.privilegedStartService()
            [(_, factory, _, _)] = self.reactor.tcpServers
            first, second = (StringClient(factory, STRANGER) for _ in range(2))
            if why:
                self.assertEqual(second.greeting, b"-ERR [SYS/TEMP] " + why + b"\r\n")
            else:
                # The stranger who came first makes room.
                self.assertTrue(first.closed)
                self.assertTrue(second.greeting.startswith(b"+OK"))
            for client in (first, second):
                client.leave()
            service.startService()
            self.successResultOf(service.stopService())

    def test_auth_file(self) -> None:
        """``--auth file:`` that cannot be read is a temporary trouble; a part of a password is wrong."""
        passwords = self.folder / "passwords"
        passwords.write_text("ann:se:cret\n")
        service = makeService(
            parsed("--port=1", f"--maildir={self.folder}/mail/{{user}}", f"--auth=file:{passwords}"),
            self.reactor,
        )
        service.privilegedStartService()
        said = self.talk(1, b"USER ann", b"PASS se").splitlines()
        self.assertEqual(said[-1], b"-ERR [AUTH] invalid user name or password")
        passwords.unlink()
        said = self.talk(1, b"USER ann", b"PASS se:cret").splitlines()
        self.assertEqual(said[-1], b"-ERR [SYS/TEMP] logins are not possible at the moment")
        service.startService()
        self.successResultOf(service.stopService())

    def test_patience(self) -> None:
        """In the toy a person has ten minutes to log in; a stranger at real mail has one to begin."""
        for options, seconds in (
            ([], limits.IDLE),
            ([f"--maildir={self.folder}/mail/{{user}}"], limits.IDLE_BEFORE_LOGIN),
        ):
            self.reactor = MemoryReactor()
            words = parsed("--transcript=off", "--port=1", "--user=ann:secret", *options)
            service = makeService(words, self.reactor)
            service.privilegedStartService()
            [(_, factory, _, _)] = self.reactor.tcpServers
            self.assertEqual(factory.before_login, seconds)  # type: ignore[attr-defined]
            service.startService()
            self.successResultOf(service.stopService())

    def connect(self, count: int, peer: IPv4Address, *options: str) -> list[bytes]:
        """What as many clients of one address are greeted with."""
        self.reactor = MemoryReactor()
        service = makeService(parsed("--transcript=off", "--port=1", *options), self.reactor)
        service.privilegedStartService()
        [(_, factory, _, _)] = self.reactor.tcpServers
        clients = [StringClient(factory, peer) for _ in range(count)]
        for client in clients:
            client.leave()
        service.startService()
        self.successResultOf(service.stopService())
        return [client.greeting[:3] for client in clients]

    def test_one_for_many(self) -> None:
        """From loopback, and from addresses that are trusted, any number comes; a given number is kept."""
        few, many = [b"+OK"] * 64 + [b"-ER"] * 6, [b"+OK"] * 70
        self.assertEqual(self.connect(70, LOOPBACK), many)
        self.assertEqual(self.connect(70, STRANGER), few)
        self.assertEqual(self.connect(70, STRANGER, "--trusted=192.0.2.0/24"), many)
        self.assertEqual(self.connect(70, LOOPBACK, "--max-per-address=64"), few)

    def test_penalties(self) -> None:
        """The toy lets nobody wait who gives a wrong password; a server of real mail does."""
        real = ("--user=ann:secret", f"--maildir={self.folder}/mail/{{user}}")
        for options, answered in (((), 21), (("--user=ann:secret",), 21), (real, 3)):
            self.reactor = MemoryReactor()
            service = makeService(parsed("--transcript=off", "--port=1", *options), self.reactor)
            service.privilegedStartService()
            said = b"".join(self.talk(1, *[b"USER ann", b"PASS wrong"] * 3) for _ in range(7))
            self.assertEqual(said.count(b"-ERR [AUTH]"), answered, options)
            service.startService()
            self.successResultOf(service.stopService())

    def test_hang_up(self) -> None:
        """SIGHUP ends the bare toy, with its terminal, and no server of real mail or with a certificate."""
        for options, safe in (
            ((), False),
            (("--self-signed",), True),
            ((f"--maildir={self.folder}/mail/{{user}}",), True),
        ):
            service: Any = makeService(parsed("--transcript=off", "--user=ann:x", *options), self.reactor)
            self.assertEqual(any(isinstance(part, ReloadService) for part in service), safe, options)


class MixedAccountsTests(TapCase):
    """Accounts that cannot all use what is announced."""

    def test_told(self) -> None:
        """At start the log says who is left out: how many of how many, for each mechanism."""
        for name, scheme in (
            ("ann", "PLAIN"),
            ("bob", "ARGON2ID"),
            ("carl", "SCRAM-SHA-256"),
            ("dora", "PLAIN"),
        ):
            self.user(name, scheme)
        [said] = self.warnings(f"--accounts={self.accounts}")
        self.assertIn(f"accounts file {self.accounts}: not every user can use ", said)
        self.assertIn(
            "APOP (not for 2 of 4), CRAM-MD5 (not for 2 of 4),"
            " SCRAM-SHA-1 (not for 2 of 4), SCRAM-SHA-256 (not for 1 of 4)",
            said,
        )
        self.assertIn("--mechanisms", said)

    def test_alike(self) -> None:
        """Accounts in one scheme, whichever it is, are no reason to warn."""
        for scheme in ("PLAIN", "ARGON2ID", "SCRAM-SHA-256"):
            self.accounts.unlink(missing_ok=True)
            self.user("ann", scheme)
            self.user("bob", scheme)
            self.assertEqual(self.warnings(f"--accounts={self.accounts}"), [], scheme)

    def test_nobody(self) -> None:
        """At start the log says where users are named or meant and there are none, if that can be told."""
        self.accounts.write_bytes(b"# soon\n")
        self.accounts.chmod(0o600)
        given, accounts = "--user=ann:secret", f"--accounts={self.accounts}"
        [said] = self.warnings(accounts, given)
        self.assertEqual(said, f"accounts file {self.accounts}: there are no users in it")
        self.user("Bob", "PLAIN")
        (self.folder / "mail" / "demo" / "cur").mkdir(parents=True)
        passwords = self.folder / "passwords"
        passwords.write_text("eve:secret\n")
        master, anonymous = (
            "--master zed: there is no such user",
            "--anonymous zed: there is no such user, and",
        )
        for options, expected in (
            (("--master=zed", "--master=bob"), master), (("--anonymous=zed",), anonymous),
            # Its mailbox is there, and needs no account; or some other checker may know it.
            (("--anonymous=demo",), ""), (("--anonymous=bob",), ""),
            (("--master=zed", "--anonymous=zed", f"--auth=file:{passwords}"), ""),
        ):  # fmt: skip
            said = "".join(self.warnings(accounts, *options))
            self.assertTrue(said.startswith(expected) if expected else not said, said)

    def test_mechanisms(self) -> None:
        """What is not announced is not warned of."""
        self.user("ann", "PLAIN")
        self.user("bob", "ARGON2ID")
        self.assertEqual(self.warnings(f"--accounts={self.accounts}", "--mechanisms=USER,PLAIN,LOGIN"), [])
        [said] = self.warnings(
            f"--accounts={self.accounts}", "--mechanisms=USER,SCRAM-SHA-256-PLUS", "--channel-binding"
        )
        self.assertIn("can use SCRAM-SHA-256 (not for 1 of 2), announced", said)

    def test_users_on_the_command_line(self) -> None:
        """Their passwords are known, so that everything is announced, and the whole file is left out."""
        self.user("bob", "ARGON2ID")
        [said] = self.warnings(f"--accounts={self.accounts}", "--user=ann:secret")
        self.assertIn("APOP (not for 1 of 1)", said)


class OneLineTests(TapCase):
    """Mistakes that are found when the server is put together."""

    def assert_refused(self, says: str, *options: str) -> None:
        """One line that says this, and nothing was started."""
        end = self.assertRaises(SystemExit, makeService, parsed("--transcript=off", *options), self.reactor)
        self.assertTrue(str(end.code).startswith("pop3toy: "), end.code)
        self.assertEqual(len(str(end.code).splitlines()), 1)
        self.assertIn(says, str(end.code))
        self.assertEqual(self.reactor.tcpServers, [])

    def test_certificates(self) -> None:
        """Expired, mismatched, protected, missing, empty: each in its words."""
        hour = timedelta(hours=1)
        path = self.folder / "bad.pem"
        good, other = self.authority.issue("localhost"), self.authority.issue("localhost")
        expired = self.authority.issue("localhost", begins=-2 * hour, ends=-hour)
        for content, says in (
            (expired.certificate + expired.key, "bad.pem: valid from "),
            (good.certificate + other.key, "bad.pem is not the key of this certificate"),
            (good.certificate + good.locked_key, "bad.pem: the key is protected by a passphrase; remove it"),
            (good.certificate, "bad.pem: no private key in PEM in it"),
            (b"", "bad.pem: no certificate in PEM in it"),
        ):
            path.write_bytes(content)
            self.assert_refused(says, f"--certificate={path}")
        path.unlink()
        self.assert_refused("bad.pem: no such file or directory", f"--certificate={path}")
        self.assert_refused(
            "bad.pem: no such file", f"--certificate={self.folder}/localhost.pem", f"--key={path}"
        )
        self.assert_refused("nowhere: ", f"--certificates={self.folder}/nowhere")
        self.assert_refused("no NAME.pem", f"--certificates={self.folder}/mail")
        self.assert_refused(
            "nobody.crt",
            f"--certificate={self.folder}/localhost.pem",
            f"--client-ca={self.folder}/nobody.crt",
        )

    def test_self_signed_nowhere(self) -> None:
        """A certificate for trying that cannot be kept is told with the place."""
        (self.folder / "data").write_text("a file")
        self.assert_refused(f"{self.folder}/data/pop3toy: ", "--self-signed")

    def test_endpoints(self) -> None:
        """An endpoint that cannot be read is named with its option, those behind a proxy too."""
        for option in ("listen", "tls-listen", "smtp", "lmtp"):
            for endpoint in ("nonsense:1", "haproxy:nonsense:1", "haproxy:", "haproxy:tcp:x"):
                self.assert_refused(f"--{option} {endpoint}: ", f"--{option}={endpoint}", "--self-signed")

    def test_introspection(self) -> None:
        """A token would not be sent over a network in the clear."""
        self.assert_refused(
            "--introspection: an introspection endpoint is an https: address",
            f"--maildir={self.folder}/mail/{{user}}",
            "--introspection=http://auth.example/introspect",
        )


class ExitTests(StartCase):
    """The same through twistd: what a shell sees."""

    def test_status(self) -> None:
        """One line on standard error, exit status 1, no traceback, no pid file."""
        (self.folder / "empty.pem").write_bytes(b"")
        for options in (
            (f"--certificate={self.folder}/empty.pem",),
            (f"--certificates={self.folder}/mail",),
            ("--self-signed", "--tls-listen=nonsense:1"),
            ("--tls-port=0",),
            ("--mechanisms=NONSENSE",),
            ("--login-delay=soon",),
        ):
            done = self.run_twistd("--nodaemon", "pop3toy", "--port=0", *options)
            self.assertEqual(done.returncode, 1, options)
            [line] = done.stderr.splitlines()
            self.assertTrue(line.startswith("pop3toy: "), line)
            self.assertEqual(done.stdout, "")
            self.assertNotIn("Traceback", self.log)
            self.assert_left_nothing()
