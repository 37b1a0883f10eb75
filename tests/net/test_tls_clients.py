"""Real mail programs over TLS, each with every mechanism it knows, against a server as users start it."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ..corpus import awkward_messages, fill_maildir, make_maildir
from ..folders import new_folder
from ..realserver import DEADLINE, RealServer, environment, wait_until
from ..tls_world import Authority

PASSWORD = "Tr0ub4dor-and-3"
TOKEN = "ya29.a-token-that-nobody-may-see"


#: Given to another service by the same user, and to this one for something else.
FOREIGN, NARROW = "a-token-for-a-photo-service", "a-token-for-the-calendar"
MEMBERS = {
    TOKEN: {"username": "ann", "email": "ann", "aud": ["https://mail.example"], "scope": "calendar mail"},
    FOREIGN: {"username": "ann", "email": "ann", "aud": "https://photos.example", "scope": "mail"},
    NARROW: {"username": "ann", "email": "ann", "aud": "https://mail.example", "scope": "calendar"},
}


class Introspection:
    """An authorization server that knows some tokens."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                members = MEMBERS.get(asked.get("token", [""])[0])
                answer = json.dumps({"active": members is not None, **(members or {})}).encode()  # type: ignore[dict-item]
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *arguments: Any) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/introspect"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class ClientCase(SynchronousTestCase):
    """A server with TLS, all mechanisms, and one message of ann's."""

    program: ClassVar[str] = ""
    package: ClassVar[str] = ""
    more_options: ClassVar[tuple[str, ...]] = ()

    def setUp(self) -> None:
        if self.program and shutil.which(self.program) is None:
            raise SkipTest(f"{self.program} is not installed (Debian package {self.package})")
        self.folder = new_folder(self)
        self.home = self.folder / "home"
        self.home.mkdir()
        [stored] = fill_maildir(self.folder / "mail" / "ann", awkward_messages(large=False)[:1])
        self.wire = stored.message.wire
        self.authority = Authority(self.folder)
        self.authority.issue("localhost", "127.0.0.1").write(self.folder / "localhost.pem")
        self.people = Authority(self.folder, "people")
        self.mine = self.people.issue(common="ann").write(self.folder / "ann.pem")
        introspection = Introspection()
        self.addCleanup(introspection.stop)
        self.server = RealServer(
            f"--maildir={self.folder}/mail/{{user}}",
            f"--user=ann:{PASSWORD}",
            f"--certificate={self.folder}/localhost.pem",
            f"--client-ca={self.people.file}",
            f"--introspection={introspection.url}",
            "--tls-port=0",
            *self.more_options,
            f"--transcript={self.folder}/transcript",
            folder=self.folder,
        )
        self.addCleanup(self.server.terminate)
        self.ports = {True: self.server.port_for("POP3 over TLS"), False: self.server.port_for("POP3")}

    def run_client(self, *command: str) -> bytes:
        """Run a program to its end; what it wrote on standard output."""
        done = subprocess.run(
            command, env=environment(self.home), cwd=self.home, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=2 * DEADLINE, check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, (command, done.stdout[-2000:], done.stderr[-2000:]))
        return done.stdout

    def config(self, name: str, text: str, mode: int = 0o600) -> Path:
        """A file that is its owner's alone."""
        path = self.home / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def assert_logged_in(self, mechanism: str, count: int = 1) -> None:
        """So many sessions with this mechanism ended with QUIT, all of them through TLS 1.3."""
        form = re.compile(
            rf"end: session=\d+ rip=127.0.0.1 user='ann' mechanism={mechanism} tls=TLSv1.3 ended=quit"
        )
        wait_until(lambda: len(form.findall(self.server.log)) >= count, f"{count} sessions with {mechanism}")

    def assert_no_secret(self) -> None:
        """Neither log nor transcript hold what proves anything, in any form."""
        said = self.server.log + self.server.words + (self.folder / "transcript").read_text()
        self.assertIn("C: ", said)
        plain = f"\0ann\0{PASSWORD}".encode()
        bearer = f"n,a=ann,\1host=localhost\1port={self.ports[False]}\1auth=Bearer {TOKEN}\1\1".encode()
        for secret in (PASSWORD.encode(), TOKEN.encode(), plain, b"ann" + plain, bearer):
            for form in (secret, base64.b64encode(secret), secret.hex().encode()):
                self.assertNotIn(form.decode("latin-1"), said)
        # Wherever the token stands in base64, at one of three offsets this is a part of it.
        for offset in range(3):
            middle = base64.b64encode(b"x" * offset + TOKEN.encode())[4:-8]
            self.assertNotIn(middle.decode(), said)
            middle = base64.b64encode(b"x" * offset + PASSWORD.encode())[4:-8]
            self.assertNotIn(middle.decode(), said)


