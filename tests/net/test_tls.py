"""TLS on the wire: STLS and TLS from the first octet on, against a server as users start it."""

from __future__ import annotations

import atexit
import base64
import contextlib
import hashlib
import hmac
import poplib
import re
import secrets
import shutil
import signal
import ssl
import subprocess
import tempfile
import threading
import warnings
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from scramp import ScramClient
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ..corpus import awkward_messages, fill_maildir, stuffed
from ..realserver import DEADLINE, RealServer, maildir_options, wait_until
from ..tls_world import Authority, OpenSSLWire, Wire, self_signed, trusting

STLS = b"+OK begin TLS negotiation"


class World:
    """The server of one class of tests; trial knows no fixtures of classes."""

    _now: ClassVar[World | None] = None

    def __init__(self, case: type[ServedCase]) -> None:
        self.case = case
        self.folder = Path(tempfile.mkdtemp(prefix="pop3toy-tls-"))
        self.authority = Authority(self.folder)
        case.prepare(self.folder, self.authority)
        fill_maildir(self.folder / "mail" / "ann", awkward_messages(large=False)[:3])
        options = [one.format(folder=self.folder) for one in case.options]
        accounts = maildir_options(self.folder / "mail", ("ann:secret", "bob:other"))
        self.server = RealServer(*accounts, "--tls-port=0", *options, folder=self.folder)

    @classmethod
    def of(cls, case: type[ServedCase]) -> World:
        """The server for a class; the one for the class before ends."""
        if cls._now is None or cls._now.case is not case:
            cls.end()
            cls._now = cls(case)
        return cls._now

    @classmethod
    def end(cls) -> None:
        """End the server, if there is one."""
        world, cls._now = cls._now, None
        if world is not None:
            ended = world.server.terminate()
            shutil.rmtree(world.folder)
            assert ended, "the server did not end in order"


atexit.register(World.end)


class ServedCase(SynchronousTestCase):
    """One server for all tests of a class, with three messages of ann's and TLS on a second port."""

    #: Further options; ``{folder}`` is where the certificates are.
    options: ClassVar[tuple[str, ...]] = ("--certificate={folder}/localhost.pem",)
    folder: Path
    authority: Authority
    server: RealServer
    port: int
    tls_port: int

    def setUp(self) -> None:
        world = World.of(type(self))
        self.folder, self.authority, self.server = world.folder, world.authority, world.server
        self.port, self.tls_port = map(self.server.port_for, ("POP3", "POP3 over TLS"))

    @classmethod
    def prepare(cls, folder: Path, authority: Authority) -> None:
        """Make the certificates."""
        authority.issue("localhost", "127.0.0.1").write(folder / "localhost.pem")

    def wire(self, port: int | None = None) -> Wire:
        """A connection that has been greeted."""
        wire = Wire(self.port if port is None else port)
        self.addCleanup(wire.close)
        if port is None:
            self.assertTrue(wire.line().startswith(b"+OK "))
        return wire

    def encrypted(self, context: ssl.SSLContext | None = None, name: str | None = "localhost") -> Wire:
        """A connection after STLS."""
        wire = self.wire()
        self.assertEqual(wire.ask(b"STLS"), STLS)
        return wire.starttls(context or trusting(self.authority), name)

    def implicit(self, context: ssl.SSLContext | None = None, name: str | None = "localhost") -> Wire:
        """A connection to the other port, greeted within TLS."""
        wire = self.wire(self.tls_port).starttls(context or trusting(self.authority), name)
        self.assertTrue(wire.line().startswith(b"+OK "))
        return wire

    def log_in(self, wire: Wire) -> None:
        """Log ann in."""
        self.assertEqual(wire.ask(b"USER ann"), b"+OK send PASS")
        self.assertTrue(wire.ask(b"PASS secret").startswith(b"+OK "))


