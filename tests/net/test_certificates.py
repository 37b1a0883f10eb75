"""Certificates and keys as files: what is taken, what is refused in which words, and when they are reread."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from cryptography import x509
from OpenSSL import SSL
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.net.tls.certificate_files import BadCertificate, CertificateFiles, Material, files_in_folder
from pop3toy.net.tls.contexts import GivenTLS, ServerTLS

from ..tls_world import Authority, Pair, self_signed

HOUR = timedelta(hours=1)


class FilesCase(SynchronousTestCase):
    """A folder, an authority, and one good pair in ``good.pem``."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.authority = Authority(self.folder)
        self.pair = self.authority.issue("localhost")
        self.path = self.pair.write(self.folder / "good.pem")

    def write(self, name: str, content: bytes) -> str:
        """A file with this content; its path."""
        (self.folder / name).write_bytes(content)
        return str(self.folder / name)

    def load(self, certificate: str | Path, key: str | Path | None = None) -> ServerTLS:
        """A server's TLS with these files."""
        return ServerTLS(lambda: [CertificateFiles(str(certificate), str(key or certificate))])

    def assert_refused(self, why: str, certificate: str | Path, key: str | Path | None = None) -> None:
        """The files are refused in one line that names a file of them and says why."""
        refused = self.assertRaises(BadCertificate, self.load, certificate, key)
        self.assertEqual(len(str(refused).splitlines()), 1)
        self.assertIn(why, str(refused))
        self.assertTrue(str(refused).startswith((str(certificate), str(key))), refused)

    def shown(self, tls: ServerTLS, name: str | None = None) -> int:
        """The serial number of the certificate that a client gets who asks for a name."""
        client = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
        if name is not None:
            client.set_tlsext_host_name(name.encode())
        client.set_connect_state()
        server = tls.serverConnectionForTLS(None)  # type: ignore[arg-type]
        server.set_accept_state()
        for _ in range(4):
            for speaker, listener in ((client, server), (server, client)):
                try:
                    speaker.do_handshake()
                except SSL.WantReadError:
                    pass
                try:
                    listener.bio_write(speaker.bio_read(65536))
                except SSL.WantReadError:
                    pass
        return cast(x509.Certificate, client.get_peer_certificate(as_cryptography=True)).serial_number


