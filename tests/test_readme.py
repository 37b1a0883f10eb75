"""What README.rst shows is what happens: its conversations, example, options, commands and links."""

from __future__ import annotations

import os
import poplib
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from pop3toy.config.cmdline import Options
from pop3toy.installation import install_hint
from pop3toy.stores.registry import Maildirs, Objects

from .pages import CHECKOUT, literal_blocks, page
from .realserver import (
    DEADLINE,
    RealServer,
    environment,
    heed_ctrl_c,
    listening,
    run_command,
    twistd,
    wait_until,
)
from .strictclient import StrictClient, logged_in

#: A line of a transcript: the session's number if it is there, who, and what was said.
_LINE = re.compile(r"(?:\[\d+\] )?(?P<side>[CS]|--)(?:: ?| )?(?P<text>.*)")
#: What is made anew at each start, and what to read in its place.
_CHANGING = (
    (re.compile(r"^(\[\d+\] -- connected from 127\.0\.0\.1):\d+$"), r"\1:PORT"),
    (re.compile(r"<[0-9a-f]{16,}@pop3toy>"), "<CHALLENGE>"),
    (re.compile(r"\bDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000$"), "Date: DATE"),
    (re.compile(r"\bMessage-ID: <hello\.[0-9a-f]{11}@pop3toy\.example>$"), "Message-ID: ID"),
)


def settled(line: str) -> str:
    """A line of a transcript without what is different at each start, and without blanks at its end."""
    for pattern, replacement in _CHANGING:
        line = pattern.sub(replacement, line)
    return line.rstrip()


def conversations() -> list[list[str]]:
    """The literal blocks that are transcripts, but for the explained one, which has a test of its own."""
    return [
        lines
        for lines in literal_blocks("README.rst")
        if any(re.match(r"(\[\d+\] )?S: [+-](OK|ERR)", line) for line in lines)
        and not any(re.match(r"\[\d+\]    [|!?] ", line) for line in lines)
    ]


def said_by(side: str, lines: list[str]) -> list[str]:
    """What one side says in a transcript, as sent."""
    matches = [_LINE.fullmatch(line) for line in lines]
    return [match["text"] for match in matches if match is not None and match["side"] == side]


class ConversationTests(SynchronousTestCase):
    """The conversations in README.rst, each held with a server that has just started."""

    def test_there_is_one(self) -> None:
        """README.rst shows the session that RFC 1939 is about."""
        [shown] = conversations()
        self.assertEqual(
            said_by("C", shown), ["USER user", "PASS pass", "STAT", "LIST", "RETR 1", "DELE 1", "QUIT"]
        )

    def test_typed_lines_are_those_of_the_transcript(self) -> None:
        """The lines that a reader is told to type are those that the transcript shows."""
        typed = [lines for lines in literal_blocks("README.rst") if lines[0].startswith("USER ")]
        self.assertEqual(typed, [said_by("C", shown) for shown in conversations()])

    def test_on_the_wire(self) -> None:
        """A client that sends the C: lines receives the S: lines."""
        for shown in conversations():
            with RealServer() as server, StrictClient(server.port) as client:
                # The greeting has been read; everything else is as it came.
                said = [f"+OK {client.greeting.decode()}"]
                for line in said_by("C", shown):
                    said.append(f"+OK {client.command(line.encode()).decode()}")
                    if line.split()[0] in ("RETR", "LIST", "UIDL", "TOP", "CAPA"):
                        said += [*client.body().decode().splitlines(), "."]
                client.ended()
            expected = [settled(line) for line in said_by("S", shown)]
            self.assertEqual([settled(line) for line in said], expected)

    def test_in_the_terminal(self) -> None:
        """The server's terminal shows the transcript as it is in README.rst."""
        for shown in conversations():
            with RealServer() as server:
                with StrictClient(server.port) as client:
                    self._say(client, said_by("C", shown))
                wait_until(lambda: "-- closed" in server.words, "the session's last line")
                words = [settled(line) for line in server.words.splitlines()]
            self.assertEqual(words, [settled(line) for line in shown])

    def _say(self, client: StrictClient, lines: list[str]) -> None:
        for line in lines:
            client.command(line.encode())
            if line.split()[0] in ("RETR", "LIST", "UIDL", "TOP", "CAPA"):
                client.body()
        client.ended()

    def test_with_telnet(self) -> None:
        """telnet shows what the transcript says."""
        self._with_program("telnet", "telnet", ["127.0.0.1"])

    def test_with_netcat(self) -> None:
        """So does netcat, as README.rst starts it."""
        self.assertIn("nc -C 127.0.0.1 2590", page("README.rst"))
        self._with_program("nc", "netcat-openbsd", ["-C", "127.0.0.1"])

    def _with_program(self, program: str, package: str, arguments: list[str]) -> None:
        if shutil.which(program) is None:
            raise SkipTest(f"{program} is not installed (Debian package {package})")
        [shown] = conversations()
        out = Path(self.mktemp())
        with RealServer() as server, out.open("wb") as file:
            process = subprocess.Popen(
                [program, *arguments, str(server.port)],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.DEVNULL,
            )
            self.addCleanup(process.wait, DEADLINE)
            self.addCleanup(process.kill)
            assert process.stdin is not None
            with process.stdin:
                self._type(process.stdin, shown, out)
                expected = [settled(line) for line in said_by("S", shown)]
                wait_until(lambda: self._on_screen(out) >= len(expected), "the last line from the server")
            process.wait(DEADLINE)
        received = out.read_text().replace("\r\n", "\n").splitlines()
        # telnet's own words come before the greeting, and one line of them after the end.
        start = next(at for at, line in enumerate(received) if line.startswith("+OK"))
        self.assertEqual([settled(line) for line in received[start : start + len(expected)]], expected)

    def _type(self, terminal: object, shown: list[str], out: Path) -> None:
        """Type each C: line once all the S: lines before it are on the screen."""
        due = 0
        for line in shown:
            match = _LINE.fullmatch(line)
            assert match is not None
            if match["side"] == "S":
                due += 1
            elif match["side"] == "C":
                wait_until(lambda due=due: self._on_screen(out) >= due, f"{due} lines from the server")
                terminal.write(match["text"].encode() + b"\n")  # type: ignore[attr-defined]
                terminal.flush()  # type: ignore[attr-defined]

    def _on_screen(self, out: Path) -> int:
        text = out.read_text()
        return text[text.find("+OK") :].count("\n") if "+OK" in text else 0