class StartTests(ServedCase):
    """The two ways into TLS."""

    def test_both(self) -> None:
        """The session goes on, CAPA offers STLS no more, and the log says which TLS a login came through."""
        self.assertIn(b"STLS", self.wire().lines(b"CAPA"))
        for wire in (self.encrypted(), self.implicit()):
            self.assertNotIn(b"STLS", wire.lines(b"CAPA"))
            self.log_in(wire)
            self.assertNotIn(b"STLS", wire.lines(b"CAPA"))
            self.assertTrue(wire.message(b"RETR 1"))
            self.assertTrue(wire.ask(b"QUIT").startswith(b"+OK "))
        self.assertEqual(self.server.log.count("user='ann' mechanism=USER tls=TLSv1.3"), 2)

    def test_poplib(self) -> None:
        """Python's poplib fetches the same after ``stls()`` and with ``POP3_SSL``."""
        context = trusting(self.authority)
        first = poplib.POP3("localhost", self.port, timeout=DEADLINE)
        self.assertTrue(first.stls(context).startswith(b"+OK"))
        second = poplib.POP3_SSL("localhost", self.tls_port, timeout=DEADLINE, context=context)
        fetched = []
        for client in (first, second):
            client.user("ann")
            client.pass_("secret")
            self.assertEqual(client.stat()[0], 3)
            fetched.append([client.retr(number)[1] for number in (1, 2, 3)])
            self.assertTrue(client.quit().startswith(b"+OK"))
        self.assertEqual(*fetched)

    def test_openssl(self) -> None:
        """``openssl s_client`` verifies the chain, talks, and is let go in order, both ways."""
        if shutil.which("openssl") is None:
            raise SkipTest("openssl is not installed (Debian package openssl)")
        for port, way in ((self.port, ["-starttls", "pop3"]), (self.tls_port, [])):
            done = subprocess.run(
                ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *way, "-alpn", "pop3",
                 "-CAfile", str(self.authority.file), "-verify_return_error", "-verify_hostname", "localhost",
                 "-servername", "localhost", "-ign_eof", "-crlf"],
                input=b"USER ann\nPASS secret\nSTAT\nQUIT\n", capture_output=True,
                timeout=DEADLINE, check=False,
            )  # fmt: skip
            self.assertEqual(done.returncode, 0, done)
            for said in (b"Verify return code: 0 (ok)", b"ALPN protocol: pop3", b"+OK 3 ", b"+OK bye"):
                self.assertIn(said, done.stdout)
            # What it says when the connection ended with a close_notify.
            self.assertIn(b"closed", done.stdout.splitlines()[-1])
            self.assertNotIn(b"unexpected eof", done.stderr)

    def test_close_notify(self) -> None:
        """A body and QUIT in one packet: all of it comes, then a close_notify, then the end."""
        for wire in (self.encrypted(), self.implicit()):
            self.log_in(wire)
            wire.send(b"RETR 1\r\nQUIT\r\n")
            # Without a close_notify this raises SSLEOFError.
            self.assertTrue(wire.rest().endswith(b"\r\n.\r\n+OK bye\r\n"))


class InjectionTests(ServedCase):
    """What was said in the clear counts for nothing."""

    def test_pipelined_behind_stls(self) -> None:
        """Commands in the packet of STLS are neither carried out nor answered within TLS.

        Nor does a USER count that was said before (RFC 2595 section 4).
        """
        for behind in (
            b"",
            b"CAPA\r\n",
            b"USER ann\r\nPASS secret\r\nDELE 1\r\nQUIT\r\n",
            b"USER bob\r\n",
            b"STLS\r\nCAPA\r\n",
            b"AUTH PLAIN\r\n",
            b"CAPA",
        ):
            wire = self.wire()
            self.assertEqual(wire.ask(b"USER bob"), b"+OK send PASS")
            wire.send(b"STLS\r\n" + behind)
            self.assertEqual(wire.line(), STLS)
            wire.starttls(trusting(self.authority))
            self.assertEqual(wire.ask(b"PASS other"), b"-ERR send USER first")
            self.log_in(wire)
            wire.ask(b"QUIT")

    def test_many_behind_stls(self) -> None:
        """So it is with more of them than a read of the socket brings."""
        wire = self.wire()
        # The server may have ended the connection before all of it is out.
        with contextlib.suppress(ConnectionError):
            wire.send(b"STLS\r\n" + b"CAPA\r\n" * 100_000)
        # What the first read did not bring is no ClientHello: the connection ends.
        self.assertLessEqual(wire.rest().count(b"+OK"), 1)

    def test_stls_refused(self) -> None:
        """STLS is refused within TLS, after login and with an argument, and the session goes on."""
        for wire in (self.encrypted(), self.implicit()):
            self.assertEqual(wire.ask(b"STLS"), b"-ERR TLS is already active")
            self.log_in(wire)
            self.assertEqual(wire.ask(b"STLS"), b"-ERR STLS is for before login")
            self.assertTrue(wire.ask(b"QUIT").startswith(b"+OK"))
        wire = self.wire()
        self.assertTrue(wire.ask(b"STLS now").startswith(b"-ERR "))
        self.log_in(wire)
        self.assertEqual(wire.ask(b"STLS"), b"-ERR STLS is for before login")
        self.assertTrue(wire.ask(b"QUIT").startswith(b"+OK"))

    def test_stls_within_an_exchange(self) -> None:
        """Within AUTH, STLS is no response; the exchange is over and STLS works then."""
        wire = self.wire()
        self.assertEqual(wire.ask(b"AUTH PLAIN"), b"+ ")
        self.assertTrue(wire.ask(b"STLS?").startswith(b"-ERR this is not base64"))
        self.assertEqual(wire.ask(b"STLS"), STLS)
        self.log_in(wire.starttls(trusting(self.authority)))


