"""Conversation and log on one terminal: each line stands where it belongs, and none is lost."""

from __future__ import annotations

import re
import smtplib
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from twisted.trial.unittest import SynchronousTestCase

from ..realserver import DEADLINE, environment, maildir_options, twistd, wait_until
from ..strictclient import StrictClient

_LISTENS = re.compile(r"pop3toy listens for (\w+)(?: \(.*\))? on \S*:(\d+)\n")
#: What a line of the log begins with, up to its text.
_STAMP = re.compile(r"\A\d{4}-\d\d-\d\dT\S+ \[[^]]+\] ")


class Terminal:
    """``twistd -n pop3toy`` whose log goes where its conversation goes; a context manager.

    :param folder: for what it writes.
    :param options: of ``twistd pop3toy``.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self._out = folder / "terminal"
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(
                twistd("--nodaemon", f"--pidfile={folder}/twistd.pid", "pop3toy", *options),
                cwd=folder, env=environment(folder),
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def text(self) -> str:
        """All that stands there."""
        return self._out.read_text("utf-8")

    @property
    def lines(self) -> Sequence[str]:
        """The same line by line; those of the log begin with ``log:``."""
        return [_STAMP.sub("log: ", line) for line in self.text.splitlines()]

    def port(self, protocol: str) -> int:
        """The port at which it listens for this."""
        wait_until(lambda: protocol in dict(_LISTENS.findall(self.text)), f"it listens for {protocol}")
        return int(dict(_LISTENS.findall(self.text))[protocol])

    def end(self) -> None:
        """End it in good order."""
        self.process.terminate()
        self.process.wait(DEADLINE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)


class TerminalTests(SynchronousTestCase):
    """A real process on a terminal."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def test_delivered(self) -> None:
        """The log tells that a message is delivered between the dot that ended it and the answer."""
        with Terminal(self.folder, "--port=0", "--smtp-port=0") as terminal:
            with smtplib.SMTP("127.0.0.1", terminal.port("SMTP"), timeout=DEADLINE) as client:
                for number in range(20):
                    client.sendmail("bob@example.org", "ann@localhost", f"Subject: {number}\r\n\r\nx\r\n")
            terminal.end()
            lines = terminal.lines
        dots = [at for at, line in enumerate(lines) if line == "[1] C: ."]
        self.assertEqual(len(dots), 20)
        for dot in dots:
            following = "\n".join(lines[dot + 1 : dot + 4])
            self.assertRegex(
                following,
                r"\A\[1\] -- message of \d+ octets\n"
                r"log: delivered: id=(\w+) octets=\d+ from=<bob@example\.org> to=.*\n"
                r"\[1\] S: 250 2\.0\.0 delivered as \1\Z",
            )

    def test_login(self) -> None:
        """The log tells of a login between the password and the answer, and of the end behind the end."""
        (self.folder / "mail").mkdir()
        options = ["--port=0", "--create", "--transcript=-", *maildir_options(self.folder / "mail")]
        with Terminal(self.folder, *options) as terminal:
            for _ in range(20):
                with StrictClient(terminal.port("POP3")) as client:
                    client.login(b"ann", b"secret")
                    client.quit()
            terminal.end()
            lines = terminal.lines
        for number in range(1, 21):
            about = [one for one in lines if f"[{number}] " in one or f"session={number} " in one]
            words = [" ".join(one.split()[:3]) for one in about]
            self.assertEqual(
                words[4:],
                [
                    f"[{number}] C: PASS",
                    f"log: login: session={number}",
                    f"[{number}] S: +OK",
                    f"[{number}] C: QUIT",
                    f"[{number}] S: +OK",
                    f"[{number}] -- closed",
                    f"log: end: session={number}",
                ],
            )

    def test_end(self) -> None:
        """What is said at the end of the process stands there as well, behind all else."""
        with Terminal(self.folder, "--port=0") as terminal:
            with StrictClient(terminal.port("POP3")):
                terminal.end()
            lines = terminal.lines
        self.assertEqual(lines[-1], "log: Server Shut Down.")
        self.assertIn("[1] -- closed (shutdown: the server is stopping)", lines)

    def test_cannot_start(self) -> None:
        """Nothing is lost of a server that does not even start."""
        (self.folder / "mail").mkdir()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            options = [f"--port={taken.getsockname()[1]}", "--transcript=-"]
            with Terminal(self.folder, *options, *maildir_options(self.folder / "mail")) as terminal:
                self.assertEqual(terminal.process.wait(DEADLINE), 1)
                lines = terminal.lines
        self.assertTrue(lines[0].startswith("log: "), lines)
        self.assertTrue([one for one in lines if one.startswith("log: ") and "starting up" in one], lines)
        self.assertTrue(lines[-1].startswith("pop3toy: cannot listen"), lines)
