"""neomutt, whose GNU SASL chooses the mechanism: as Debian ships it, in the clear, with STLS and over TLS."""

from __future__ import annotations

import os
import re
from typing import ClassVar

from twisted.trial.unittest import SkipTest

from ..corpus import awkward_messages
from ..net.test_tls import ServedCase
from ..realserver import wait_until
from .mailclients import MailClient


class NeoMutt(MailClient):
    """neomutt with its own settings, but for what a terminal of nobody's needs."""

    program = package = "neomutt"
    #: How it connects: a URL's scheme, and whether it asks for STLS.
    scheme: str = "pop"
    starttls: str = "no"
    authority: str = ""

    def fetch(self, count: int, *, delete: bool = False, only_new: bool = False) -> list[bytes]:
        folder = self._private("spool", "")
        configuration = self._private(
            "neomuttrc",
            f"""
set pop_host="{self.scheme}://ann@localhost:{self.port}" pop_pass="secret" pop_delete=no
set ssl_starttls={self.starttls} ssl_force_tls=no ssl_ca_certificates_file="{self.authority}"
set spoolfile="{folder}" folder="{self.home}" record="" move=no
push <fetch-mail><quit>
""",
        )
        self._run_on_terminal("neomutt", "-n", "-F", str(configuration), "-f", os.devnull)
        return re.split(rb"^From \S+ \w+ \w+ .*\n", folder.read_bytes(), flags=re.MULTILINE)[1:]


class NeoMuttTests(ServedCase):
    """A server as it is without further options."""

    mechanism: ClassVar[str] = "SCRAM-SHA-256"

    def setUp(self) -> None:
        missing = NeoMutt.missing()
        if missing is not None:
            raise SkipTest(missing)
        super().setUp()

    def fetch(self, scheme: str, starttls: str, port: int, tls: str) -> None:
        """All messages arrive, by one session that ends with QUIT."""
        home = self.folder / f"home-{scheme}-{starttls}"
        home.mkdir()
        client = NeoMutt(port, home)
        client.scheme, client.starttls, client.authority = scheme, starttls, str(self.authority.file)
        expected = [message.wire.replace(b"\r\n", b"\n") for message in awkward_messages(large=False)[:3]]
        self.assertEqual([m.rstrip(b"\n") for m in expected], [m.rstrip(b"\n") for m in client.fetch(3)])
        form = re.compile(rf"end: .* mechanism={self.mechanism} tls={tls} ended=quit .*retrieved=3 ")
        wait_until(lambda: form.search(self.server.log) is not None, "a session that ended with QUIT")

    def test_in_the_clear(self) -> None:
        """Without TLS it logs in with SCRAM."""
        self.fetch("pop", "no", self.port, "none")

    def test_stls(self) -> None:
        """After STLS it does."""
        self.fetch("pop", "yes", self.port, r"TLSv1\.3")

    def test_tls(self) -> None:
        """Over TLS it does."""
        self.fetch("pops", "no", self.tls_port, r"TLSv1\.3")