class HandshakeTests(ServedCase):
    """Who may shake hands; with an elliptic curve's key, and as ``rsa.example`` with one of RSA's."""

    options = ("--certificates={folder}/both",)

    @classmethod
    def prepare(cls, folder: Path, authority: Authority) -> None:
        (folder / "both").mkdir()
        authority.issue("localhost", "127.0.0.1").write(folder / "both" / "a.pem")
        authority.issue("rsa.example", rsa=True).write(folder / "both" / "b.pem")

    def old(self, version: ssl.TLSVersion) -> ssl.SSLContext:
        """A client that knows nothing newer, and is willing to use it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            # Python does not want this either.
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = version
        return context

    def test_versions(self) -> None:
        """TLS 1.2 and 1.3 are spoken; 1.0 and 1.1 are refused with the alert that says why."""
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            with self.assertRaises(ssl.SSLError) as raised:
                self.wire(self.tls_port).starttls(self.old(version))
            self.assertIn("PROTOCOL_VERSION", str(raised.exception.reason))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = trusting(self.authority, maximum_version=version, minimum_version=version)
            wire = self.implicit(context)
            self.assertEqual(wire.tls.version(), version.name.replace("_", "."))
            self.log_in(wire)
            wire.ask(b"QUIT")

    def test_ciphers(self) -> None:
        """With TLS 1.2 a suite is forward secret and AEAD, whatever the key is."""
        weak = ["AES128-SHA", "NULL-SHA256", "AES256-GCM-SHA384", "DHE-RSA-AES128-SHA", "kRSA", "aNULL"]
        for name, key in (("localhost", "ECDSA"), ("rsa.example", "RSA")):
            good = [f"ECDHE-{key}-AES128-GCM-SHA256", f"ECDHE-{key}-CHACHA20-POLY1305"]
            for suite in (*good, *weak, f"ECDHE-{key}-AES128-SHA", f"ECDHE-{key}-AES256-SHA384"):
                context = self.old(ssl.TLSVersion.TLSv1_2)
                context.set_ciphers(f"{suite}:@SECLEVEL=0")
                wire = self.wire(self.tls_port)
                if suite in good:
                    self.assertTrue(wire.starttls(context, name).line().startswith(b"+OK"), suite)
                    continue
                with self.assertRaises(ssl.SSLError, msg=f"{name} {suite}"):
                    wire.starttls(context, name)

    def test_no_handshake(self) -> None:
        """What is no TLS, or no more of it, ends that connection alone; the log says why, in a line."""
        cases = {
            b"GET / HTTP/1.0\r\n\r\n": "http request",
            b"USER ann\r\n": "wrong version number",
            b"\0" * 4096: "wrong version number",
            b"\x16\x03\x01\xff\xff" + b"x" * 70000: "",
        }
        told = self.server.log.count("TLS failed: ")
        for said, why in cases.items():
            first, second = self.wire(self.tls_port), self.wire()
            second.ask(b"STLS")
            for wire in (first, second):
                wire.send(said)
                self.assertNotIn(b"+OK", wire.rest())
            told += 2
            wait_until(lambda told=told: self.server.log.count("TLS failed: ") >= told, "it is told of")
            for line in re.findall("TLS failed: .*", self.server.log)[-2:]:
                self.assertRegex(line, rf"session=\d+ rip=127.0.0.1 protocol=POP3 reason=.*{why}")
        # Clients that look whether the port is open are no news.
        for said in (b"", b"\x16\x03\x01\x02\x00\x01\x00"):
            with self.wire(self.tls_port) as wire:
                wire.send(said)
        self.log_in(self.implicit())
        self.assertEqual(self.server.log.count("TLS failed: "), told)
        self.assertNotIn("Traceback", self.server.log)


class ChannelBindingTests(ServedCase):
    """SCRAM-*-PLUS: the password is proven for this TLS connection and no other."""

    options = ("--certificate={folder}/localhost.pem", "--channel-binding")

    def scram(self, wire: Wire, mechanism: str, kind: str, bound: bytes) -> bytes:
        """The last line of an exchange bound in this way; RFC 5802 section 3 by hand."""
        hashed = "sha256" if "256" in mechanism else "sha1"
        header, bare = f"p={kind},,".encode(), b"n=ann,r=" + secrets.token_hex(8).encode()
        said = wire.ask(b"AUTH " + mechanism.encode() + b" " + base64.b64encode(header + bare))
        self.assertTrue(said.startswith(b"+ "), said)
        server_first = base64.b64decode(said[2:])
        nonce, salt, iterations = (part.partition(b"=")[2] for part in server_first.split(b","))
        salted = hashlib.pbkdf2_hmac(hashed, b"secret", base64.b64decode(salt), int(iterations))
        client_key = hmac.digest(salted, b"Client Key", hashed)
        without_proof = b"c=" + base64.b64encode(header + bound) + b",r=" + nonce
        signed = b",".join((bare, server_first, without_proof))
        signature = hmac.digest(hashlib.new(hashed, client_key).digest(), signed, hashed)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        said = wire.respond(without_proof + b",p=" + base64.b64encode(proof))
        if not said.startswith(b"+ "):
            return said
        # The server proves that it knows the password as well.
        server_key = hmac.digest(salted, b"Server Key", hashed)
        verdict = b"v=" + base64.b64encode(hmac.digest(server_key, signed, hashed))
        self.assertEqual(base64.b64decode(said[2:]), verdict)
        return wire.ask(b"")

    def test_another_implementation(self) -> None:
        """scramp, which knows tls-server-end-point alone, finds the binding in Python's own socket."""
        wire = self.implicit()
        mechanism = "SCRAM-SHA-256-PLUS"
        client = ScramClient([mechanism], "ann", "secret", channel_binding=("tls-server-end-point", wire.tls))
        first = base64.b64encode(client.get_client_first().encode())
        said = wire.ask(b"AUTH " + mechanism.encode() + b" " + first)
        client.set_server_first(base64.b64decode(said[2:]).decode())
        said = wire.respond(client.get_client_final().encode())
        client.set_server_final(base64.b64decode(said[2:]).decode())
        self.assertTrue(wire.ask(b"").startswith(b"+OK maildrop has 3"))

    def connect(self, version: int) -> OpenSSLWire:
        """A connection with this version of TLS."""
        wire = OpenSSLWire(self.tls_port)
        self.addCleanup(wire.close)
        wire.secure(version)
        self.assertTrue(wire.line().startswith(b"+OK "))
        return wire

    def test_bound(self) -> None:
        """Both mechanisms log in with tls-exporter (RFC 9266) and tls-server-end-point (RFC 5929)."""
        for version in (SSL.TLS1_3_VERSION, SSL.TLS1_2_VERSION):
            for mechanism in ("SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS"):
                kinds = ("tls-exporter", "tls-server-end-point")
                for kind in kinds if version == SSL.TLS1_3_VERSION else kinds[1:]:
                    wire = self.connect(version)
                    self.assertIn(mechanism.encode(), wire.sasl())
                    bound = wire.exporter() if kind == "tls-exporter" else wire.end_point()
                    said = self.scram(wire, mechanism, kind, bound)
                    self.assertTrue(said.startswith(b"+OK maildrop has"), (version, mechanism, kind, said))
                    self.assertTrue(wire.ask(b"QUIT").startswith(b"+OK"))
        self.assertIn("mechanism=SCRAM-SHA-256-PLUS tls=TLSv1.3", self.server.log)
        self.assertIn("mechanism=SCRAM-SHA-1-PLUS tls=TLSv1.2", self.server.log)

    def test_refused(self) -> None:
        """With TLS 1.2 tls-exporter proves nothing; who was told that the server cannot bind is turned away.

        RFC 5802 section 6.
        """
        for version, mechanism, said in (
            (SSL.TLS1_2_VERSION, b"SCRAM-SHA-256-PLUS ", b"p=tls-exporter,,n=ann,r=rOprNGfwEbeRWgbNEkqO"),
            (SSL.TLS1_3_VERSION, b"SCRAM-SHA-256 ", b"y,,n=ann,r=rOprNGfwEbeRWgbNEkqO"),
        ):
            answer = self.connect(version).ask(b"AUTH " + mechanism + base64.b64encode(said))
            self.assertTrue(answer.startswith(b"-ERR [AUTH]"), answer)

    def test_after_stls(self) -> None:
        """They are not offered in the clear, and work after STLS."""
        wire = OpenSSLWire(self.port)
        self.addCleanup(wire.close)
        wire.line()
        self.assertNotIn(b"SCRAM-SHA-256-PLUS", wire.sasl())
        self.assertEqual(wire.ask(b"STLS"), STLS)
        wire.secure(SSL.TLS1_3_VERSION)
        said = self.scram(wire, "SCRAM-SHA-256-PLUS", "tls-exporter", wire.exporter())
        self.assertTrue(said.startswith(b"+OK maildrop has"), said)

    def test_of_another_connection(self) -> None:
        """The proof of one connection is worth nothing on another: nobody can sit in the middle."""
        for kind in ("tls-exporter", "tls-server-end-point"):
            other = self.connect(SSL.TLS1_3_VERSION)
            wire = self.connect(SSL.TLS1_3_VERSION)
            bound = other.exporter() if kind == "tls-exporter" else bytes(32)
            said = self.scram(wire, "SCRAM-SHA-256-PLUS", kind, bound)
            self.assertTrue(said.startswith(b"-ERR [AUTH]"), said)

    def test_end_point_of_a_sha384_certificate(self) -> None:
        """The hash is the one of the certificate's own signature."""
        pair = self_signed("localhost", hashed=hashes.SHA384())
        pem = pair.write(self.folder / "sha384.pem")
        options = ("--tls-port=0", f"--certificate={pem}", "--channel-binding")
        with RealServer(*maildir_options(self.folder / "mail"), *options) as other:
            wire = OpenSSLWire(other.port_for("POP3 over TLS"))
            self.addCleanup(wire.close)
            wire.secure(SSL.TLS1_2_VERSION).line()
            self.assertEqual(len(wire.end_point()), 48)
            said = self.scram(wire, "SCRAM-SHA-256-PLUS", "tls-server-end-point", wire.end_point())
            self.assertTrue(said.startswith(b"+OK maildrop has"), said)
            wire.ask(b"QUIT")


