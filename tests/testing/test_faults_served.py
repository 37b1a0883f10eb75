"""A server with the faults of a file: the file's mistakes, and TLS as a real client meets it."""

from __future__ import annotations

import contextlib
import os
import poplib
import socket
import ssl
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pop3toy import Settings
from pop3toy.config.settings import TLS
from pop3toy.errors import BadSetting, CannotStart
from pop3toy.run.process_context import single_process
from pop3toy.run.tls import server_tls
from pop3toy.testing.certificates import Authority
from pop3toy.testing.faults.file import read_faults
from pop3toy.testing.faults.server import assemble_with_faults, check_faults

from ..realserver import wait_until


class FileTests(SynchronousTestCase):
    """What is in a file, and the line of what cannot be."""

    def file(self, text: str) -> str:
        path = os.path.join(self.mktemp())
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def test_read(self) -> None:
        path = self.file(
            'seed = 7\n[[fault]]\nkind = "drop"\ncommand = ["RETR", "TOP"]\nnth = 2\noctets = 100\n'
            '[[fault]]\nkind = "slow"\nprobability = 0.5\n'
        )
        one, two = read_faults(path).faults
        self.assertEqual((one.kind, one.nth, sorted(one.commands)), ("drop", 2, ["RETR", "TOP"]))
        self.assertEqual((two.kind, two.probability), ("slow", 0.5))

    def test_mistakes(self) -> None:
        for text, line, about in (
            ("", None, ""),
            ('[[fault]]\nkind = "dorp"\n', 2, "did you mean 'drop'"),
            ('# faults\n\n[[fault]]\nkind = "drop"\n\n[[fault]]\nkind = "slow"\nrate = 0\n', 8, "too small"),
            ('[[fault]]\nkind = "drop"\noctet = 5\n', 3, "octets"),
            ("[[fault]]\nnth = 5\n", 1, "needs a kind"),
            ("[[fault]]\nkind = 5\n", 2, "needs a kind"),
            ('seed = 1\n[[faults]]\nkind = "drop"\n', 2, "'faults'"),
            ('seed = "x"\n', 1, "whole number"),
            ("\nauthority = 1\n", 2, "PEM"),
            ('[fault]\nkind = "drop"\n', 1, "[[fault]]"),
            ('fault = [{kind = "drop", nth = 0}]\n', 1, "from 1"),
            ("[[fault]\n", None, "not TOML"),
            (f"seed = {'9' * 5000}\n", None, "not TOML"),
            (f"seed = {'[' * 5000}\n", None, "not TOML"),
            (f"# {'x' * 2**20}\n", None, "more than 1 MiB"),
        ):
            path = self.file(text)
            if not about:
                self.assertEqual(len(read_faults(path).faults), 0)
                continue
            with self.assertRaises(CannotStart) as caught:
                read_faults(path)
            said = str(caught.exception)
            self.assertIn(about, said)
            self.assertTrue(said.startswith(f"{path}:{line}: " if line else f"{path}: "), said)

    def test_not_there(self) -> None:
        for text in (None, 'authority = "no-such.pem"\n'):
            path = self.mktemp() if text is None else self.file(text)
            with self.assertRaises(CannotStart) as caught:
                check_faults(path)
            self.assertIn("no such file", str(caught.exception))
        empty = self.file("")
        with self.assertRaises(CannotStart):
            check_faults(self.file(f'authority = "{os.path.basename(empty)}"\n'))

    def test_no_file(self) -> None:
        """What has no end is not read, nor waited for."""
        os.mkfifo(pipe := os.path.abspath(self.mktemp()))
        for path in ("/dev/zero", pipe):
            for given in (path, self.file(f'authority = "{path}"\n')):
                with self.assertRaises(CannotStart) as caught:
                    check_faults(given)
                self.assertEqual(str(caught.exception), f"{path}: this is no file")

    def test_not_with_workers(self) -> None:
        with self.assertRaises(BadSetting):
            Settings(faults="x.toml", workers=2)