class LoadTests(FilesCase):
    """What is taken and what is not."""

    def test_one_file(self) -> None:
        """Certificate and key in one file, in either order."""
        self.assertEqual(self.shown(self.load(self.path)), self.pair.x509.serial_number)
        turned = self.write("turned.pem", self.pair.key + self.pair.certificate)
        self.assertEqual(self.shown(self.load(turned)), self.pair.x509.serial_number)

    def test_two_files(self) -> None:
        """Certificate and key in two files, the chain behind the certificate."""
        chain = self.pair.certificate + self.authority.file.read_bytes()
        tls = self.load(self.write("a.crt", chain), self.write("a.key", self.pair.key))
        self.assertEqual(self.shown(tls), self.pair.x509.serial_number)

    def test_expired(self) -> None:
        """An expired certificate is refused, with its dates."""
        old = self.authority.issue("localhost", begins=-2 * HOUR, ends=-HOUR)
        self.assert_refused(
            f"to {datetime.now(UTC) - HOUR:%Y-%m-%d}, not now", old.write(self.folder / "o.pem")
        )

    def test_not_yet(self) -> None:
        """One that is not valid yet as well."""
        early = self.authority.issue("localhost", begins=HOUR, ends=2 * HOUR)
        self.assert_refused("not now", early.write(self.folder / "e.pem"))

    def test_clock(self) -> None:
        """The time is the one that was passed in."""
        files = [CertificateFiles(str(self.path), str(self.path))]
        later = datetime.now(UTC) + timedelta(days=400)
        self.assertRaises(BadCertificate, ServerTLS, lambda: files, now=lambda: later)

    def test_mismatched(self) -> None:
        """Another certificate's key is refused, and both files are named."""
        other = self.write("other.key", self.authority.issue("localhost").key)
        self.assert_refused(f"{other} is not the key of this certificate", self.path, other)

        curve = self.write("curve.key", self.pair.key)
        rsa = self.authority.issue("localhost", rsa=True).write(self.folder / "rsa.pem")
        self.assert_refused(f"{curve} is not the key of this certificate", rsa, curve)

    def test_what_openssl_objects_to(self) -> None:
        """A key that is too short is called that, not another certificate's."""
        short = self_signed("localhost", bits=1024).write(self.folder / "short.pem")
        self.assert_refused("short.pem: OpenSSL does not take it: ee key too small", short)

    def test_handed_on(self) -> None:
        """What was read can be handed on in one piece, and serves without the files, also past its time."""
        files = [CertificateFiles(str(self.path), str(self.path))]
        tls = ServerTLS(lambda: files, client_authorities=str(self.authority.file))
        self.path.write_bytes(b"")
        material = Material.load(tls.in_use.dump())
        self.assertEqual(material, tls.in_use)
        self.assertEqual(self.shown(GivenTLS(material)), self.pair.x509.serial_number)  # type: ignore[arg-type]
        old = self.authority.issue("localhost", begins=-2 * HOUR, ends=-HOUR)
        [pair] = material.pairs
        expired = material._replace(pairs=(pair._replace(certificate=old.certificate, key=old.key),))
        self.assertEqual(self.shown(GivenTLS(expired)), old.x509.serial_number)  # type: ignore[arg-type]

    def test_passphrase(self) -> None:
        """A protected key is refused in these words, instead of asking on a terminal."""
        locked = self.write("locked.key", self.pair.locked_key)
        self.assert_refused(f"{locked}: the key is protected by a passphrase", self.path, locked)

    def test_missing(self) -> None:
        """A file that is not there is named."""
        self.assert_refused("nowhere.pem: no such file or directory", self.folder / "nowhere.pem")
        self.assert_refused("nowhere.key: no such file", self.path, self.folder / "nowhere.key")

    def test_nothing_in_it(self) -> None:
        """A file with something else in it is told apart: no certificate, no key."""
        junk = self.write("junk", b"hello\n")
        self.assert_refused("junk: no certificate in PEM in it", junk)
        self.assert_refused("junk: no private key in PEM in it", self.path, junk)
        broken = self.write("broken.pem", self.pair.certificate.replace(b"M", b"!", 5))
        self.assert_refused("no certificate", broken)

    def test_folder_in_place_of_a_file(self) -> None:
        """A folder is no file."""
        self.assert_refused("is a directory", self.folder)

    def test_client_authorities(self) -> None:
        """The file of authorities is held to the same."""
        files = [CertificateFiles(str(self.path), str(self.path))]
        ServerTLS(lambda: files, client_authorities=str(self.authority.file))
        junk = self.write("junk", b"hello\n")
        refused = self.assertRaises(BadCertificate, ServerTLS, lambda: files, client_authorities=junk)
        self.assertIn("no certificate in PEM", str(refused))

    def test_no_secret_in_the_text(self) -> None:
        """What is said of a key never repeats it."""
        key = self.pair.key.replace(b"BEGIN", b"BEGUN")
        refused = self.assertRaises(BadCertificate, self.load, self.path, self.write("bad.key", key))
        for line in key.decode().splitlines():
            self.assertNotIn(line, str(refused))


class FolderTests(FilesCase):
    """Many certificates."""

    def test_three_forms(self) -> None:
        """NAME.pem, NAME.crt with NAME.key, and folders as ACME clients make them; nothing else."""
        names = self.folder / "names"
        for name in ("d", "empty"):
            (names / name).mkdir(parents=True)
        for name in (
            "b.pem",
            "c.crt",
            "c.key",
            "d/fullchain.pem",
            "d/privkey.pem",
            "lonely.crt",
            "README",
            "e.key",
        ):
            (names / name).touch()
        self.assertEqual(
            files_in_folder(str(names)),
            [
                CertificateFiles(f"{names}/b.pem", f"{names}/b.pem"),
                CertificateFiles(f"{names}/c.crt", f"{names}/c.key"),
                CertificateFiles(f"{names}/d/fullchain.pem", f"{names}/d/privkey.pem"),
            ],
        )

    def test_none(self) -> None:
        """A folder without any, and one that is not there, are refused."""
        empty = self.folder / "empty"
        empty.mkdir()
        self.assertIn("NAME.pem", str(self.assertRaises(BadCertificate, files_in_folder, str(empty))))
        self.assertRaises(BadCertificate, files_in_folder, str(self.folder / "nowhere"))

    def test_chosen_by_name(self) -> None:
        """The name decides; the exact one goes before the wildcard, the first is for all others.

        A dot at the end of a name makes no difference.
        """
        pairs = {
            name: self.authority.issue(*names)
            for name, names in {
                "a": ["first.example"],
                "b": ["*.example.org"],
                "c": ["mail.example.org", "Pop.Example.NET"],
                "d": ["rooted.example."],
            }.items()
        }
        paths = [str(pair.write(self.folder / f"{name}.pem")) for name, pair in pairs.items()]
        tls = ServerTLS(lambda: [CertificateFiles(path, path) for path in paths])
        for asked, name in (
            ("first.example", "a"),
            ("mail.example.org", "c"),
            ("other.example.org", "b"),
            ("example.org", "a"),
            ("POP.example.net", "c"),
            ("Mail.example.org.", "c"),
            ("other.example.org.", "b"),
            ("rooted.example", "d"),
            ("rooted.example.", "d"),
            ("x", "a"),
            (None, "a"),
        ):
            self.assertEqual(self.shown(tls, asked), pairs[name].x509.serial_number, asked)

    def test_common_name(self) -> None:
        """A certificate without alternative names is known by its common name."""
        old = self_signed("old.example.org")
        paths = [str(self.path), str(old.write(self.folder / "old.pem"))]
        tls = ServerTLS(lambda: [CertificateFiles(path, path) for path in paths])
        self.assertEqual(self.shown(tls, "old.example.org"), old.x509.serial_number)