class ClientCertificateTests(ServedCase):
    """EXTERNAL: TLS has shown who it is."""

    options = (
        "--certificate={folder}/localhost.pem",
        "--client-ca={folder}/people.crt",
        "--user=bob@example.org:other",
    )

    @classmethod
    def prepare(cls, folder: Path, authority: Authority) -> None:
        super().prepare(folder, authority)
        people = Authority(folder, "people")
        people.issue(common="ann").write(folder / "ann.pem")
        people.issue("bob@example.org", common="Bob Miller").write(folder / "bob.pem")
        people.issue(common="carl").write(folder / "carl.pem")
        authority.issue(common="ann").write(folder / "forged.pem")
        old = people.issue(common="ann", begins=timedelta(days=-9), ends=timedelta(days=-1))
        old.write(folder / "old.pem")

    def as_(self, name: str | None) -> ssl.SSLContext:
        """A client with this certificate."""
        context = trusting(self.authority)
        if name is not None:
            context.load_cert_chain(self.folder / f"{name}.pem")
        return context

    def test_external(self) -> None:
        """The common name of a verified certificate is the user, on either port; nobody else may be."""
        old = self.as_("ann")
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        for wire, name in (
            (self.encrypted(self.as_("ann")), b"="),
            (self.implicit(self.as_("ann")), base64.b64encode(b"ann")),
            (self.implicit(old), b"="),
        ):
            self.assertIn(b"EXTERNAL", wire.sasl())
            self.assertTrue(wire.ask(b"AUTH EXTERNAL " + base64.b64encode(b"bob")).startswith(b"-ERR [AUTH]"))
            self.assertTrue(wire.ask(b"AUTH EXTERNAL " + name).startswith(b"+OK maildrop has 3"))
            wire.ask(b"QUIT")
        self.assertIn("user='ann' mechanism=EXTERNAL tls=TLSv1.3", self.server.log)

    def test_mail_address(self) -> None:
        """A mail address goes before the common name; who has no maildrop opens none."""
        wire = self.implicit(self.as_("bob"))
        self.assertTrue(wire.ask(b"AUTH EXTERNAL =").startswith(b"-ERR [SYS/TEMP]"))
        self.assertIn("user='bob@example.org' mechanism=EXTERNAL", self.server.log)
        self.assertTrue(self.implicit(self.as_("carl")).ask(b"AUTH EXTERNAL =").startswith(b"-ERR "))

    def test_without(self) -> None:
        """Who shows no certificate is not offered EXTERNAL, and logs in as ever."""
        wire = self.implicit(self.as_(None))
        self.assertNotIn(b"EXTERNAL", wire.sasl())
        self.assertTrue(wire.ask(b"AUTH EXTERNAL =").startswith(b"-ERR "))
        self.log_in(wire)

    def test_bad_certificates(self) -> None:
        """A certificate of another authority, or an expired one, is refused by TLS itself."""
        for name in ("forged", "old"):
            with self.assertRaises((ssl.SSLError, ConnectionError)):
                # With TLS 1.3 the client learns of it when it reads.
                self.wire(self.tls_port).starttls(self.as_(name)).lines(b"CAPA")