class CurlCase(ClientCase):
    """curl fetches."""

    program = package = "curl"

    def fetch(self, implicit: bool, *options: str) -> bytes:
        """The first message."""
        url = f"pop3{'s' if implicit else ''}://localhost:{self.ports[implicit]}/1"
        return self.run_client(
            "curl", "--silent", "--show-error", "--ssl-reqd", "--cacert", str(self.authority.file),
            "--resolve", f"localhost:{self.ports[implicit]}:127.0.0.1", *options, url,
        )  # fmt: skip


class CurlTests(CurlCase):
    """curl, after STLS and with TLS from the first octet on."""

    def test_passwords(self) -> None:
        """Each way to use a password brings the message, octet for octet, and leaves no trace of it."""
        for mechanism, logged in (
            ("AUTH=PLAIN", "PLAIN"),
            ("AUTH=LOGIN", "LOGIN"),
            ("AUTH=CRAM-MD5", "CRAM-MD5"),
            ("AUTH=+APOP", "APOP"),
        ):
            for implicit in (False, True):
                options = ["--user", f"ann:{PASSWORD}", "--login-options", mechanism]
                self.assertEqual(self.fetch(implicit, *options), self.wire, mechanism)
            self.assert_logged_in(logged, 2)
        self.assert_no_secret()

    def test_initial_response(self) -> None:
        """The same with an initial response in the AUTH line."""
        for mechanism in ("PLAIN", "LOGIN"):
            options = ["--user", f"ann:{PASSWORD}", "--login-options", f"AUTH={mechanism}", "--sasl-ir"]
            self.assertEqual(self.fetch(True, *options), self.wire)
            self.assert_logged_in(mechanism)
        self.assert_no_secret()

    def test_tokens(self) -> None:
        """A bearer token logs in with OAUTHBEARER, and no other token does."""
        for implicit in (False, True):
            options = ["--user", "ann", "--oauth2-bearer", TOKEN]
            self.assertEqual(self.fetch(implicit, *options), self.wire)
            self.assertEqual(self.fetch(implicit, *options, "--sasl-ir"), self.wire)
        self.assert_logged_in("OAUTHBEARER", 4)
        self.assertIn("without --introspection-audience or --introspection-scope", self.server.log)
        self.assertNotIn("HTTP11ClientFactory", self.server.log)
        with self.assertRaises(AssertionError) as raised:
            self.fetch(True, "--user", "ann", "--oauth2-bearer", f"{TOKEN}x")
        self.assertIn("curl: (67)", str(raised.exception))
        self.assert_no_secret()

    def test_client_certificate(self) -> None:
        """A certificate is enough with EXTERNAL."""
        options = ["--user", "ann:", "--login-options", "AUTH=EXTERNAL", "--cert", str(self.mine)]
        for implicit in (False, True):
            self.assertEqual(self.fetch(implicit, *options), self.wire)
        self.assert_logged_in("EXTERNAL", 2)

    def test_wrong_name(self) -> None:
        """A client that looks for another name in the certificate does not go on."""
        with self.assertRaises(AssertionError) as raised:
            self.run_client(
                "curl", "--silent", "--show-error", "--ssl-reqd", "--cacert", str(self.authority.file),
                "--connect-to", f"pop.example.org:110:127.0.0.1:{self.ports[False]}",
                "--user", f"ann:{PASSWORD}", "pop3://pop.example.org:110/1",
            )  # fmt: skip
        self.assertIn("curl: (60)", str(raised.exception))


