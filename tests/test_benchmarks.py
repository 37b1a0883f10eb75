"""The benchmark: its data sets are what they say, and its load generator believes no server."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from benchmarks import __main__ as command_line
from benchmarks import deliveries, native
from benchmarks.datasets import DataSet, World, octet_count, wire_form
from benchmarks.load import Job, LoadGenerator, Result
from benchmarks.measure import Sample
from benchmarks.messages import message
from benchmarks.processes import Server, cpu_seconds, memory_octets, tree
from benchmarks.report import as_text
from benchmarks.rounds import Outcome
from benchmarks.senders import Letter, Refused, compare
from benchmarks.workloads import WORKLOADS

from .folders import new_folder

TINY = DataSet("tiny", users=3, messages=4, octets=5_000)
LINES = st.lists(st.sampled_from([b"", b".", b"..", b".x", b"x.", b"text"]), min_size=1, max_size=8)


class DataSetTests(SynchronousTestCase):
    """Maildirs that are the same each time, and what the answers are compared with."""

    @given(LINES, st.booleans())
    def test_wire_form(self, lines: list[bytes], ended: bool) -> None:
        """Each line, its dot doubled, with CRLF, and a dot at the end; octets are those before stuffing."""
        text = b"\n".join(lines)
        wire = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
        # A last line that is empty is none, where nothing ends it.
        if not ended and not lines[-1] and len(lines) > 1:
            wire = wire[:-2]
        self.assertEqual(wire_form(text + b"\n" * ended), wire + b".\r\n")
        stuffing = sum(line.startswith(b".") for line in lines)
        self.assertEqual(octet_count(text + b"\n" * ended), len(wire) - stuffing)

    def make(self, data: DataSet = TINY) -> World:
        """A world with one data set."""
        world = World(Path(self.mktemp()))
        world.add(data)
        return world

    def messages(self, world: World, user: str) -> dict[str, bytes]:
        """Names and contents of a Maildir's messages."""
        return {path.name: path.read_bytes() for path in sorted((world.mail / user / "cur").iterdir())}

    def test_messages(self) -> None:
        """One seed gives the same files, another others; names tell octets on disk and with CRLF."""
        first, second = (self.messages(self.make(), "tiny00001") for _ in range(2))
        self.assertEqual(first, second)
        other = self.make(DataSet("tiny", users=3, messages=4, octets=5_000, seed=2))
        self.assertNotEqual(self.messages(other, "tiny00001"), first)
        for name, text in first.items():
            self.assertRegex(name, rf",S={len(text)},W={octet_count(text)}:2,S$")

    def test_tables_point_to_the_answers(self) -> None:
        """Each user's line, numbers and offsets lead to the wire form of that user's files."""
        world = self.make()
        where = world.expected(TINY)
        wire = (where / "wire.bin").read_bytes()
        table = memoryview((where / "messages.bin").read_bytes()).cast("Q")
        for line in (where / "users.txt").read_text().splitlines():
            name, _, *rest = line.split()
            first, count, octets, list_at, list_length, _, _ = map(int, rest)
            texts = list(self.messages(world, name).values())
            self.assertEqual((count, octets), (len(texts), sum(map(octet_count, texts))))
            listing = "".join(f"{n} {octet_count(text)}\r\n" for n, text in enumerate(texts, 1)) + ".\r\n"
            self.assertEqual(wire[list_at : list_at + list_length], listing.encode())
            for number, text in enumerate(texts):
                size, at, length = table[(first + number) * 3 : (first + number) * 3 + 3]
                self.assertEqual((size, wire[at : at + length]), (octet_count(text), wire_form(text)))

    def test_sizes_and_dots(self) -> None:
        """A message is within a tenth of its size; text and attachments both hold what must be stuffed."""
        for octets, attachment in ((900, False), (6_000, False), (60_000, False), (200_000, True)):
            text = message(1, 3, octets, attachment)
            self.assertLess(abs(len(text) - octets), octets / 10)
            self.assertTrue(octets < 60_000 or b"\n." in text)