class NameTests(ServedCase):
    """Several certificates, chosen by the name that the client asks for."""

    options = ("--certificates={folder}/names",)

    @classmethod
    def prepare(cls, folder: Path, authority: Authority) -> None:
        names = folder / "names"
        names.mkdir()
        authority.issue("mail.example.org", "pop.example.org").write(names / "a.pem")
        pair = authority.issue("mail.example.net")
        (names / "b.crt").write_bytes(pair.certificate)
        (names / "b.key").write_bytes(pair.key)
        pair = authority.issue("*.example.com")
        (names / "c").mkdir()
        (names / "c" / "fullchain.pem").write_bytes(pair.certificate)
        (names / "c" / "privkey.pem").write_bytes(pair.key)

    def names_shown_to(self, name: str | None) -> set[str]:
        """The host names in the certificate that a client gets who asks for this one."""
        context = trusting(self.authority, check_hostname=False)
        with self.implicit(context, name) as wire:
            certificate = wire.tls.getpeercert()
            assert certificate is not None
            return {str(value) for _, value in certificate["subjectAltName"]}  # type: ignore[str-unpack]

    def test_each_name(self) -> None:
        """Each name gets the certificate that fits it; any other name, and none, the first."""
        first = {"mail.example.org", "pop.example.org"}
        for asked, shown in (
            ("mail.example.org", first),
            ("pop.example.org", first),
            ("MAIL.example.net", {"mail.example.net"}),
            ("any.example.com", {"*.example.com"}),
            ("two.deep.example.com", first),
            ("nowhere.example", first),
            (None, first),
        ):
            self.assertEqual(self.names_shown_to(asked), shown, asked)

    def test_verified(self) -> None:
        """A client that verifies is content, after STLS too, and ALPN holds for each certificate."""
        for name in ("pop.example.org", "mail.example.net", "any.example.com"):
            context = trusting(self.authority)
            context.set_alpn_protocols(["pop3"])
            wire = self.encrypted(context, name)
            self.assertEqual(wire.tls.selected_alpn_protocol(), "pop3")
            context = trusting(self.authority)
            context.set_alpn_protocols(["h2"])
            with self.assertRaises(ssl.SSLError):
                self.wire(self.tls_port).starttls(context, name)


