"""How a start goes wrong, and how it goes right as a daemon: one clear line, an exit status, no traceback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.tap import Options

from ..corpus import awkward_messages, fill_maildir
from ..realserver import POP3TOY, listening, run_command, twistd, wait_until
from ..store_world import unprivileged
from ..strictclient import logged_in


class StartCase(SynchronousTestCase):
    """A folder to start in, with a Maildir of ann's in ``mail``."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.maildir = self.folder / "mail" / "ann"
        fill_maildir(self.maildir, awkward_messages(large=False)[:3])

    def run_twistd(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run twistd until the process that was started ends."""
        command = twistd("--pidfile=twistd.pid", "--logfile=twistd.log", *arguments)
        return run_command(*command, folder=self.folder)

    def taken_port(self) -> int:
        """A port on which somebody else listens until the test ends."""
        other = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(other.close)
        port: int = other.getsockname()[1]
        return port

    @property
    def log(self) -> str:
        """twistd's log file."""
        path = self.folder / "twistd.log"
        return path.read_text() if path.exists() else ""

    def assert_left_nothing(self) -> None:
        """There is no pid file that would keep a second try from starting."""
        self.assertNotIn("twistd.pid", os.listdir(self.folder))


class OneLineTests(StartCase):
    """``twistd -n pop3toy`` with something wrong."""

    def assert_refused(self, *options: str, says: str) -> None:
        """It ends with status 1 and one line on standard error, which says what is wrong."""
        done = self.run_twistd("--nodaemon", "pop3toy", "--port=0", *options)
        self.assertEqual(done.returncode, 1, done)
        [line] = done.stderr.splitlines()
        self.assertTrue(line.startswith("pop3toy: "), line)
        self.assertIn(says, line)
        self.assertEqual(done.stdout, "")
        self.assertNotIn("Traceback", self.log)
        self.assert_left_nothing()

    def test_port_taken(self) -> None:
        """A port that is taken is named, with the system's reason."""
        port = self.taken_port()
        self.assert_refused("--port", str(port), says=f"127.0.0.1:{port}: address already in use")

    def test_second_port_taken(self) -> None:
        """One of two endpoints that is taken ends the start, and the other one is not served."""
        port = self.taken_port()
        endpoint = f"tcp:{port}:interface=127.0.0.1"
        self.assert_refused(
            "--listen=tcp:0:interface=127.0.0.1",
            f"--listen={endpoint}",
            says=f"{endpoint}: address already in use",
        )

    def test_foreign_interface(self) -> None:
        """An address that this machine does not have is named."""
        # RFC 5737: 192.0.2.0/24 is for documentation and belongs to nobody.
        self.assert_refused("--port=0", "--interface=192.0.2.1", says="192.0.2.1")

    def test_folder_missing(self) -> None:
        """A folder that is not there is named."""
        self.assert_refused("--maildir=/nowhere/at/all/{user}", "--user=ann:secret", says="/nowhere/at/all")

    def test_folder_is_a_file(self) -> None:
        """A file where the folder should be is named."""
        self.assert_refused(f"--maildir={__file__}/{{user}}", "--user=ann:secret", says=__file__)

    def test_user_missing_in_the_path(self) -> None:
        """Two users in one Maildir: the line tells of ``{user}``."""
        self.assert_refused(
            f"--maildir={self.maildir}", "--user=ann:secret", "--user=bob:secret", says="{user}"
        )

    def test_something_else_in_braces(self) -> None:
        """A slip in ``{user}`` is found before somebody's mail is looked for in the wrong place."""
        self.assert_refused(f"--maildir={self.folder}/mail/{{usr}}", "--user=ann:secret", says="{user}")

    def test_nobody_may_log_in(self) -> None:
        """A Maildir without accounts: the line tells how to give some."""
        self.assert_refused(f"--maildir={self.folder}/mail/{{user}}", says="--user")

    def test_account_without_password(self) -> None:
        """``--user`` without a colon: the line tells the form, and does not repeat what may be a password."""
        done = self.run_twistd("--nodaemon", "pop3toy", "--user=hunter2")
        self.assertNotIn("hunter2", done.stderr)
        self.assert_refused("--user=hunter2", says="NAME:PASSWORD")

    def test_catch_all_is_nobody(self) -> None:
        """A user who gets what nobody else gets, and is no user himself, is named."""
        (self.folder / "accounts").write_text("ann:{PLAIN}x\n")
        self.assert_refused(
            f"--maildir={self.folder}/mail/{{user}}",
            f"--accounts={self.folder}/accounts",
            "--smtp-port=0",
            "--catch-all=ghost",
            says="--catch-all ghost: there is no such user",
        )

    def test_alias_of_another_domain(self) -> None:
        """An alias in a domain that is not ours is named with its line."""
        (self.folder / "aliases").write_text("a: ann\ninfo@example.org: ann\n")
        self.assert_refused(
            f"--maildir={self.folder}/mail/{{user}}",
            "--user=ann:secret",
            "--smtp-port=0",
            f"--aliases={self.folder}/aliases",
            says="line 2: info@example.org is elsewhere",
        )

    def test_bad_option(self) -> None:
        """An option that does not exist is named, without the whole help above it."""
        self.assert_refused("--nope", says="--nope")

    def test_argument(self) -> None:
        """A stray word is named, and a number is taken for what it is most likely meant to be."""
        self.assert_refused("extra", says="only options are taken, and 'extra' is none")
        self.assert_refused("2590", says="did you mean --port 2590?")

    def test_bad_port(self) -> None:
        """A port that is no number, or too large a one, is called so."""
        for port in ("abc", "-1", "65536", "25.9", ""):
            self.assert_refused(f"--port={port}", says="port")

    def test_bad_endpoint(self) -> None:
        """An endpoint that cannot be read is named, with one that can, and without a word of Python's."""
        example = "tcp:2590:interface=127.0.0.1"
        for endpoint, says in {
            "nonsense:1": "Unknown endpoint type: 'nonsense'",
            "tcp:abc": example,
            "tcp:0:bar=1": example,
            "unix": example,
            "2590": example,
            "127.0.0.1:2590": example,
            "": "--listen is empty",
            "systemd:domain=INET:index=0": "systemd has handed over no such socket",
            "tcp:99999:interface=127.0.0.1": "a port is a number from 0 to 65535",
        }.items():
            self.assert_refused(f"--listen={endpoint}", says=says)

    def test_bad_endpoint_for_mail(self) -> None:
        """So is one at which mail should come in, and one that needs a certificate."""
        for option, says in {
            "--submission=2587": "--submission 2587: an endpoint begins with its kind",
            "--submission=": "--submission is empty",
            "--submission=systemd:domain=INET:index=0": "systemd has handed over no such socket",
            "--submission-tls=tcp:2465": "--submission-tls needs --certificate",
        }.items():
            self.assert_refused(option, says=says)

    def test_folder_above_is_closed(self) -> None:
        """Of a file in a folder that may not be entered nobody can say that it is not there."""
        closed = self.folder / "closed"
        (closed / "mail").mkdir(parents=True)
        (closed / "accounts").write_text("ann:{PLAIN}secret\n")
        closed.chmod(0)
        self.addCleanup(closed.chmod, 0o700)
        with unprivileged():
            for options in (["--maildir=mail/{user}", f"--accounts={closed}/accounts"],
                            [f"--maildir={closed}/mail/{{user}}", "--user=ann:secret"]):  # fmt: skip
                end = self.assertRaises(SystemExit, Options().parseOptions, options)
                self.assertIn("permission denied", str(end.code))

    def test_no_place_for_the_pid_file(self) -> None:
        """A folder in which twistd may not leave its pid file is named."""
        closed = self.folder / "closed"
        closed.mkdir(mode=0o500)
        with unprivileged():
            options = Options()
            parent: Any = {"pidfile": f"{closed}/twistd.pid", "nodaemon": True}
            options.parent = parent
            end = self.assertRaises(SystemExit, options.parseOptions, [])
        self.assertIn(f"{closed}", str(end.code))
        self.assertIn("start elsewhere, or say where it goes, twistd --pidfile FILE", str(end.code))
        options = Options()
        parent = {"logfile": "/nowhere/at/all/twistd.log", "nodaemon": True}
        options.parent = parent
        end = self.assertRaises(SystemExit, options.parseOptions, [])
        self.assertIn("twistd --logfile /nowhere/at/all/twistd.log: there is no folder", str(end.code))

    def test_twistds_own_options(self) -> None:
        """What twistd would end with a traceback for, and with a page, is one line."""
        here = self.folder
        (here / "file").touch()
        (here / "nonsense").write_text("x")
        (here / "negative").write_text("-1")
        (here / "running").write_text(str(os.getppid()))
        for option, value, says in (
            ("uid", 4_000_000, "there is no user of this number"),
            ("rundir", "/nowhere", "there is no folder /nowhere"),
            ("rundir", f"{here}/file", f"{here}/file is no folder"),
            ("chroot", "/nowhere", "there is no folder /nowhere"),
            ("chroot", f"{here}/file", f"{here}/file is no folder"),
            ("logfile", f"{here}/none/log", f"there is no folder {here}/none"),
            ("logfile", f"{here}/file/log", f"{here}/file is no folder"),
            ("logfile", str(here), "this is a folder"),
            ("profile", f"{here}/none/profile", f"there is no folder {here}/none"),
            ("pidfile", f"{here}/none/pid", f"there is no folder {here}/none"),
            ("pidfile", str(here), "this is a folder"),
            ("pidfile", f"{here}/nonsense", "no number of a process in it"),
            ("pidfile", f"{here}/negative", "no number of a process in it"),
            ("pidfile", f"{here}/running", f"process {os.getppid()} runs already"),
            ("logger", "nowhere.at.all", "it cannot be imported: "),
            ("logger", "os.sep", "it cannot be called"),
        ):
            line = self.refused_by_parent({option: value})
            self.assertTrue(line.startswith(f"pop3toy: twistd --{option} {value}: "), line)
            self.assertIn(says, line)
            self.assertEqual(len(line.splitlines()), 1)
        # Below the new root.
        self.assertIn(f"{here}/nowhere", self.refused_by_parent({"chroot": str(here), "rundir": "/nowhere"}))
        self.assertIn(f"{here}/run", self.refused_by_parent({"chroot": str(here), "pidfile": "/run/pid"}))

    def test_only_root(self) -> None:
        """Somebody else cannot become another user, nor change the root."""
        with unprivileged():
            for given in ({"uid": 1}, {"uid": 1, "gid": 1}, {"gid": 1}, {"chroot": "/"}):
                self.assertIn("only root can", self.refused_by_parent(given))

    def test_twistds_option_behind_our_name(self) -> None:
        """One of twistd's options in the wrong place is told as that."""
        for done in (
            self.run_twistd("--nodaemon", "pop3toy", "--uid=nobody"),
            run_command(*POP3TOY, "serve", "--uid", "nobody", folder=self.folder),
        ):
            self.assertEqual(done.returncode, 1)
            [line] = done.stderr.splitlines()
            self.assertIn("twistd --uid ... pop3toy", line)

    def refused_by_parent(self, given: dict[str, Any]) -> str:
        """The line with which a start ends for these options of twistd."""
        options = Options()
        parent: Any = {"nodaemon": True, **given}
        options.parent = parent
        return str(self.assertRaises(SystemExit, options.parseOptions, []).code)

    def test_one_port_for_two(self) -> None:
        """Two services at one port are both named; any free port may be asked for twice."""
        loopback = "interface=127.0.0.1"
        for options, says in (
            (["--port=9", "--smtp-port=9"], "--smtp-port 9: this is for POP3 already (--port)"),
            ([f"--listen=tcp:9:{loopback}", "--smtp-port=9"], "--smtp-port 9: this is for POP3"),
            (["--listen=tcp:9", "--smtp=tcp:port=9:interface=0.0.0.0"], "(--listen)"),
            ([r"--listen=tcp6:9:interface=\:\:1"] * 2, r"\:\:1: this is for POP3"),
            (["--listen=unix:s", "--smtp=unix:s:mode=660"], "--smtp unix:s:mode=660: this is for POP3"),
            (["--port=9", "--metrics=9"], "--metrics"),
            (["--port=9", "--inspector-port=9"], "--inspector-port"),
        ):
            end = self.assertRaises(SystemExit, Options().parseOptions, options)
            self.assertIn(says, str(end.code))
        for options in (
            ["--port=0", "--smtp-port=0"],
            ["--listen=tcp:9", "--smtp=tcp:8"],
            [f"--listen=tcp:9:{loopback}", "--smtp=tcp:9:interface=127.0.0.2"],
        ):
            Options().parseOptions(options)

    def test_place_in_the_file(self) -> None:
        """What is wrong outside of the file is told with its place in it, too."""
        file = self.folder / "options.toml"
        for text, says in (
            ("[pop3]\nport = 9\n[mail]\nsmtp-port = 9\n", "[mail] smtp-port 9: this is for POP3"),
            ("[store]\nmaildir = '/nowhere/{user}'\n[accounts]\nuser = ['ann:x']\n", "[store] maildir: "),
        ):
            file.write_text(text)
            end = self.assertRaises(SystemExit, Options().parseOptions, [f"--config={file}"])
            self.assertIn(f"{file}: {says}", str(end.code))

    def test_pid_file_left_behind(self) -> None:
        """A pid file with the process's own number is a dead server's, as in a container.

        Of a process that is not there twistd sees to it.
        """
        for number in (os.getpid(), 4_190_000):
            path = self.folder / "twistd.pid"
            path.write_text(str(number))
            options = Options()
            parent: Any = {"pidfile": str(path), "nodaemon": True}
            options.parent = parent
            options.parseOptions([])
            self.assertEqual(number != os.getpid(), path.exists(), number)

    def test_bad_checker(self) -> None:
        """A way to authenticate that does not exist is named."""
        self.assert_refused(f"--maildir={self.folder}/mail/{{user}}", "--auth=nonsense:x", says="nonsense")

    def test_transcript_nowhere(self) -> None:
        """A transcript that cannot be written is named."""
        self.assert_refused("--transcript=/nowhere/at/all/t.txt", says="/nowhere/at/all")


class DaemonTests(StartCase):
    """``twistd pop3toy`` goes into the background."""

    def test_start_and_stop(self) -> None:
        """The command ends with status 0 when the server listens; its pid file names it, SIGTERM ends it."""
        done = self.run_twistd(
            "pop3toy", "--port=0", f"--maildir={self.folder}/mail/{{user}}", "--user=ann:secret"
        )
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        pid = int((self.folder / "twistd.pid").read_text())
        self.addCleanup(self._end, pid)
        # It listens already, but says so only when the reactor runs.
        wait_until(lambda: "POP3" in listening(self.log), "the daemon tells its port")
        with logged_in(listening(self.log)["POP3"]) as client:
            self.assertEqual(client.stat().messages, 3)
            client.dele(1)
        os.kill(pid, signal.SIGTERM)
        self._wait_for_its_end()
        # Written when the pid file is gone already.
        wait_until(lambda: self.log.endswith("Server Shut Down.\n"), "the log's last line")
        self.assertEqual(len(list(self.maildir.glob("*/*mail*"))), 2)

    def _wait_for_its_end(self) -> None:
        try:
            wait_until(lambda: not (self.folder / "twistd.pid").exists(), "the pid file is gone")
        except AssertionError as error:
            raise AssertionError(f"{error}; its log:\n{self.log}") from None

    def _end(self, pid: int) -> None:
        # Only if the test has failed before it could end it: the file names no other process.
        if (self.folder / "twistd.pid").exists():
            os.kill(pid, signal.SIGKILL)

    def test_relative_maildir(self) -> None:
        """A path relative to where the command was given means that place, although daemons move."""
        done = self.run_twistd(
            "--rundir=/",
            f"--pidfile={self.folder}/twistd.pid",
            f"--logfile={self.folder}/twistd.log",
            "pop3toy",
            "--port=0",
            "--maildir=mail/{user}",
            "--user=ann:secret",
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        pid = int((self.folder / "twistd.pid").read_text())
        self.addCleanup(self._end, pid)
        # It listens already, but says so only when the reactor runs.
        wait_until(lambda: "POP3" in listening(self.log), "the daemon tells its port")
        with logged_in(listening(self.log)["POP3"]) as client:
            self.assertEqual(client.stat().messages, 3)
        os.kill(pid, signal.SIGTERM)
        self._wait_for_its_end()

    def test_port_taken(self) -> None:
        """The command reports the failure, the log has it as well, and nothing is left behind."""
        port = self.taken_port()
        done = self.run_twistd("pop3toy", f"--port={port}")
        self.assertEqual(done.returncode, 1)
        reason = f"cannot listen on 127.0.0.1:{port}: address already in use"
        self.assertEqual(done.stderr, f"pop3toy: {reason}\n")
        self.assertIn(reason, self.log)
        self.assertNotIn("Traceback", done.stderr + self.log)
        self.assert_left_nothing()

    def test_bad_option(self) -> None:
        """A mistake on the command line is told before the command goes into the background."""
        done = self.run_twistd("pop3toy", "--nope")
        self.assertEqual(done.returncode, 1)
        [line] = done.stderr.splitlines()
        self.assertIn("--nope", line)
        self.assert_left_nothing()


class HelpTests(StartCase):
    """What is asked for on purpose is not an error."""

    def test_help(self) -> None:
        """``--help`` ends with status 0 and tells every option of issue and README."""
        done = self.run_twistd("pop3toy", "--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for option in (
            "--port",
            "--interface",
            "--listen",
            "--maildir",
            "--create",
            "--user",
            "--auth",
            "--transcript",
        ):
            self.assertIn(f"{option}", done.stdout)

    def test_version(self) -> None:
        """``--version`` is pop3toy's own."""
        done = self.run_twistd("pop3toy", "--version")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(done.stdout.startswith("pop3toy "), done.stdout)
