"""The log of real servers: its file, JSON, levels, workers, a full disk, another user."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.logger import eventsFromJSONLogFile, formatEvent
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ...corpus import make_maildir
from ...folders import new_folder
from ...realserver import (
    DEADLINE,
    POP3TOY,
    RealServer,
    ServerDied,
    environment,
    free_port,
    maildir_options,
    run_command,
    text_of,
    twistd,
    wait_until,
)
from ...store_world import tmpfs
from ...strictclient import Refused, StrictClient


class LogCase(SynchronousTestCase):
    """A server with one user, and a log of its own."""

    def setUp(self) -> None:
        self.folder = new_folder(self)
        make_maildir(self.folder / "mail" / "ann")
        self.path = self.folder / "pop3toy.log"
        self.options = [*maildir_options(self.folder / "mail"), f"--log-file={self.path}"]

    def start(self, *options: str, own_options: tuple[str, ...] = ()) -> RealServer:
        """Start it."""
        server = RealServer(*self.options, *options, folder=self.folder, own_options=own_options)
        self.addCleanup(server.terminate)
        return server

    def log_in(self, port: int) -> None:
        """One session."""
        with StrictClient(port) as client:
            client.login()
            client.quit()

    def ended(self, path: Path, sessions: int = 1) -> None:
        """Wait until so many ends are in the file."""
        wait_until(lambda: text_of(path).count(" end: ") == sessions, "the end is told")

    def rename(self, server: RealServer, number: int) -> Path:
        """Rename the file, and tell the server; gives the old one."""
        old = self.path.with_suffix(".1")
        self.path.rename(old)
        server.process.send_signal(number)
        return old


class FileTests(LogCase):
    """``--log-file``."""

    def test_reopened(self) -> None:
        """At SIGUSR1 and at SIGHUP log and transcripts go on in the files that have the names now."""
        said, objects = self.folder / "said", self.folder / "objects"
        server = self.start(f"--transcript={said}", f"--transcript-json={objects}")
        port = server.port
        ends = ((self.path, " end: "), (said, "-- closed"), (objects, '"Ended"'))

        def one_session() -> None:
            self.log_in(port)
            for path, end in ends:
                wait_until(
                    lambda path=path, end=end: path.exists() and path.read_text().count(end) == 1,  # type: ignore[misc]
                    f"one session in {path}",
                )

        one_session()
        for number in (signal.SIGUSR1, signal.SIGHUP):
            for path, _ in ends:
                path.rename(path.with_suffix(".old"))
            server.process.send_signal(number)
            for path, _ in ends:
                wait_until(path.exists, f"{path} is there again")
            one_session()
            for path, end in ends:
                self.assertEqual(path.with_suffix(".old").read_text().count(end), 1)

    def test_workers(self) -> None:
        """Workers open the transcripts again that they write to."""
        said = self.folder / "said"
        server = self.start(f"--transcript={said}", "--workers=2")
        port = server.port
        for _ in range(8):
            self.log_in(port)
        wait_until(lambda: text_of(said).count("-- closed") == 8, "all sessions are written down")
        said.rename(said.with_suffix(".old"))
        server.process.send_signal(signal.SIGHUP)
        wait_until(said.exists, "it is there again")
        # The other worker hears of it a moment later.
        wait_until(lambda: self.goes_on(port, said), "all goes there")
        self.assertEqual(server.log.count(" end: "), server.log.count(" login: "))

    def goes_on(self, port: int, said: Path) -> bool:
        """Eight more sessions; whether all of them are in this file."""
        before = text_of(said).count("-- closed")
        for _ in range(8):
            self.log_in(port)
        wait_until(
            lambda: (said.read_text() + said.with_suffix(".old").read_text()).count("-- closed") % 8 == 0,
            "they are written down",
        )
        return text_of(said).count("-- closed") == before + 8

    def test_not_to_be_opened(self) -> None:
        """A file that cannot be opened again is told in the old one, which is gone on with."""
        server = self.start()
        port = server.port
        old = self.rename(server, signal.SIGCONT)
        self.path.mkdir()
        server.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "goes on in the old file, since" in text_of(old), "it is told")
        self.log_in(port)
        self.ended(old)
        self.path.rmdir()
        server.process.send_signal(signal.SIGUSR1)
        wait_until(self.path.exists, "it is there again")
        self.log_in(port)
        self.ended(self.path)

    def test_full_disk(self) -> None:
        """A full disk costs lines, says so on standard error, and harms no session; later it goes on."""
        with tmpfs("size=64k") as root:
            self.path, other = root / "log", root / "other"
            self.options[-1] = f"--log-file={self.path}"
            server = self.start("--log-format=json")
            port = server.port
            with other.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(512))
                except OSError:
                    pass
            wait_until(lambda: self.filled(server, port), "the log is full")
            for _ in range(3):
                self.log_in(port)
            other.unlink()
            # It is tried again after some seconds, with the next line.
            wait_until(lambda: self.again(port), "it goes on", pause=0.5)
            lines = self.path.read_text().splitlines()
            server.terminate()
        self.assertTrue(any("lines of the log are lost" in line and json.loads(line) for line in lines))

    def filled(self, server: RealServer, port: int) -> bool:
        """One more session; whether standard error says that its lines cannot be written."""
        self.log_in(port)
        return f"pop3toy: the log is not written to {self.path}: No space left on device" in server.words

    def again(self, port: int) -> bool:
        """One more session; whether the log says that it goes on."""
        self.log_in(port)
        return "the log is written to" in self.path.read_text()

    def test_another_user(self) -> None:
        """Root makes the file for the user of --uid, who opens it again."""
        if os.geteuid() != 0:
            raise SkipTest("only root becomes somebody else")
        nobody = pwd.getpwnam("nobody")
        reach = subprocess.run(
            ["setpriv", f"--reuid={nobody.pw_uid}", "--clear-groups", sys.executable, "-c", "import pop3toy"],
            cwd="/", env=environment(self.folder), capture_output=True, check=False,
        )  # fmt: skip
        if reach.returncode != 0:
            raise SkipTest("the user nobody cannot run this Python from where it is")
        self.folder.chmod(0o755)
        for path in ((self.folder / "mail"), *(self.folder / "mail").rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        logs = self.folder / "logs"
        logs.mkdir(mode=0o750)
        os.chown(logs, nobody.pw_uid, nobody.pw_gid)
        self.path = logs / "log"
        self.options[-1] = f"--log-file={self.path}"
        own = ("--uid=nobody", f"--gid={nobody.pw_gid}")
        server = self.start(own_options=own)
        port = server.port
        self.assertEqual((self.path.stat().st_uid, self.path.stat().st_mode & 0o777), (nobody.pw_uid, 0o640))
        self.rename(server, signal.SIGUSR1)
        wait_until(self.path.exists, "it is there again")
        self.assertEqual(self.path.stat().st_uid, nobody.pw_uid)
        self.log_in(port)
        self.ended(self.path)
        server.terminate()
        os.chown(self.path, 0, 0)
        with self.assertRaisesRegex(ServerDied, "belongs to another user than --uid"):
            self.start(own_options=own)

    def test_both_programs(self) -> None:
        """``pop3toy serve`` writes it, too; a log that twistd would write besides is one line of error."""
        done = run_command(
            *twistd("-n", "--pidfile=", "--logfile=x", "pop3toy", *self.options), folder=self.folder
        )
        self.assertEqual(done.returncode, 1)
        self.assertRegex(
            done.stderr, r"\Apop3toy: --log-file and twistd's --logfile do not go together \(.*\)\n\Z"
        )
        command = [*POP3TOY, "serve", "--port=0", *self.options]
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment(self.folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                wait_until(
                    lambda: self.path.exists() and "listens for POP3" in self.path.read_text(), "it listens"
                )
            finally:
                process.send_signal(signal.SIGTERM)
            words = process.communicate(timeout=DEADLINE)
        self.assertEqual(words, (b"", b""))
        self.assertTrue(self.path.read_text().endswith("Server Shut Down.\n"))


class JSONTests(LogCase):
    """``--log-format json``."""

    def objects(self) -> list[dict[str, Any]]:
        """What is in the file; each line is an object."""
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def test_one_process(self) -> None:
        """Each line is an object, Twisted's too, and Twisted reads them again."""
        server = self.start("--log-format=json")
        self.log_in(server.port)
        server.terminate()
        found = self.objects()
        self.assertEqual([one["kind"] for one in found if "kind" in one], ["login", "end"])
        self.assertIn("Server Shut Down.", [one["message"] for one in found])
        with self.path.open() as file:
            events = list(eventsFromJSONLogFile(file))
        self.assertEqual([formatEvent(event) for event in events], [one["message"] for one in found])

    def test_workers(self) -> None:
        """With workers as well; what one says besides its log is an object, too."""
        server = self.start("--log-format=json", "--workers=2")
        port = server.port
        for _ in range(8):
            self.log_in(port)
        wait_until(lambda: server.log.count('"kind":"end"') == 8, "all ends are told")
        [first, *_] = re.findall(r"worker 1 serves \(process (\d+)\)", server.log)
        # A death that Python tells of on standard error.
        os.kill(int(first), signal.SIGABRT)
        wait_until(lambda: "was ended by signal 6" in server.log, "its death is told")
        server.terminate()
        found = self.objects()
        self.assertEqual(sum(one.get("kind") == "login" for one in found), 8)
        self.assertEqual({type(one["session"]) for one in found if "kind" in one}, {int})

    def test_terminal(self) -> None:
        """Without a file it is twistd's own log: here one of its files."""
        self.options.pop()
        server = self.start("--log-format=json")
        self.log_in(server.port)
        wait_until(lambda: '"kind":"end"' in server.log, "the end is told")
        for line in server.log.splitlines():
            self.assertIn("message", json.loads(line))