class TLSTests(TestCase):
    """TLS that is wrong, from its first octet or behind STLS."""

    def setUp(self) -> None:
        self.authority = Authority()
        pem = self.authority.certificate()
        folder = self.mktemp()
        os.mkdir(folder)
        self.path = os.path.abspath(folder)
        self.write("server.pem", pem)
        self.write("ca.pem", self.authority.pem)
        self.write("authority.pem", self.authority.dump())
        self.trusting = ssl.create_default_context(cafile=os.path.join(self.path, "ca.pem"))

    def write(self, name: str, data: bytes) -> str:
        path = os.path.join(self.path, name)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def serve(self, faults: str) -> tuple[int, int]:
        """Start a server; its plain port and its TLS port."""
        text = f'authority = "authority.pem"\n{faults}'
        settings = Settings(
            port=0,
            tls_port=0,
            transcript=os.path.join(self.path, "transcript"),
            tls=TLS(certificate=os.path.join(self.path, "server.pem")),
            faults=self.write("faults.toml", text.encode()),
        )

        def cannot(why: CannotStart) -> None:
            raise why

        reactor: Any = installed
        context = single_process(settings, reactor, server_tls(settings.tls), cannot)
        service = assemble_with_faults(settings, reactor, context)
        service.startService()
        self.addCleanup(service.stopService)
        return tuple(one.address.port for one in service.listening)  # type: ignore[return-value]

    def transcript(self) -> str:
        with open(os.path.join(self.path, "transcript"), encoding="utf-8") as file:
            return file.read()

    def in_thread(self, call: Callable[..., object], *given: Any) -> Deferred[Any]:
        return deferToThread(call, *given)

    async def refused(self, kind: str, code: int) -> None:
        plain, tls = self.serve(
            f'[[fault]]\nkind = "{kind}"\nsession = 1\n[[fault]]\nkind = "{kind}"\nsession = 3\n'
        )

        def implicit() -> bytes:
            client = poplib.POP3_SSL("localhost", tls, context=self.trusting, timeout=10)
            return client.quit()

        def stls() -> bytes:
            client = poplib.POP3("localhost", plain, timeout=10)
            try:
                client.stls(self.trusting)
                return client.quit()
            finally:
                # Closed already where TLS did not come about.
                with contextlib.suppress(OSError):
                    client.close()

        for connect in (implicit, stls):
            with self.assertRaises(ssl.SSLCertVerificationError) as caught:
                await self.in_thread(connect)
            self.assertEqual(caught.exception.verify_code, code)
            self.assertRegex(await self.in_thread(connect), rb"\A\+OK")
        # A thread of its own writes it.
        await self.in_thread(
            wait_until, lambda: self.transcript().count("-- closed") == 4, "all sessions are written down"
        )
        self.assertEqual(self.transcript().count(f"fault {kind}"), 2)

    async def test_expired(self) -> None:
        await self.refused("tls-expired", 10)

    async def test_wrong_name(self) -> None:
        await self.refused("tls-wrong-name", 62)

    async def test_self_signed(self) -> None:
        await self.refused("tls-self-signed", 18)

    async def test_hangs(self) -> None:
        """The handshake has no end, and the client's patience has."""
        _, tls = self.serve('[[fault]]\nkind = "tls-hangs"\nnth = 1\n')

        def connect(timeout: float) -> bytes:
            return poplib.POP3_SSL("localhost", tls, context=self.trusting, timeout=timeout).quit()

        with self.assertRaises(TimeoutError):
            await self.in_thread(connect, 0.3)
        self.assertRegex(await self.in_thread(connect, 10), rb"\A\+OK")

    async def test_no_close_notify(self) -> None:
        """The end comes as an end of the stream, which Python's ssl tells from a proper one."""
        _, tls = self.serve('[[fault]]\nkind = "tls-no-close-notify"\nnth = 1\n')

        def last() -> str:
            with socket.create_connection(("localhost", tls), 10) as plain:
                secured = self.trusting.wrap_socket(
                    plain, server_hostname="localhost", suppress_ragged_eofs=False
                )
                secured.sendall(b"QUIT\r\n")
                try:
                    while secured.recv(1000):
                        pass
                except ssl.SSLEOFError:
                    return "ragged"
                return "proper"

        self.assertEqual([await self.in_thread(last) for _ in range(2)], ["ragged", "proper"])

    async def test_stls_refused(self) -> None:
        plain, _ = self.serve('[[fault]]\nkind = "stls-refused"\n')

        def stls() -> None:
            client = poplib.POP3("localhost", plain, timeout=10)
            self.assertIn("STLS", client.capa())
            try:
                with self.assertRaises(poplib.error_proto):
                    client.stls(self.trusting)
                client.user("user")
                client.pass_("pass")
            finally:
                client.close()

        await self.in_thread(stls)