class AlpnTests(ServedCase):
    """Each port agrees on its own protocol, whichever certificate the client asks for."""

    options = (
        "--certificates={folder}/names",
        "--smtp-port=0",
        "--submission-port=0",
        "--submission-tls-port=0",
    )
    #: By what is spoken on a port: how TLS is begun there; ``None`` is from the first octet on.
    ports: ClassVar[dict[str, bytes | None]] = {
        "POP3": b"STLS",
        "POP3 over TLS": None,
        "SMTP": b"STARTTLS",
        "submission": b"STARTTLS",
        "submission over TLS": None,
    }

    @classmethod
    def prepare(cls, folder: Path, authority: Authority) -> None:
        (folder / "names").mkdir()
        authority.issue("localhost").write(folder / "names" / "a.pem")
        authority.issue("mail.example.net").write(folder / "names" / "b.pem")

    def agreed(self, what: str, offered: list[str], name: str) -> str | None:
        """What a client that offers these protocols agrees on with a port."""
        context = trusting(self.authority)
        if offered:
            context.set_alpn_protocols(offered)
        begin = self.ports[what]
        with self.wire(self.server.port_for(what)) as wire:
            if begin is not None:
                wire.line()
                if what != "POP3":
                    wire.ask(b"HELO client.example")
                self.assertTrue(wire.ask(begin).startswith((b"+OK", b"220")))
            wire.starttls(context, name)
            if begin is None:
                self.assertTrue(wire.line().startswith((b"+OK", b"220")))
            return wire.tls.selected_alpn_protocol()

    def test_each_port(self) -> None:
        """POP3's ports agree on ``pop3``; those of SMTP, which has no registered name, on what Exim takes."""
        for what in self.ports:
            own, others = (
                (["pop3"], ["smtp", "esmtp"]) if what.startswith("POP3") else (["smtp", "esmtp"], ["pop3"])
            )
            for name in ("localhost", "mail.example.net"):
                self.assertIsNone(self.agreed(what, [], name), what)
                for one in own:
                    self.assertEqual(self.agreed(what, [one], name), one, what)
                    self.assertEqual(self.agreed(what, ["http/1.1", one], name), one, what)
                self.assertEqual(self.agreed(what, own[::-1], name), own[0], what)
                for offered in (others, ["imap"], ["h2", "http/1.1"]):
                    with self.assertRaises(ssl.SSLError, msg=f"{what} {offered}") as raised:
                        self.agreed(what, offered, name)
                    self.assertIn(
                        "alert no application protocol", str(raised.exception).replace("_", " ").lower()
                    )