class CurlWithAudienceTests(CurlCase):
    """Tokens of which the server takes those that are meant for it."""

    more_options = (
        "--introspection-audience=https://mail.example",
        "--introspection-scope=mail",
        "--introspection-claim=email",
    )

    def test_tokens(self) -> None:
        """A token that was given to another service, or for something else, opens no mailbox."""
        self.assertEqual(self.fetch(True, "--user", "ann", "--oauth2-bearer", TOKEN), self.wire)
        for token in (FOREIGN, NARROW):
            with self.assertRaises(AssertionError) as raised:
                self.fetch(True, "--user", "ann", "--oauth2-bearer", token)
            self.assertIn("curl: (67)", str(raised.exception))
        failed = "mechanism=OAUTHBEARER tls=TLSv1.3 protocol=POP3 reason=AUTH"
        self.assertEqual(self.server.log.count(failed), 2)
        self.assertNotIn("without --introspection-audience", self.server.log)


class CurlWithXOAuth2Tests(CurlCase):
    """curl takes OAUTHBEARER where it can, and XOAUTH2 where it is offered nothing else for tokens."""

    more_options = ("--mechanisms=XOAUTH2,USER",)

    def test_passwords(self) -> None:
        """USER and PASS, where no SASL mechanism takes a password."""
        for implicit in (False, True):
            self.assertEqual(self.fetch(implicit, "--user", f"ann:{PASSWORD}"), self.wire)
        self.assert_logged_in("USER", 2)
        self.assert_no_secret()

    def test_tokens(self) -> None:
        """A bearer token logs in, with an initial response and without."""
        for implicit in (False, True):
            options = ["--user", "ann", "--oauth2-bearer", TOKEN]
            self.assertEqual(self.fetch(implicit, *options), self.wire)
            self.assertEqual(self.fetch(implicit, *options, "--sasl-ir"), self.wire)
        self.assert_logged_in("XOAUTH2", 4)
        self.assert_no_secret()


class MpopTests(ClientCase):
    """mpop, with GNU SASL."""

    program = package = "mpop"

    def fetch(self, implicit: bool, mechanism: str, secret: str, *more: str) -> bytes:
        """The one message, from a Maildir that mpop has filled."""
        maildir = make_maildir(self.home / f"{mechanism}-{implicit}")
        configuration = self.config(
            "mpoprc",
            "\n".join([
                "account ann", "host localhost", f"port {self.ports[implicit]}", "user ann",
                f"password {secret}", f"auth {mechanism}", "tls on",
                f"tls_starttls {'off' if implicit else 'on'}", f"tls_trust_file {self.authority.file}",
                "keep on", "only_new off", "received_header off", f"uidls_file {maildir}/uidls",
                f"delivery maildir {maildir}", *more, "",
            ]),
        )  # fmt: skip
        self.run_client("mpop", "-C", str(configuration), "ann")
        [message] = (maildir / "new").iterdir()
        return message.read_bytes()

    def every(self, mechanisms: Sequence[tuple[str, str]], secret: str, *more: str) -> None:
        """All of these mechanisms, on both ports."""
        known = self.run_client("mpop", "--version").decode()
        for mechanism, logged in mechanisms:
            if f" {mechanism} " not in known.replace("\n", " "):
                raise SkipTest(f"this mpop does not know {mechanism}")
            for implicit in (False, True):
                fetched = self.fetch(implicit, mechanism, secret, *more)
                self.assertEqual(fetched, self.wire.replace(b"\r\n", b"\n"), mechanism)
            self.assert_logged_in(logged, 2)
        self.assert_no_secret()

    def test_passwords(self) -> None:
        """Each way to use a password; GNU SASL proves and verifies with SCRAM."""
        names = ("plain", "login", "cram-md5", "apop", "scram-sha-1", "scram-sha-256")
        self.every([("user", "USER"), *((name, name.upper()) for name in names)], PASSWORD)

    def test_tokens(self) -> None:
        """A bearer token in the place of the password."""
        self.every([("oauthbearer", "OAUTHBEARER"), ("xoauth2", "XOAUTH2")], TOKEN)

    def test_client_certificate(self) -> None:
        """EXTERNAL with a certificate."""
        self.every([("external", "EXTERNAL")], "x", f"tls_cert_file {self.mine}", f"tls_key_file {self.mine}")


