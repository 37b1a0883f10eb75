"""A rawlog that Dovecot, where it is installed, has written: played to itself, and to this server."""

from __future__ import annotations

import contextlib
import os
import poplib
import pwd
from pathlib import Path

from pop3toy.testing import running_server

from ..dovecot_world import PASSWORD, USER, DovecotCase
from ..realserver import POP3TOY, run_command, wait_until


class DovecotTests(DovecotCase):
    """Dovecot writes down each session behind its login."""

    configuration = "protocol pop3 {{\n  rawlog_dir = {root}/rawlog\n}}\n"

    def fill(self) -> None:
        """Mail, and a folder for the log."""
        super().fill()
        folder, owner = self.root / "rawlog", pwd.getpwnam("nobody")
        folder.mkdir()
        os.chown(folder, owner.pw_uid, owner.pw_gid)

    def test_rawlog(self) -> None:
        """Its answer to the login is none to the first command; what was marked is not removed."""
        with contextlib.closing(poplib.POP3("127.0.0.1", self.port, timeout=20)) as client:
            client.user(USER)
            client.pass_(PASSWORD)
            client.stat()
            client.uidl()
            client.retr(2)
            client.dele(2)
            client.rset()
            # What is marked when the connection is lost stays where it is.
            client.dele(1)
        [logged] = (self.root / "rawlog").glob("*.in")
        wait_until(lambda: b"DELE 1" in logged.read_bytes(), "the session is written down")
        password = self.root / "password"
        password.write_text(PASSWORD)

        def replay(path: Path, port: int, *options: str) -> tuple[int, str]:
            words = ("replay", path, f"localhost:{port}", f"--user={USER}", f"--password-file={password}")
            done = run_command(*POP3TOY, *words, *options, folder=self.root / "home")
            return done.returncode, done.stdout + done.stderr

        for path in (logged, logged.with_suffix(".out")):
            status, said = replay(path, self.port, "--exact")
            self.assertIn("S: +OK Logged in.\n", said)
            self.assertIn("9 replies, all as recorded\n", said)
            self.assertEqual(status, 0)
        messages = [one.decode() for one in self.messages]
        with running_server({USER: messages}, {USER: PASSWORD}) as server:
            status, said = replay(logged, server.port)
            self.assertIn("1 of 9 replies differ, the first behind UIDL\n", said)
            self.assertEqual(status, 1)