class ReloadTests(ServedCase):
    """Certificates come and go; sessions stay."""

    options = ("--certificate={folder}/localhost.pem", "--user=carl:third")

    @classmethod
    def prepare(cls, folder: Path, authority: Authority) -> None:
        super().prepare(folder, authority)
        for user in ("bob", "carl"):
            fill_maildir(folder / "mail" / user, awkward_messages(large=False)[:3])

    def serial(self, wire: Wire) -> int:
        """The serial number of the certificate that the server showed."""
        certificate = wire.tls.getpeercert()
        assert certificate is not None
        return int(str(certificate["serialNumber"]), 16)

    def hang_up(self, count: str) -> None:
        """Send SIGHUP, and wait until the log says so once more."""
        before = self.server.log.count(count)
        self.server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.server.log.count(count) > before, "the certificates are read again")

    def renew(self) -> int:
        """Put a new certificate into place; its serial number."""
        pair = self.authority.issue("localhost", "127.0.0.1")
        pair.write(self.folder / "localhost.pem")
        return pair.x509.serial_number

    def test_new_certificate(self) -> None:
        """After SIGHUP new connections get the new certificate, and old sessions go on."""
        old = self.implicit()
        self.log_in(old)
        serial = self.renew()
        self.hang_up("certificates reloaded")
        self.assertNotEqual(self.serial(old), serial)
        self.assertTrue(old.ask(b"STAT").startswith(b"+OK 3 "))
        for new in (self.implicit(), self.encrypted()):
            self.assertEqual(self.serial(new), serial)
        self.assertTrue(old.ask(b"QUIT").startswith(b"+OK"))

    def test_bad_certificates(self) -> None:
        """What cannot be used is told in one line, and the old one stays."""
        serial = self.renew()
        self.hang_up("certificates reloaded")
        path = self.folder / "localhost.pem"
        other, hour = self.authority.issue("localhost"), timedelta(hours=1)
        expired = self.authority.issue("localhost", begins=-2 * hour, ends=-hour)
        for content, why in (
            (expired.certificate + expired.key, "not now"),
            (self.authority.issue("localhost").certificate + other.key, "is not the key of this certificate"),
            (other.certificate + other.locked_key, "protected by a passphrase"),
            (other.certificate, "no private key"),
            (other.key, "no certificate"),
            (b"", "no certificate"),
            (None, "no such file"),
        ):
            path.unlink()
            if content is not None:
                path.write_bytes(content)
            else:
                self.addCleanup(self.renew)
            self.hang_up("certificates not reloaded, the old ones stay in use: ")
            self.assertIn(why, self.server.log.splitlines()[-1])
            self.assertEqual(self.serial(self.implicit()), serial)
            if content is None:
                path.touch()
        self.assertNotIn("Traceback", self.server.log)

    def test_under_load(self) -> None:
        """While clients fetch as fast as they can, ten reloads lose not one session and not one octet."""
        expected = stuffed(awkward_messages(large=False)[0].wire)
        context = trusting(self.authority)
        self.renew()
        self.hang_up("certificates reloaded")
        enough = threading.Event()
        failures: list[BaseException] = []
        sessions: list[int] = []

        def fetch(user: bytes, password: bytes) -> None:
            try:
                while not enough.is_set():
                    with Wire(self.tls_port) as wire:
                        wire.starttls(context).line()
                        for command in (b"CAPA", b"AUTH"):
                            wire.lines(command)
                        wire.ask(b"USER " + user)
                        said = wire.ask(b"PASS " + password)
                        assert said.startswith(b"+OK maildrop has 3"), said
                        assert wire.message(b"RETR 1") == expected
                        assert wire.ask(b"QUIT").startswith(b"+OK")
                        assert wire.rest() == b""
                    sessions.append(1)
            except BaseException as error:
                failures.append(error)

        stayer = self.implicit()
        self.log_in(stayer)
        clients = [
            threading.Thread(target=fetch, args=who) for who in ((b"carl", b"third"), (b"bob", b"other"))
        ]
        for client in clients:
            client.start()
        try:
            for _ in range(10):
                done = len(sessions)
                serial = self.renew()
                self.hang_up("certificates reloaded")
                wait_until(lambda done=done: len(sessions) > done + 2 or bool(failures), "sessions go on")
        finally:
            enough.set()
            for client in clients:
                client.join()
        self.assertEqual(failures, [])
        self.assertGreaterEqual(len(sessions), 20)
        self.assertTrue(stayer.ask(b"RETR 1").startswith(b"+OK "))
        self.assertEqual(self.serial(self.implicit()), serial)