class LoadGeneratorTests(SynchronousTestCase):
    """Right answers pass, and each kind of wrong answer is found."""

    def setUp(self) -> None:
        """Compile both programs and make two copies of the truth: one to serve, one to compare with."""
        self.root = new_folder(self)
        self.world = World(self.root)
        self.world.add(TINY)
        self.truth = self.world.expected(TINY)
        self.served = self.root / "served"
        shutil.copytree(self.truth, self.served)
        try:
            self.load = LoadGenerator(native.build("pop3load", self.root), self.root)
            self.program = native.build("sendfile_server", self.root)
        except native.CompilerMissing as missing:
            raise SkipTest(str(missing)) from None

    def serve(self) -> int:
        """Serve the copy; gives the port."""
        server = Server([str(self.program), str(self.served)], self.root / "log")
        self.addCleanup(server.stop)
        return int(server.first_line())

    def run_load(self, script: str = "LSTURQ", pipelined: bool = False) -> Result:
        """Give a load to the copy's server: two sessions of each user."""
        job = Job(self.serve(), self.truth, script, connections=2, sessions=6, pipelined=pipelined)
        return self.load.run(job)

    def spoil(self, old: bytes, new: bytes, file: str = "wire.bin") -> Callable[[], object]:
        """Change the first place where ``old`` stands in what is served; gives what undoes it."""
        path = self.served / file
        before = path.read_bytes()
        after = before.replace(old, new, 1)
        self.assertNotEqual(before, after)
        path.write_bytes(after)
        return lambda: path.write_bytes(before)

    def test_right_answers(self) -> None:
        """Sessions of every command pass, one by one and pipelined, and every octet was read."""
        for pipelined in (False, True):
            result = self.run_load(pipelined=pipelined)
            self.assertEqual((result.sessions, result.failures, result.complaints), (6, 0, ""))
            self.assertEqual(len(result.latencies), 6)
            self.assertEqual(result.latencies, sorted(result.latencies))
            self.assertGreater(result.octets, 2 * (self.truth / "wire.bin").stat().st_size - 1)

    def test_wrong_answers(self) -> None:
        """A wrong octet, a dot that is not stuffed, wrong figures, a unique-id twice, a refusal."""
        users = (self.truth / "users.txt").read_text()
        octets = int(users.split()[4])
        wire = (self.truth / "wire.bin").read_bytes()
        listed = b"\r\n.\r\n1 " + wire.partition(b"\r\n.\r\n1 ")[2].partition(b"\r\n")[0]
        sums = f" 4 {octets} ".encode(), f" 4 {octets + 1} ".encode()
        octet = b"Message-ID: <1.6@", b"Message-ID: <1.7@"
        for file, old, new, script, complaint in (
            ("wire.bin", *octet, "LSTURQ", "tiny00001, reply to R 3: wrong octet: 0x37 instead of 0x36"),
            ("wire.bin", b"\r\n..", b"\r\n.x", "LSTURQ", "reply to R"),
            ("wire.bin", listed, listed[:-1] + b"x", "LSTURQ", "reply to T"),
            ("users.txt", *sums, "LSQ", "wrong count or octets"),
            ("wire.bin", b"2 0000.00000002", b"2 0000.00000001", "LUQ", "a unique-id that is there twice"),
            ("users.txt", b"tiny00002", b"tiny00009", "LSQ", "tiny00002, reply to p: not +OK: -ERR"),
        ):
            for pipelined in (False, True):
                undo = self.spoil(old, new, file)
                result = self.run_load(script, pipelined)
                self.assertTrue(0 < result.failures < 6, result)
                self.assertIn(complaint, result.complaints)
                undo()

    def test_pace(self) -> None:
        """So many sessions a second, and never more, also where more than one may run at once."""
        job = Job(self.serve(), self.truth, "LSTURQ", connections=2, sessions=6, pace=20)
        result = self.load.run(job)
        self.assertEqual((6, 0), (result.sessions, result.failures))
        # The sixth begins a quarter of a second behind the first.
        self.assertGreaterEqual(result.seconds, 0.25)

    def test_unique_ids_that_change(self) -> None:
        """A listing that differs from the one that was learned fails."""
        job = Job(self.serve(), self.truth, "LUQ", sessions=3, learn=self.root / "known")
        self.assertEqual(self.load.run(job).failures, 0)
        self.spoil(b"4 0002.00000004", b"4 0002.00000014")
        job = Job(self.serve(), self.truth, "LUQ", sessions=3, known=self.root / "known")
        self.assertEqual(self.load.run(job).failures, 1)

    def test_held_sessions(self) -> None:
        """Sessions are held open while the body runs; a server that refuses one does not hang the run."""
        job = Job(self.serve(), self.truth, "LSHQ", connections=2, sessions=3)
        with self.load.holding(job) as result:
            self.assertEqual(result.sessions, 0)
        self.assertEqual((result.sessions, result.failures), (3, 0))
        self.spoil(b"tiny00002", b"tiny00009", "users.txt")
        with self.load.holding(replace(job, port=self.serve())) as result:
            pass
        self.assertGreater(result.failures, 0)