class ExampleTests(SynchronousTestCase):
    """The Python in README.rst that embeds a server, run as it stands there."""

    def examples(self) -> list[list[str]]:
        """The programs: one without TLS, one with it."""
        return [lines for lines in literal_blocks("README.rst") if "reactor.run()" in lines]

    def start(self, lines: list[str], *protocols: str) -> list[int]:
        """Start a program with any free ports in the place of those it names; the ports it got.

        :param protocols: what it says that it listens for.
        """
        self.home = home = Path(self.mktemp()).absolute()
        (home / "mail").mkdir(parents=True)
        # Twisted's log tells the ports.
        prelude = "import sys; from twisted.python import log; log.startLogging(sys.stderr)\n"
        text, count = re.subn(r"port=2\d\d\d\b", "port=0", "\n".join(lines) + "\n")
        self.assertEqual(count, len(protocols))
        program = home / "program.py"
        program.write_text(prelude + text)
        self.words, self.told = home / "words", home / "log"
        with self.words.open("wb") as out, self.told.open("wb") as log:
            self.process = process = subprocess.Popen(
                [sys.executable, str(program)],
                cwd=home,
                env=environment(home),
                stdout=out,
                stderr=log,
                preexec_fn=heed_ctrl_c,
            )
        self.addCleanup(process.wait, DEADLINE)
        self.addCleanup(process.kill)
        ports: dict[str, int] = {}

        def listens() -> bool:
            self.assertIs(process.poll(), None, self.told.read_text())
            ports.update(listening(self.told.read_text()))
            return set(ports) == set(protocols)

        wait_until(listens, "the program listens")
        return [ports[one] for one in protocols]

    def end(self) -> None:
        """End it as Ctrl-C does: in good order, without a word of trouble."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(DEADLINE)
        self.assertIn("Main loop terminated", self.told.read_text())
        self.assertNotIn("Traceback", self.told.read_text())

    def test_short(self) -> None:
        """An example has 20 lines at the most, and one import from pop3toy."""
        examples = self.examples()
        self.assertEqual(len(examples), 2)
        for lines in examples:
            self.assertLessEqual(len(lines), 20)
            self.assertEqual(len([line for line in lines if "pop3toy" in line]), 1)

    def test_first(self) -> None:
        """It serves the message that it holds, and prints the conversation."""
        lines, _ = self.examples()
        [port] = self.start(lines, "POP3")
        with logged_in(port) as client:
            self.assertEqual(client.retr(1), b"Subject: Hello\r\n\r\nHello Ann!\r\n")
        self.end()
        said = self.words.read_text().splitlines()
        for line in ("C: USER ann", "C: PASS ****", "S: +OK 30 octets", "S: Hello Ann!", "-- closed (quit)"):
            self.assertIn(f"[1] {line}", said)

    def test_second(self) -> None:
        """It serves Maildirs, with STLS and with TLS from the first octet on."""
        _, lines = self.examples()
        clear, secure = self.start(lines, "POP3", "POP3 over TLS")
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        first = poplib.POP3("127.0.0.1", clear, timeout=DEADLINE)
        first.stls(context)
        second = poplib.POP3_SSL("127.0.0.1", secure, timeout=DEADLINE, context=context)
        for client, expected in ((first, (0, 0)), (second, (1, 14))):
            client.user("ann")
            client.pass_("secret")
            self.assertEqual(client.stat(), expected)
            client.quit()
            (self.home / "mail" / "ann" / "new" / "1.mail").write_bytes(b"Subject: x\n\n")
        self.end()
        self.assertEqual(self.told.read_text().count("] login: "), 2)

    def test_file_of_options(self) -> None:
        """The first file in README.rst says what the command line above it says."""
        blocks = list(literal_blocks("README.rst"))
        block, _ = [lines for lines in blocks if lines[0] == "[pop3]"]
        [line] = [line for lines in blocks for line in lines if "--maildir '/srv" in line]
        file = Path(self.mktemp())
        file.write_text("\n".join(block))
        outcomes = []
        for words in ([f"--config={file}"], shlex.split(line.partition(" pop3toy ")[2])):
            options = Options()
            options.parseOptions(words)
            outcomes.append(options.settings)
        self.assertEqual(outcomes[0], outcomes[1])
        self.assertEqual(outcomes[0].store, Maildirs("/srv/mail/{user}"))

    def test_shared(self) -> None:
        """The second one is of a server on object storage, with its accounts there."""
        _, block = [lines for lines in literal_blocks("README.rst") if lines[0] == "[pop3]"]
        file = Path(self.mktemp())
        file.write_text("\n".join(block))
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        self.patch(os, "environ", os.environ | keys)
        options = Options()
        options.parseOptions([f"--config={file}"])
        store = Objects("s3://mail", endpoint="http://127.0.0.1:7480", node="one")
        self.assertEqual((store, "objects"), (options.settings.store, options.settings.accounts))


class CommandTests(SynchronousTestCase):
    """The commands and options in README.rst."""

    def _test_command(self) -> str:
        blocks = literal_blocks("README.rst")
        [command] = [line for lines in blocks for line in lines if line.endswith("/trial -j2 tests")]
        return command

    def test_same_test_command_in_ci(self) -> None:
        """``.ci/run`` runs the test command that README.rst names, as it stands there."""
        named, text = self._test_command(), page(".ci/run")
        # The script reads the command from README.rst; so does this, with the script's own line.
        [reading] = re.findall(r"^command=\$\((.*)\)$", text, re.MULTILINE)
        done = subprocess.run(
            ["bash", "-c", reading],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=True,
        )
        self.assertEqual(done.stdout, named + "\n")
        self.assertRegex(text, r'(?m)^eval "\$command"')

    def test_same_test_command_for_contributors(self) -> None:
        """CONTRIBUTING.rst names the same command."""
        self.assertIn(f"\n    {self._test_command()}\n", page("CONTRIBUTING.rst"))

    def test_options_exist(self) -> None:
        """Each option that README.rst tells of is one of ``twistd pop3toy``."""
        told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page("README.rst")))
        done = run_command(*twistd("pop3toy", "--help"), folder=Path(self.mktemp()))
        known = set(re.findall(r"--[a-z][a-z-]+", done.stdout))
        self.assertGreater(len(known & told), 5)
        self.assertEqual(told - known, set())


class LinkTests(SynchronousTestCase):
    """The pages and their links."""

    pages = ("README.rst", "NEWS.rst", "CONTRIBUTING.rst", "docs")
    #: Pages with directives that Sphinx alone knows; tests.test_docs has them made.
    for_sphinx = ("index.rst", "api.rst")

    def _pages(self) -> list[Path]:
        page("README.rst")
        pages = []
        for name in self.pages:
            path = CHECKOUT / name
            pages += sorted(path.rglob("*.rst")) if path.is_dir() else [path]
        return pages

    def test_targets_exist(self) -> None:
        """Each link to a file, and each picture, leads to something that is there."""
        missing = []
        for path in self._pages():
            text = path.read_text("utf-8")
            targets = re.findall(r"`[^`<]+<([^`>]+)>`_", text)
            targets += re.findall(
                r"^\s*\.\. (?:image|figure|include|literalinclude):: *(\S+)$", text, re.MULTILINE
            )
            for target in targets:
                here = re.sub(r"\s", "", target).partition("#")[0]
                if re.match(r"[a-z]+:", here) or not here:
                    continue
                if not (path.parent / here).exists():
                    missing.append(f"{path.name}: {here}")
        self.assertEqual(missing, [])

    def test_well_formed(self) -> None:
        """docutils reads each page without a word of complaint."""
        try:
            from docutils.core import publish_doctree
        except ImportError:
            raise SkipTest(f"docutils is not installed ({install_hint('test')})") from None
        for path in self._pages():
            if path.name in self.for_sphinx:
                continue
            complaints = Path(self.mktemp())
            with complaints.open("w", encoding="utf-8") as stream:
                publish_doctree(
                    path.read_text("utf-8"),
                    source_path=str(path),
                    settings_overrides={"warning_stream": stream, "report_level": 2, "halt_level": 5},
                )
            self.assertEqual(complaints.read_text("utf-8"), "", path.name)