class ReloadTests(FilesCase):
    """When files are read again."""

    def setUp(self) -> None:
        super().setUp()
        self.tls = self.load(self.path)

    def renew(self) -> Pair:
        """Another certificate in the same place."""
        pair = self.authority.issue("localhost")
        pair.write(self.path)
        return pair

    def reload(self, *, told: bool = True) -> list[str]:
        """Read again, at once or if something has changed; what the log says."""
        with capturedLogs() as events:
            (self.tls.reload if told else self.tls.reload_if_changed)()
        return [formatEvent(event) or "" for event in events]

    def test_told(self) -> None:
        """When told, the new one is used."""
        new = self.renew()
        self.assertEqual(self.shown(self.tls), self.pair.x509.serial_number)
        self.assertEqual(self.reload(), ["certificates reloaded"])
        self.assertEqual(self.shown(self.tls), new.x509.serial_number)

    def test_changed(self) -> None:
        """A look finds the change, once, and no change where there is none."""
        self.assertEqual(self.reload(told=False), [])
        new = self.renew()
        self.assertEqual(self.reload(told=False), ["certificates reloaded"])
        self.assertEqual(self.shown(self.tls), new.x509.serial_number)
        self.assertEqual(self.reload(told=False), [])

    def test_broken(self) -> None:
        """What cannot be used is told once for each change, and the old one stays until it is repaired."""
        self.path.write_bytes(b"")
        [said] = self.reload(told=False)
        self.assertTrue(
            said.startswith(f"certificates not reloaded, the old ones stay in use: {self.path}: ")
        )
        self.assertEqual(self.reload(told=False), [])
        self.assertEqual(len(self.reload()), 1)
        self.assertEqual(self.shown(self.tls), self.pair.x509.serial_number)
        os.unlink(self.path)
        self.assertIn("no such file", self.reload(told=False)[0])
        new = self.renew()
        self.assertEqual(self.reload(told=False), ["certificates reloaded"])
        self.assertEqual(self.shown(self.tls), new.x509.serial_number)

    def test_one_of_many(self) -> None:
        """If one pair of several is broken, all stay as they were: never a server for half of its names."""
        other = self.authority.issue("other.example").write(self.folder / "other.pem")
        paths = [str(self.path), str(other)]
        self.tls = ServerTLS(lambda: [CertificateFiles(path, path) for path in paths])
        self.renew()
        other.write_bytes(b"")
        self.assertIn("not reloaded", self.reload(told=False)[0])
        self.assertEqual(self.shown(self.tls), self.pair.x509.serial_number)

    def test_folder_changes(self) -> None:
        """A file that appears in a folder is found; a folder that is gone is told once, and hurts nobody."""
        names = self.folder / "names"
        names.mkdir()
        first = self.authority.issue("a.example")
        first.write(names / "a.pem")
        self.tls = ServerTLS(lambda: files_in_folder(str(names)))
        second = self.authority.issue("b.example")
        second.write(names / "b.pem")
        self.assertEqual(self.reload(told=False), ["certificates reloaded"])
        self.assertEqual(self.shown(self.tls, "b.example"), second.x509.serial_number)
        names.rename(self.folder / "away")
        self.assertIn("not reloaded", self.reload(told=False)[0])
        self.assertEqual(self.reload(told=False), [])
        self.assertEqual(self.shown(self.tls, "b.example"), second.x509.serial_number)

    def test_open_connections(self) -> None:
        """A connection that was made before a reload is not touched by it."""
        connection = self.tls.serverConnectionForTLS(None)  # type: ignore[arg-type]
        context = connection.get_context()
        self.renew()
        self.reload()
        self.assertIs(connection.get_context(), context)
        self.assertIsNot(self.tls.serverConnectionForTLS(None).get_context(), context)  # type: ignore[arg-type]