class WithoutTests(SynchronousTestCase):
    """A server without a certificate."""

    def test_no_stls(self) -> None:
        """STLS is not offered and refused, and SIGHUP does not end the server."""
        root = Path(self.mktemp()).absolute()
        fill_maildir(root / "ann", [])
        with RealServer(*maildir_options(root)) as server, Wire(server.port) as wire:
            wire.line()
            self.assertNotIn(b"STLS", wire.lines(b"CAPA"))
            self.assertEqual(wire.ask(b"STLS"), b"-ERR TLS is not available here")
            server.process.send_signal(signal.SIGHUP)
            self.assertTrue(wire.lines(b"CAPA"))
            self.assertTrue(server.terminate())


class SelfSignedTests(SynchronousTestCase):
    """``--self-signed``."""

    def test_made_and_kept(self) -> None:
        """The certificate is for localhost, and the same one after a restart."""
        folder = Path(self.mktemp()).absolute()
        fill_maildir(folder / "mail" / "ann", [])
        shown = []
        for _ in range(2):
            with RealServer(
                *maildir_options(folder / "mail"), "--self-signed", "--tls-port=0", folder=folder
            ) as server:
                made = folder / ".local" / "share" / "pop3toy" / "localhost.pem"
                self.assertEqual(made.stat().st_mode & 0o777, 0o600)
                # Who tries TLS wants to tell a mail program which certificate to trust.
                self.assertIn(f"{made}; for trying only", server.log)
                context = ssl.create_default_context(cafile=str(made))
                with Wire(server.port_for("POP3 over TLS")) as wire:
                    wire.starttls(context)
                    self.assertTrue(wire.line().startswith(b"+OK "))
                    shown.append(wire.tls.getpeercert(binary_form=True))
        self.assertEqual(*shown)