class FetchmailTests(ClientCase):
    """fetchmail, which takes APOP, CRAM-MD5 or USER as it is told."""

    program = package = "fetchmail"

    def test_both_ports(self) -> None:
        """It verifies the certificate and fetches, with STLS and without."""
        for number, (implicit, protocol, auth, logged) in enumerate(
            (
                (False, "pop3", "password", "USER"),
                (True, "pop3", "password", "USER"),
                (False, "pop3", "cram-md5", "CRAM-MD5"),
                # With APOP it does not ask for STLS.
                (True, "apop", "password", "APOP"),
            )
        ):
            agent = self.config("deliver", f'#!/bin/sh\nexec cat > "{self.home}/{number}"\n', 0o700)
            tls = "ssl" if implicit else 'sslproto "tls1.2+"'
            self.config(
                ".fetchmailrc",
                f"""
                set no bouncemail
                set no syslog
                set invisible
                set idfile "{self.home}/ids{number}"
                set pidfile "{self.home}/pid{number}"
                poll localhost protocol {protocol} port {self.ports[implicit]} auth {auth} uidl
                    username ann password "{PASSWORD}" {tls}
                    sslcertck sslcertfile "{self.authority.file}"
                    keep fetchall no rewrite no mimedecode no stripcr no forcecr pass8bits
                    no dropstatus no dropdelivered mda "{agent}"
                """,
            )
            self.run_client("fetchmail", "--nodetach")
            self.assertEqual((self.home / str(number)).read_bytes(), self.wire)
            self.assert_logged_in(logged)
        self.assert_no_secret()


class GetmailTests(ClientCase):
    """getmail6, on Python's poplib."""

    program = "getmail"
    package = "getmail6"

    def test_implicit(self) -> None:
        """It verifies the certificate and fetches; it knows TLS from the first octet on alone."""
        agent = self.config("deliver", f'#!/bin/sh\nexec cat > "{self.home}/message"\n', 0o700)
        self.config(
            "getmailrc",
            f"""
[retriever]
type = SimplePOP3SSLRetriever
server = localhost
port = {self.ports[True]}
username = ann
password = {PASSWORD}
ca_certs = {self.authority.file}
[destination]
type = MDA_external
path = {agent}
allow_root_commands = true
[options]
read_all = true
delete = false
delivered_to = false
received = false
""",
        )
        self.run_client("getmail", "--getmaildir", str(self.home))
        self.assertIn(b"Subject:", (self.home / "message").read_bytes())
        self.assert_logged_in("USER")
        self.assert_no_secret()


