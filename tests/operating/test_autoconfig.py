"""docs/examples/autoconfig: settings that programs find by themselves, and the zone that leads to them."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import ssl
import threading
from pathlib import Path
from xml.etree import ElementTree

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ..clients.newcomer import Newcomer
from ..clients.thunderbird_process import missing
from ..folders import new_folder
from ..pages import CHECKOUT, page
from ..realserver import DEADLINE
from ..tls_world import Authority

FILE = CHECKOUT / "docs" / "examples" / "autoconfig" / "config-v1.1.xml"
UNIT = CHECKOUT / "docs" / "systemd" / "alone" / "pop3toy.socket"
HOST = "autoconfig.example.org"

#: What the format has in each element, of version 1.1, in order; ``*`` may come several times.
ELEMENTS = {
    "clientConfig": "emailProvider",
    "emailProvider": "domain displayName displayShortName incomingServer* outgoingServer*",
    "incomingServer": "hostname port socketType authentication username pop3",
    "outgoingServer": "hostname port socketType authentication username",
    "pop3": "leaveMessagesOnServer",
}


class FileTests(SynchronousTestCase):
    """What stands in the file."""

    def test_elements(self) -> None:
        """It has the elements of the format, in their places, and values that the format knows."""
        root = ElementTree.parse(FILE).getroot()
        self.assertEqual((root.tag, root.get("version")), ("clientConfig", "1.1"))
        for one in root.iter():
            inside = " ".join(child.tag for child in one)
            pattern = re.sub(r"(\w+)\*", r"(?:\1 ?)+", ELEMENTS.get(one.tag, ""))
            self.assertRegex(inside, rf"\A{pattern}\Z")
            if one.tag not in ELEMENTS:
                self.assertTrue((one.text or "").strip(), one.tag)
        known = {"socketType": {"SSL", "STARTTLS"}, "authentication": {"password-cleartext"}}
        for name, values in known.items():
            self.assertLessEqual({one.text for one in root.iter(name)}, values)

    def test_ports(self) -> None:
        """File and zone name the ports that the units open, each with the security that it has there."""
        root = ElementTree.parse(FILE).getroot()
        told = {
            (int(one.findtext("port") or 0), one.findtext("socketType")) for one in root.iter() if len(one)
        }
        told -= {(0, None)}
        self.assertEqual(told, {(995, "SSL"), (110, "STARTTLS"), (465, "SSL"), (587, "STARTTLS")})
        opened = {int(port) for port in re.findall(r"^ListenStream=(\d+)$", UNIT.read_text(), re.MULTILINE)}
        self.assertEqual({port for port, _ in told}, opened - {25})
        text = page("docs/operating.rst")
        zone = dict(re.findall(r"_(\w+)\._tcp\S+ +IN SRV +\d+ 1 (\d+) mail\.example\.org\.", text))
        self.assertEqual(zone, {"pop3s": "995", "pop3": "110", "submissions": "465", "submission": "587"})


class Web:
    """The web as a mail program sees it through a proxy: the file on its host, and nothing else.

    :ivar asked: the first lines of what was asked, behind TLS.
    """

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        pair = folder / "pair.pem"
        self.authority.issue(HOST).write(pair)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.asked: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """No more of it."""
        # Wakes the thread as well.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                client.settimeout(DEADLINE)
                threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            if not self._head(client).startswith(f"CONNECT {HOST}:443 ".encode()):
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            with self._context.wrap_socket(client, server_side=True) as encrypted:
                self.asked.append(self._head(encrypted).partition(b"\r\n")[0])
                body = FILE.read_bytes()
                head = f"Content-Type: text/xml\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                encrypted.sendall(b"HTTP/1.1 200 OK\r\n" + head.encode() + body)

    def _head(self, client: socket.socket) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head and (octets := client.recv(4096)):
            head += octets
        return head


class ThunderbirdTests(SynchronousTestCase):
    """Thunderbird, at its first start."""

    def test_found(self) -> None:
        """Who types an address has all settings: POP3 and SMTP over TLS, the address as the user's name."""
        if why := missing():
            raise SkipTest(why)
        folder = new_folder(self)
        web = Web(folder)
        self.addCleanup(web.close)
        proxy: dict[str, str | int | bool] = {"network.proxy.socks": ""}
        for kind in ("http", "ssl"):
            proxy |= {f"network.proxy.{kind}": "127.0.0.1", f"network.proxy.{kind}_port": web.port}
        with Newcomer(folder / "home", proxy) as newcomer:
            authority = ssl.PEM_cert_to_DER_cert(web.authority.file.read_text())
            newcomer.run(
                'Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB)'
                '.addCertFromBase64(arguments[0], "C,,");',
                base64.b64encode(authority).decode(),
            )
            newcomer.type("Full name", "Ann")
            newcomer.type("Email address", "ann@example.org")
            newcomer.press("Continue")
            newcomer.see("Account settings found automatically.")
            for words in ("POP3", "mail.example.org", "995", "465", "SSL/TLS", "ann@example.org"):
                newcomer.see(words)
        self.assertEqual(web.asked, [b"GET /mail/config-v1.1.xml?emailaddress=ann%40example.org HTTP/1.1"])
