"""The certificate for trying: made once, kept, made again before it expires."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.net.tls.contexts import ServerTLS
from pop3toy.net.tls.self_signed import VALID, self_signed

from ..store_world import unprivileged


class SelfSignedTests(SynchronousTestCase):
    """A folder that is not there yet."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute() / "deep" / "down"

    def made(self, now: datetime | None = None) -> x509.Certificate:
        """The certificate that is there after asking for it."""
        files = self_signed(str(self.folder), now)
        return x509.load_pem_x509_certificate(Path(files.certificate).read_bytes())

    def test_made(self) -> None:
        """It is for localhost and both loopback addresses, and a server can use it."""
        certificate = self.made()
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["localhost"])
        self.assertEqual(
            [str(one) for one in names.get_values_for_type(x509.IPAddress)], ["127.0.0.1", "::1"]
        )
        ServerTLS(lambda: [self_signed(str(self.folder))])

    def test_private(self) -> None:
        """Folder and key are their owner's alone, and nothing else is left there."""
        self.made()
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o700)
        self.assertEqual(os.listdir(self.folder), ["localhost.pem"])
        self.assertEqual(stat.S_IMODE((self.folder / "localhost.pem").stat().st_mode), 0o600)

    def test_kept(self) -> None:
        """Asked again, it is the same."""
        self.assertEqual(self.made(), self.made())

    def test_renewed(self) -> None:
        """A month before it expires another one takes its place, and not before."""
        now = datetime.now(UTC)
        first = self.made(now)
        self.assertEqual(self.made(now + VALID - timedelta(days=31)), first)
        second = self.made(now + VALID - timedelta(days=29))
        self.assertNotEqual(second, first)
        self.assertGreater(second.not_valid_after_utc, first.not_valid_after_utc)

    def test_broken(self) -> None:
        """Something else in its place is replaced."""
        self.made()
        (self.folder / "localhost.pem").write_bytes(b"hello")
        self.made()

    def test_nowhere(self) -> None:
        """Where it cannot be written it is an error of the system's, with its reason."""
        self.folder.parent.parent.mkdir()
        self.folder.parent.write_text("a file")
        self.assertRaises(OSError, self_signed, str(self.folder))

    def test_not_allowed(self) -> None:
        """So it is where one may not write."""
        self.folder.mkdir(parents=True, mode=0o500)
        with unprivileged():
            self.assertRaises(PermissionError, self_signed, str(self.folder))
