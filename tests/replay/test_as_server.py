"""``pop3toy replay --as-server``, a process of its own, and the clients that it is for."""

from __future__ import annotations

import base64
import contextlib
import poplib
import re
import shutil
import ssl
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ..realserver import DEADLINE, POP3TOY, environment, run_command
from ..tls_world import Authority

RECORDING = """\
[1] -- connected from 127.0.0.1:54514
[1] S: +OK ready <1@x>
[1] C: CAPA
[1] S: +OK
[1] S: UIDL
[1] S: STLS
[1] S: SASL CRAM-MD5
[1] S: .
[1] C: USER ann
[1] S: +OK
[1] C: PASS ****
[1] S: +OK
[1] C: STAT
[1] S: +OK 1 14
[1] C: RETR 1
[1] S: +OK 14 octets
[1] S: Subject: x
[1] S:
[1] S: .
[1] C: QUIT
[1] S: +OK bye
"""


class AsServerTests(SynchronousTestCase):
    """A client under test is answered as the recorded one was."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)

    def start(self, *options: str, recording: str = RECORDING, name: str = "recording") -> int:
        """Begin to serve one client: the port."""
        path = self.folder / name
        path.write_text(recording)
        self.process = subprocess.Popen(
            [*POP3TOY, "replay", "--as-server", "--once", *options, str(path), "127.0.0.1:0"],
            env={**environment(self.folder), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(self.process.kill)
        assert self.process.stdout is not None
        self.addCleanup(self.process.stdout.close)
        first = self.process.stdout.readline()
        found = re.fullmatch(r"plays the server's side on 127\.0\.0\.1:(\d+); Ctrl-C ends it\n", first)
        assert found is not None, first
        return int(found[1])

    def ended(self) -> tuple[int, str]:
        """The exit status when the client has gone, and what was said."""
        said, _ = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, said

    def test_poplib(self) -> None:
        """What poplib does not say is skipped, and told; no password is."""
        port = self.start()
        with contextlib.closing(poplib.POP3("127.0.0.1", port, timeout=20)) as client:
            client.user("somebody")
            client.pass_("open sesame")
            self.assertEqual(client.stat(), (1, 14))
            self.assertEqual(client.retr(1)[1], [b"Subject: x", b""])
            with self.assertRaises(poplib.error_proto):
                client.uidl()
            client.quit()
        status, said = self.ended()
        self.assertEqual(status, 1)
        self.assertIn(" - C: CAPA\n + C: USER somebody\n   S: +OK\n   C: PASS ****\n", said)
        self.assertIn(" - C: QUIT\n + C: UIDL\n   S: -ERR this is not in the recording\n", said)
        self.assertNotIn("sesame", said)

    def test_as_recorded(self) -> None:
        """A client that says the same, within TLS, ends with status 0; --quiet shows nothing of it."""
        authority = Authority(self.folder)
        pem = authority.issue("localhost", "127.0.0.1").write(self.folder / "pair.pem")
        recording = RECORDING.replace("[1] C: USER", "[1] C: STLS\n[1] S: +OK\n[1] C: USER")
        port = self.start(f"--certificate={pem}", "--quiet", recording=recording)
        with contextlib.closing(poplib.POP3("localhost", port, timeout=20)) as client:
            # Which asks for CAPA first.
            client.stls(ssl.create_default_context(cafile=authority.file))
            client.user("ann")
            client.pass_("x")
            client.stat()
            client.retr(1)
            client.quit()
        status, said = self.ended()
        self.assertEqual(
            (status, [line[:12] for line in said.splitlines()]), (0, ["   -- connec", "   -- closed"])
        )

    def test_long_replies(self) -> None:
        """What is not shown of a reply, in lines or within one, is told."""
        listing = "".join(f"[1] S: {number} 7\n" for number in range(1, 99))
        recording = RECORDING.replace(
            "[1] C: STAT", f"[1] C: LIST\n[1] S: +OK\n{listing}[1] S: .\n[1] C: STAT"
        )
        port = self.start(
            recording=recording.replace("+OK ready", "+OK").replace("+OK bye", "+OK " + "x" * 999)
        )
        with contextlib.closing(poplib.POP3("127.0.0.1", port, timeout=20)) as client:
            client.user("ann")
            client.pass_("x")
            self.assertEqual(len(client.list()[1]), 98)
            client.quit()
        _, said = self.ended()
        self.assertIn("   S: 7 7\n   S: ...\n", said)
        self.assertIn(f"   S: +OK {'x' * 196}... (803 more)\n", said)

    def test_curl(self) -> None:
        """curl fetches by what the recorded client was told."""
        curl = shutil.which("curl")
        if curl is None:
            raise SkipTest("curl is not installed")
        port = self.start(recording=RECORDING.replace("[1] S: SASL CRAM-MD5\n", "[1] S: USER\n"))
        done = run_command(
            curl, "--silent", "--user", "ann:open sesame", f"pop3://127.0.0.1:{port}/1", folder=self.folder
        )
        self.assertEqual((done.returncode, done.stdout), (0, "Subject: x\n\n"))
        status, said = self.ended()
        self.assertEqual(status, 1)
        self.assertIn(" - C: STAT\n + C: RETR 1\n", said)
        self.assertNotIn("sesame", said)

    def test_challenge(self) -> None:
        """A challenge that the recording masks is one in base64, and any answer to it is right."""
        recording = re.sub(
            r"(?s)\[1\] C: USER.*PASS \*{4}\n",
            "[1] C: AUTH CRAM-MD5\n[1] S: + ****\n[1] C: ****\n",
            RECORDING,
        )
        port = self.start(recording=recording)
        with contextlib.closing(poplib.POP3("127.0.0.1", port, timeout=20)) as client:
            client.capa()
            client._putcmd("AUTH CRAM-MD5")  # type: ignore[attr-defined]
            challenge = client._getline()[0]  # type: ignore[attr-defined]
            self.assertRegex(base64.b64decode(challenge.removeprefix(b"+ "), validate=True), rb"\A<.*>\Z")
            client._shortcmd("YW5uIHg=")  # type: ignore[attr-defined]
            client.stat()
            client.retr(1)
            client.quit()
        status, said = self.ended()
        self.assertEqual(status, 0, said)
        self.assertNotIn("YW5uIHg=", said)

    def test_rawlog(self) -> None:
        """A recording that begins behind the login takes any."""
        (self.folder / "a.out").write_bytes(b"1.123450 +OK Logged in.\r\n1.123457 +OK 0 0\r\n")
        port = self.start(recording="1.123456 STAT\n", name="a.in")
        with contextlib.closing(poplib.POP3("127.0.0.1", port, timeout=20)) as client:
            self.assertRegex(client.getwelcome(), rb"\A\+OK")
            client.user("ann")
            self.assertEqual(client.pass_("x"), b"+OK Logged in.")
            self.assertEqual(client.stat(), (0, 0))
            client.quit()
        status, said = self.ended()
        self.assertEqual(status, 0, said)

    def test_cannot(self) -> None:
        """A port that is taken, a certificate that is none: one line, and status 2."""
        port = self.start()
        path = str(self.folder / "recording")
        for options, about in (
            ((f"127.0.0.1:{port}",), f"127.0.0.1:{port}: Address already in use"),
            (("127.0.0.1:0", f"--certificate={path}"), "no certificate and key"),
            (("127.0.0.1:0", "--certificate=none"), "--certificate none: No such file"),
        ):
            done = run_command(*POP3TOY, "replay", "--as-server", path, *options, folder=self.folder)
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            self.assertRegex(done.stderr, r"\AError: [^\n]*\n\Z")
            self.assertIn(about, done.stderr)