class LevelTests(LogCase):
    """``--log-level``."""

    def test_reload(self) -> None:
        """What is below is not written, by workers neither; SIGHUP takes up another level."""
        for more in ([], ["--workers=2"]):
            file = self.folder / "pop3toy.toml"
            file.write_text("[log]\nlog-level = 'warn'\nlog-file = 'pop3toy.log'\n[pop3]\nport = 0\n")
            port = free_port()
            command = twistd("-n", "--pidfile=", "pop3toy", f"--config={file}", *self.options[:-1], *more)
            home = environment(self.folder)
            process = subprocess.Popen([*command, f"--port={port}"], cwd=self.folder, env=home)
            try:
                wait_until(lambda port=port: self.refused(port), "a login is refused")  # type: ignore[misc]
                self.log_in(port)
                self.refused(port)
                wait_until(lambda: "login failed: " in text_of(self.path), "it is told")
                for line in self.path.read_text().splitlines():
                    self.assertRegex(line, r"#(?:warn|error|critical)\] ")
                file.write_text(file.read_text().replace("warn", "info"))
                process.send_signal(signal.SIGHUP)
                wait_until(lambda: "taken: log-level" in self.path.read_text(), "it is taken up")
                wait_until(lambda port=port: self.told(port), "a login is told")  # type: ignore[misc]
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(DEADLINE)
            self.path.unlink()

    def refused(self, port: int) -> bool:
        """Whether a login was refused; not while nobody listens."""
        try:
            with StrictClient(port) as client:
                client.login(b"ann", b"wrong")
        except Refused:
            return True
        except OSError:
            pass
        return False

    def told(self, port: int) -> bool:
        """One more session; whether one is told."""
        self.log_in(port)
        return "] login: " in self.path.read_text()