class ProcessTests(SynchronousTestCase):
    """What is counted of a process tree."""

    def start(self, program: str) -> Server:
        """A Python program that prints a line when it is where it should be."""
        log = Path(self.mktemp())
        server = Server([sys.executable, "-c", program], log)
        self.addCleanup(server.stop)
        self.assertEqual(server.first_line(), "ready")
        return server

    def test_counts_children(self) -> None:
        """CPU time of a child that is gone, and memory of a living one, count for the parent."""
        burn = "import time\nwhile time.process_time() < 0.2: pass"
        server = self.start(
            f"import os, subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {burn!r}])\n"
            "here, there = os.pipe()\n"
            "if not os.fork():\n  held = bytearray(os.urandom(30_000_000))\n  os.write(there, b'x')\n"
            "  time.sleep(60)\n"
            "os.read(here, 1)\nprint('ready', flush=True)\ntime.sleep(60)"
        )
        self.assertEqual(len(tree(server.pid)), 2)
        self.assertGreaterEqual(cpu_seconds(server.pid), 0.19)
        self.assertGreater(memory_octets(server.pid), 30_000_000)

    def test_stop_ends_the_whole_group(self) -> None:
        """A child that does not hear SIGTERM is gone when its parent is stopped."""
        server = self.start(
            "import os, signal, time\nif not os.fork():\n  signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "  print('ready', flush=True)\n  time.sleep(60)\ntime.sleep(60)"
        )
        state = Path(f"/proc/{tree(server.pid)[1]}/stat")
        server.stop()
        self.assertTrue(not state.exists() or state.read_text().rpartition(")")[2].split()[0] in "ZX")