class NetPop3Tests(ClientCase):
    """Perl's Net::POP3, with IO::Socket::SSL and Authen::SASL."""

    program = package = "perl"
    script = """
use strict; use warnings; use Net::POP3;
my ($port, $implicit, $authority, $method, $password) = @ARGV;
my @trust = (SSL_ca_file => $authority);
my @options = (Port => $port, $implicit ? (SSL => 1, @trust) : ());
my $pop = Net::POP3->new("localhost", @options) or die "connect: $@";
$implicit or $pop->starttls(@trust) or die "STLS: $@";
my $count = $pop->$method("ann", $password);
die "login: " . $pop->message unless $count;
print @{$pop->get(1)};
$pop->quit or die "QUIT: " . $pop->message;
"""

    def setUp(self) -> None:
        super().setUp()
        for module, package in (
            ("IO::Socket::SSL", "libio-socket-ssl-perl"),
            ("Authen::SASL", "libauthen-sasl-perl"),
            # Without it Authen::SASL knows no CRAM-MD5, and says nothing.
            ("Digest::HMAC_MD5", "libdigest-hmac-perl"),
        ):
            if subprocess.run(["perl", f"-M{module}", "-e1"], capture_output=True, check=False).returncode:
                raise SkipTest(f"Perl's {module} is not installed (Debian package {package})")

    def test_both_ports(self) -> None:
        """It verifies the certificate and fetches with USER, APOP and the best mechanism that it knows."""
        script = self.config("fetch", self.script)
        for method, logged in (("login", "USER"), ("apop", "APOP"), ("auth", "CRAM-MD5")):
            for implicit in (False, True):
                port = str(self.ports[implicit])
                trusted = str(self.authority.file)
                got = self.run_client(
                    "perl", str(script), port, "1" if implicit else "", trusted, method, PASSWORD
                )  # fmt: skip
                self.assertEqual(got, self.wire)
            self.assert_logged_in(logged, 2)
        self.assert_no_secret()


class MovemailTests(ClientCase):
    """movemail of GNU Mailutils, which asks for TLS wherever CAPA offers it."""

    program = "movemail.mailutils"
    package = "mailutils"

    def test_both_ports(self) -> None:
        """It fetches, with STLS and with TLS from the first octet on."""
        for implicit in (False, True):
            scheme = "pops" if implicit else "pop"
            url = f"{scheme}://ann:{PASSWORD}@localhost:{self.ports[implicit]}"
            (self.home / scheme).mkdir()
            self.run_client(self.program, "--no-config", "--preserve", url, f"mh://{self.home}/{scheme}")
            got = (self.home / scheme / "1").read_bytes()
            self.assertEqual(got, self.wire.replace(b"\r\n", b"\n"))
        self.assert_logged_in("USER", 2)
        self.assert_no_secret()


class FdmTests(ClientCase):
    """fdm, which forgets about APOP after STLS."""

    program = package = "fdm"

    def test_both_ports(self) -> None:
        """It fetches, with STLS and with TLS from the first octet on."""
        agent = self.config("deliver", f'#!/bin/sh\nexec cat > "{self.home}/message"\n', 0o700)
        for implicit in (False, True):
            scheme, stls = ("pop3s", "") if implicit else ("pop3", "starttls")
            configuration = self.config(
                "fdm.conf",
                f"""
set lock-file "{self.home}/fdm.lock"
set no-received
account "ann" {scheme} server "localhost" port {self.ports[implicit]} user "ann" pass "{PASSWORD}"
    no-verify {stls}
action "deliver" pipe "{agent}"
match all action "deliver"
""",
            )
            self.run_client("fdm", "-f", str(configuration), "-k", "fetch")
            message = self.home / "message"
            self.assertEqual(message.read_bytes(), self.wire.replace(b"\r\n", b"\n"))
            message.unlink()
            self.assert_logged_in("APOP" if implicit else "USER")
        self.assert_no_secret()


class NetPopTests(ClientCase):
    """Ruby's net/pop."""

    program = package = "ruby"

    def test_implicit(self) -> None:
        """It verifies the certificate and fetches; it knows TLS from the first octet on alone."""
        script = self.config(
            "fetch",
            """
require "net/pop"
port, authority, apop, password = ARGV
pop = Net::POP3.new("localhost", port.to_i, apop == "apop")
pop.enable_ssl(verify_mode: OpenSSL::SSL::VERIFY_PEER, ca_file: authority)
pop.start("ann", password) { |session| print session.mails[0].pop }
""",
        )
        for what, logged in (("user", "USER"), ("apop", "APOP")):
            port, trusted = str(self.ports[True]), str(self.authority.file)
            self.assertEqual(self.run_client("ruby", str(script), port, trusted, what, PASSWORD), self.wire)
            self.assert_logged_in(logged)
        self.assert_no_secret()