class OutcomeTests(SynchronousTestCase):
    """Medians, ratios and the table."""

    def outcome(self) -> Outcome:
        """Two peers, three rounds."""
        samples = {
            "login": {
                "slow": [Sample(10, 0, rate=rate, cpu=0.004) for rate in (90.0, 100.0, 500.0)],
                "fast": [Sample(10, 0, rate=rate, cpu=0.001) for rate in (400.0, 300.0, 10.0)],
            },
            "memory": {"slow": [Sample(10, 0, memory=4096.0)], "fast": [Sample(10, 0, memory=1024.0)]},
        }
        return Outcome({"slow": "Slow 1", "fast": "Fast 2"}, {"none": "not installed"}, samples)

    def test_medians_and_ratios(self) -> None:
        """Ratios are of medians: more sessions, less CPU and less memory are all above one."""
        outcome = self.outcome()
        self.assertEqual(outcome.median("login", "slow", "rate"), 100.0)
        self.assertEqual(outcome.ratio(WORKLOADS["login"], "fast", "slow"), 3.0)
        self.assertEqual(outcome.cpu_ratio("login", "fast", "slow"), 4.0)
        self.assertEqual(outcome.ratio(WORKLOADS["memory"], "fast", "slow"), 4.0)
        self.assertIsNone(outcome.ratio(WORKLOADS["full"], "fast", "slow"))

    def test_table(self) -> None:
        """The text names who took part, who did not, each ratio, and what was wrong."""
        outcome = self.outcome()
        text = as_text(outcome, WORKLOADS.values(), "slow")
        for part in ("Fast 2", "none: left out: not installed", "x3.00", "x4.00", "4.0 KiB", "all right"):
            self.assertIn(part, text)
        outcome.wrong.append("fast, login: 1 wrong")
        text = as_text(outcome, WORKLOADS.values(), "slow")
        self.assertIn("fast, login: 1 wrong", text)
        self.assertNotIn("all right", text)

    def test_a_round_without_sessions(self) -> None:
        """A round in which no session came about has no latency, and so is not the fastest."""
        result = Result(sessions=0, failures=3)
        self.assertEqual((result.latency(0.5), result.latency(0.99)), (None, None))
        outcome = Outcome(
            samples={"login": {"one": [Sample(0, 3, p50=result.latency(0.5)), Sample(9, 0, p50=0.2)]}}
        )
        self.assertEqual(outcome.median("login", "one", "p50"), 0.2)


class DeliveredTests(SynchronousTestCase):
    """What came of mail that was sent."""

    def test_compared(self) -> None:
        """What is lost, twice, changed or a stranger's is found; headers before it and CRLF are not."""
        letters = tuple(Letter.make(1, number) for number in range(3))
        first, second, third = (letter.text for letter in letters)
        lost = "<1.0@example.org> is there 0 times"
        for delivered, faults in (
            ((b"Received: x\n" + first, second.replace(b"\n", b"\r\n"), third), []),
            ((second, third), [lost]),
            ((first, second, third, third), ["<1.2@example.org> is there 2 times"]),
            ((first, second, third, b"Subject: x\n\n"), ["a message that nobody sent"]),
            ((first[:-2] + b"\n", second, third), ["<1.0@example.org> has changed", lost]),
            ((first.replace(b"a", b"b", 1), second, third), ["<1.0@example.org> has changed", lost]),
            ((first + b".\n", second, third), ["<1.0@example.org> has changed", lost]),
        ):
            self.assertEqual(compare(letters, delivered), faults)

    def test_a_taker_that_refuses(self) -> None:
        """One that takes no mail is a fault of its own, and ends nothing."""

        def refuses(*_: object) -> None:
            raise Refused("421 go away")

        class Taker:
            def version(self) -> str:
                return "one of these days"

        self.patch(deliveries, "_measure", refuses)
        self.patch(deliveries, "TAKERS", {"one": Taker()})
        told = Path(self.mktemp())
        self.patch(sys, "stdout", io.StringIO())
        self.assertEqual(deliveries.run(Path(), ["one"], [deliveries.Row(1, 1)], 1, told), 1)
        self.assertEqual(json.loads(told.read_text())["wrong"], ["one: 421 go away"])


def need_compiler() -> None:
    """Skip where there is none."""
    if shutil.which("gcc") is None:
        raise SkipTest("no C compiler: apt-get install gcc libc6-dev libssl-dev")


def command_of(process: Path) -> str:
    """The command line of a process, if it is there."""
    try:
        return (process / "cmdline").read_text(errors="replace")
    except OSError:
        return ""


class CommandTests(SynchronousTestCase):
    """The command line."""

    def run_command(self, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run the benchmark from the checkout."""
        checkout = Path(command_line.__file__).parents[1]
        self.scratch = new_folder(self)
        environment = dict(os.environ, TMPDIR=str(self.scratch))
        if path is not None:
            environment["PATH"] = path
        return subprocess.run(
            [sys.executable, "-m", "benchmarks", *arguments],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
        )

    def test_refused(self) -> None:
        """What cannot be, and where nothing is left to be measured: said at once, with exit status 2."""
        for arguments, said in (
            ("--peers courier", "'courier' is none of dovecot, pop3toy"),
            ("--rounds=0", "argument --rounds: "),
            ("--seconds=x", "argument --seconds: "),
            ("--json=/nonexistent/table.json", "argument --json: "),
            ("--chart=/", "argument --chart: "),
            ("--chart=x.txt", "neither with .svg nor with .png"),
            ("--workloads=", "nothing is named"),
            ("deliveries --peers dovecot", "none of these takes mail"),
            ("deliveries --chart x.svg", "--chart is not for deliveries"),
            ("objects --peers pop3toy", "--peers is not for objects"),
            ("--quick --workloads 10k", "none of these workloads"),
            ("--quick --workloads login --peers dovecot-lmtp", "nobody took part"),
        ):
            done = self.run_command(*arguments.split())
            self.assertEqual((done.returncode, done.stdout), (2, ""), arguments)
            self.assertIn(said, done.stderr)
            self.assertNotIn("Traceback", done.stderr)

    def tools(self, *names: str) -> str:
        """A PATH with these programs alone."""
        folder = new_folder(self)
        for name in names:
            found = shutil.which(name)
            if found is None:
                raise SkipTest(f"no {name}: apt-get install gcc libc6-dev libssl-dev")
            (folder / name).symlink_to(found)
        return str(folder)

    def test_without_programs(self) -> None:
        """Without OpenSSL's program TLS is left out; without a compiler nothing is run."""
        arguments = ("--quick", "--peers", "pop3toy", "--workloads", "login,tls-full")
        done = self.run_command(*arguments, path=self.tools("gcc", "as", "ld"))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("TLS is left out: apt-get install openssl", done.stderr)
        self.assertNotIn("over TLS", done.stdout)
        done = self.run_command(*arguments, path="/nonexistent")
        self.assertEqual(done.returncode, 2)
        self.assertEqual(done.stderr, "no C compiler: apt-get install gcc libc6-dev libssl-dev\n")

    def test_impatience(self) -> None:
        """Whoever presses Ctrl-C again and again while it stops leaves nothing behind either."""
        need_compiler()
        scratch = new_folder(self)
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks", "--quick", "--peers", "pop3toy,sendfile", "--rounds", "100"],
            cwd=Path(command_line.__file__).parents[1],
            env=dict(os.environ, TMPDIR=str(scratch)),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("round 2"):
                break
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        self.assertEqual((process.wait(), said.splitlines()[-1]), (2, "stopped"))
        process.stderr.close()
        self.assertEqual(list(scratch.iterdir()), [])
        left = [
            one for one in Path("/proc").iterdir() if one.name.isdigit() and str(scratch) in command_of(one)
        ]
        self.assertEqual(left, [])

    def test_runs(self) -> None:
        """Table, curves and deliveries: all is compared and right, and nothing is left behind."""
        need_compiler()
        ceiling = "--peers sendfile --workloads full,pipelined --seconds 0.05"
        for arguments, line, times in (
            # A rate is compared in every row; CPU only where enough of it was needed to be measured.
            (ceiling, r"  sendfile +[0-9.,]+/?s? +x1\.00", 2),
            ("--peers pop3toy --workloads login", r"  pop3toy ", 1),
            ("curves --peers sendfile", r"  sendfile ", 6),
            ("deliveries --peers pop3toy-lmtp,pop3toy-smtp", r"  pop3toy-smtp ", 2),
        ):
            done = self.run_command(*arguments.split(), "--quick")
            rows = re.findall(f"^{line}", done.stdout, re.MULTILINE)
            self.assertEqual((done.returncode, len(rows)), (0, times), done.stdout + done.stderr)
            self.assertIn("all right", done.stdout)
            self.assertEqual(list(self.scratch.iterdir()), [])
