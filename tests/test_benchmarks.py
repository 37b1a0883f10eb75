"""The benchmark: its data sets are what they say, and its load generator believes no server."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
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

TINY = DataSet("tiny", users=3, messages=4, octets=5_000)
LINES = st.lists(st.sampled_from([b"", b".", b"..", b".x", b"x.", b"text"]), min_size=1, max_size=8)


class WireFormTests(SynchronousTestCase):
    """What the answers are compared with."""

    @given(LINES, st.booleans())
    def test_line_by_line(self, lines: list[bytes], ended: bool) -> None:
        """The wire form is each line, its dot doubled, with CRLF, and a dot alone at the end."""
        text = b"\n".join(lines) + (b"\n" if ended else b"")
        if not text.endswith(b"\n"):
            text += b"\n"
        expected = b"".join(
            (b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in text.split(b"\n")[:-1]
        )
        self.assertEqual(wire_form(text), expected + b".\r\n")

    @given(LINES, st.booleans())
    def test_octets_are_before_stuffing(self, lines: list[bytes], ended: bool) -> None:
        """The count is that of the message with CRLF, without the dots that stuffing adds."""
        text = b"\n".join(lines) + (b"\n" if ended else b"")
        whole = text if text.endswith(b"\n") else text + b"\n"
        self.assertEqual(octet_count(text), len(whole.replace(b"\n", b"\r\n")))


class DataSetTests(SynchronousTestCase):
    """Maildirs that are the same each time, and tables that fit them."""

    def make(self, data: DataSet = TINY) -> World:
        """A world with one data set."""
        root = Path(self.mktemp())
        root.mkdir()
        world = World(root)
        world.add(data)
        return world

    def messages(self, world: World, user: str) -> dict[str, bytes]:
        """Names and contents of a Maildir's messages."""
        cur = world.mail / user / "cur"
        return {path.name: path.read_bytes() for path in sorted(cur.iterdir())}

    def test_same_seed_same_mail(self) -> None:
        """Two worlds of one seed have the same files; another seed has others."""
        first, second = (self.messages(self.make(), "tiny00001") for _ in range(2))
        self.assertEqual(first, second)
        other = self.make(DataSet("tiny", users=3, messages=4, octets=5_000, seed=2))
        self.assertNotEqual(self.messages(other, "tiny00001"), first)

    def test_names_tell_both_sizes(self) -> None:
        """S= is the size of the file and W= the octets with CRLF, as Dovecot names its files."""
        for name, text in self.messages(self.make(), "tiny00000").items():
            found = re.search(r",S=(\d+),W=(\d+):2,S$", name)
            assert found is not None
            self.assertEqual((int(found[1]), int(found[2])), (len(text), octet_count(text)))

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

    def test_made_once(self) -> None:
        """A data set that is there is not made again; one that differs is."""
        world = self.make()
        stray = world.mail / "tiny00000" / "cur" / "stray"
        stray.touch()
        world.add(TINY)
        self.assertTrue(stray.exists())
        world.add(DataSet("tiny", users=3, messages=5, octets=5_000))
        self.assertFalse(stray.exists())

    def test_some_lines_begin_with_dots(self) -> None:
        """Text and attachments both hold what must be stuffed."""
        for attachment in (False, True):
            self.assertIn(b"\n.", message(1, 3, 60_000, attachment))

    def test_sizes_are_about_what_was_asked(self) -> None:
        """A message is within a tenth of its size, with and without an attachment."""
        for octets, attachment in ((900, False), (6_000, False), (200_000, True)):
            size = len(message(1, 5, octets, attachment))
            self.assertLess(abs(size - octets), octets / 10)


class LoadGeneratorTests(SynchronousTestCase):
    """Right answers pass, and each kind of wrong answer is found."""

    def setUp(self) -> None:
        """Compile both programs and make two copies of the truth: one to serve, one to compare with."""
        self.root = Path(self.mktemp())
        self.root.mkdir()
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

    def run_load(self, script: str = "LSTURQ", pipelined: bool = False, sessions: int = 6) -> Result:
        """Give a load to the copy's server."""
        job = Job(self.serve(), self.truth, script, connections=2, sessions=sessions, pipelined=pipelined)
        return self.load.run(job)

    def spoil(self, old: bytes, new: bytes, file: str = "wire.bin") -> None:
        """Change the first place where ``old`` stands in what is served."""
        path = self.served / file
        before = path.read_bytes()
        after = before.replace(old, new, 1)
        self.assertNotEqual(before, after)
        path.write_bytes(after)

    def test_right_answers(self) -> None:
        """Sessions of every command pass, one by one and pipelined, and every octet was read."""
        for pipelined in (False, True):
            result = self.run_load(pipelined=pipelined)
            self.assertEqual((result.sessions, result.failures, result.complaints), (6, 0, ""))
            self.assertEqual(len(result.latencies), 6)
            self.assertGreater(result.octets, 2 * (self.truth / "wire.bin").stat().st_size - 1)

    def test_one_wrong_octet_in_a_message(self) -> None:
        """One octet of one message is found, and the message is named."""
        self.spoil(b"Message-ID: <1.6@", b"Message-ID: <1.7@")
        result = self.run_load(pipelined=True)
        self.assertEqual(result.failures, 2)
        self.assertIn("tiny00001, reply to R 3: wrong octet: 0x37 instead of 0x36", result.complaints)

    def test_a_dot_that_is_not_stuffed(self) -> None:
        """A body whose stuffed dot was lost fails."""
        self.spoil(b"\r\n..", b"\r\n.x")
        self.assertGreater(self.run_load().failures, 0)

    def test_wrong_listing(self) -> None:
        """A LIST with another size fails."""
        octets = (self.truth / "wire.bin").read_bytes().partition(b"\r\n.\r\n1 ")[2].partition(b"\r\n")[0]
        self.spoil(b"\r\n.\r\n1 " + octets, b"\r\n.\r\n1 " + octets[:-1] + b"x")
        self.assertIn("reply to T", self.run_load().complaints)

    def test_wrong_count(self) -> None:
        """A STAT with another sum fails."""
        line = (self.truth / "users.txt").read_text().splitlines()[0].split()
        self.spoil(f" 4 {line[4]} ".encode(), f" 4 {int(line[4]) + 1} ".encode(), "users.txt")
        self.assertIn("wrong count or octets", self.run_load("LSQ").complaints)

    def test_unique_id_twice(self) -> None:
        """Two messages with one unique-id fail, also when only case tells them apart."""
        self.spoil(b"2 0000.00000002", b"2 0000.00000001")
        self.assertIn("a unique-id that is there twice", self.run_load("LUQ").complaints)

    def test_unique_ids_that_change(self) -> None:
        """A listing that differs from the one that was learned fails."""
        job = Job(self.serve(), self.truth, "LUQ", sessions=3, learn=self.root / "known")
        self.assertEqual(self.load.run(job).failures, 0)
        self.spoil(b"4 0002.00000004", b"4 0002.00000014")
        job = Job(self.serve(), self.truth, "LUQ", sessions=3, known=self.root / "known")
        self.assertEqual(self.load.run(job).failures, 1)

    def test_refused_login(self) -> None:
        """-ERR is a failure and shows the server's words."""
        self.spoil(b"tiny00002", b"tiny00009", "users.txt")
        result = self.run_load("LSQ", sessions=3)
        self.assertEqual(result.failures, 1)
        self.assertIn("tiny00002, reply to p: not +OK: -ERR", result.complaints)

    def test_held_sessions(self) -> None:
        """Sessions are held open while the body runs, and end with QUIT behind it."""
        job = Job(self.serve(), self.truth, "LSHQ", connections=2, sessions=3)
        with self.load.holding(job) as result:
            self.assertEqual(result.sessions, 0)
        self.assertEqual((result.sessions, result.failures), (3, 0))

    def test_held_sessions_that_fail(self) -> None:
        """A server that refuses one of them does not hang the run."""
        self.spoil(b"tiny00002", b"tiny00009", "users.txt")
        job = Job(self.serve(), self.truth, "LSHQ", connections=2, sessions=3)
        with self.load.holding(job) as result:
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

    def test_children_that_ended_count(self) -> None:
        """CPU time of a child that has come and gone is part of its parent's."""
        burn = "import time\nwhile time.process_time() < 0.2: pass"
        program = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\n"
        server = self.start(
            program + "print('ready', flush=True)\nsys.stdin.read()\nimport time; time.sleep(60)"
        )
        self.assertEqual(tree(server.pid), [server.pid])
        self.assertGreaterEqual(cpu_seconds(server.pid), 0.19)

    def test_memory_counts_children(self) -> None:
        """Memory of a living child is part of the sum."""
        program = (
            "import os, time\nhere, there = os.pipe()\n"
            "if not os.fork():\n  held = bytearray(os.urandom(30_000_000))\n  os.write(there, b'x')\n"
            "  time.sleep(60)\n"
            "os.read(here, 1)\nprint('ready', flush=True)\ntime.sleep(60)"
        )
        server = self.start(program)
        self.assertEqual(len(tree(server.pid)), 2)
        self.assertGreater(memory_octets(server.pid), 30_000_000)

    def test_stop_ends_the_whole_group(self) -> None:
        """A child that does not hear SIGTERM is gone when its parent is stopped."""
        program = (
            "import os, signal, time\nif not os.fork():\n  signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "  print('ready', flush=True)\n  time.sleep(60)\ntime.sleep(60)"
        )
        server = self.start(program)
        child = tree(server.pid)[1]
        server.stop()
        state = Path(f"/proc/{child}/stat")
        gone = not state.exists() or state.read_text().rpartition(")")[2].split()[0] in "ZX"
        self.assertTrue(gone)


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
        """The text names who took part, who did not, and each ratio."""
        text = as_text(self.outcome(), WORKLOADS.values(), "slow")
        for part in ("Fast 2", "none: left out: not installed", "x3.00", "x4.00", "4.0 KiB", "all right"):
            self.assertIn(part, text)

    def test_wrong_answers_stand_in_the_table(self) -> None:
        """A fault is said, and "all right" is not."""
        outcome = self.outcome()
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

    letters = tuple(Letter.make(1, number) for number in range(3))

    def compared(self, *delivered: bytes) -> list[str]:
        """What is found wrong."""
        return compare(self.letters, delivered)

    def test_right(self) -> None:
        """Headers before a message, and CRLF for LF, are no fault."""
        first, second, third = (letter.text for letter in self.letters)
        self.assertEqual(self.compared(b"Received: x\n" + first, second.replace(b"\n", b"\r\n"), third), [])

    def test_lost(self) -> None:
        """A message that is not there is found."""
        texts = [letter.text for letter in self.letters[1:]]
        self.assertEqual(self.compared(*texts), ["<1.0@example.org> is there 0 times"])

    def test_twice(self) -> None:
        """A message that is there twice is found."""
        texts = [letter.text for letter in self.letters]
        self.assertEqual(self.compared(*texts, texts[2]), ["<1.2@example.org> is there 2 times"])

    def test_changed(self) -> None:
        """One octet that differs, and a lost dot, are found."""
        first, second, third = (letter.text for letter in self.letters)
        for spoiled in (first[:-2] + b"\n", first.replace(b"a", b"b", 1), first + b".\n"):
            self.assertIn("<1.0@example.org> has changed", self.compared(spoiled, second, third))

    def test_stray(self) -> None:
        """A message that nobody sent is found."""
        texts = [letter.text for letter in self.letters]
        self.assertEqual(self.compared(*texts, b"Subject: x\n\n"), ["a message that nobody sent"])

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
        self.scratch = Path(self.mktemp()).resolve()
        self.scratch.mkdir()
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

    def test_unknown_peer(self) -> None:
        """A peer that nobody knows is refused with the list of those there are."""
        done = self.run_command("--peers", "courier")
        self.assertEqual(done.returncode, 2)
        self.assertIn("'courier' is none of dovecot, pop3toy", done.stderr)

    def test_values_that_cannot_be(self) -> None:
        """Numbers and files that cannot be are refused before anything is measured."""
        for option, value in (
            ("--rounds", "0"),
            ("--rounds", "-1"),
            ("--users", "x"),
            ("--seconds", "nan"),
            ("--json", "/nonexistent/table.json"),
            ("--chart", "/"),
        ):
            done = self.run_command(f"{option}={value}")
            self.assertEqual((done.returncode, done.stdout), (2, ""), option)
            self.assertIn(f"argument {option}: ", done.stderr)

    def test_nothing_to_measure(self) -> None:
        """Where nothing is left to be measured, that is said, with exit status 2."""
        for arguments, said in (
            (("deliveries", "--peers", "dovecot"), "none of these takes mail"),
            (("deliveries", "--chart", "x.svg"), "--chart is not for deliveries"),
            (("curves", "--rounds", "2"), "--rounds is not for curves"),
            (("--most-messages", "10"), "--most-messages is not for table"),
            (("--workloads", ""), "nothing is named"),
            (("--quick", "--workloads", "10k"), "none of these workloads"),
            (("--chart", "x.txt"), "neither with .svg nor with .png"),
            (("--keep-dir", "/dev/null"), "/dev/null: "),
            (("--keep-dir", str(Path(self.mktemp(), "long" * 20).absolute())), "too long a path"),
            (("--quick", "--workloads", "login", "--peers", "dovecot-lmtp"), "nobody took part"),
        ):
            done = self.run_command(*arguments)
            self.assertEqual((done.returncode, done.stdout), (2, ""), arguments)
            self.assertIn(said, done.stderr)
            self.assertNotIn("Traceback", done.stderr)

    def tools(self, *names: str) -> str:
        """A PATH with these programs alone."""
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        for name in names:
            found = shutil.which(name)
            if found is None:
                raise SkipTest(f"no {name}: apt-get install gcc libc6-dev libssl-dev")
            (folder / name).symlink_to(found)
        return str(folder)

    def test_no_openssl(self) -> None:
        """Without OpenSSL's program rows with TLS are left out, with a word, and nothing is wrong."""
        done = self.run_command(
            *("--quick", "--peers", "pop3toy", "--workloads", "login,tls-full", "--users", "2"),
            path=self.tools("gcc", "as", "ld"),
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("TLS is left out: apt-get install openssl", done.stderr)
        self.assertNotIn("over TLS", done.stdout)

    def test_two_in_one_directory(self) -> None:
        """Of two runs in one directory the second says so, instead of spoiling both."""
        kept = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, kept)
        Path(kept).chmod(0o755)
        row = ("--quick", "--peers", "sendfile", "--workloads", "login", "--users", "2", "--keep-dir", kept)
        with (Path(kept) / "in-use").open("w") as mark:
            fcntl.flock(mark, fcntl.LOCK_EX)
            done = self.run_command(*row)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn(f"another run uses {kept}", done.stderr)
        need_compiler()
        self.assertEqual(self.run_command(*row).returncode, 0)

    def test_more_generators_than_users(self) -> None:
        """Each process of the load generator has users of its own, or is not started."""
        need_compiler()
        row = ("--quick", "--peers", "pop3toy", "--workloads", "login")
        done = self.run_command(*row, "--users", "1", "--load-processes", "2")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_impatience(self) -> None:
        """Whoever presses Ctrl-C again and again while it stops leaves nothing behind either."""
        need_compiler()
        scratch = Path(self.mktemp()).resolve()
        scratch.mkdir()
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

    def test_no_compiler(self) -> None:
        """Without a compiler one line names the packages."""
        done = self.run_command("--quick", path="/nonexistent")
        self.assertEqual(done.returncode, 2)
        self.assertEqual(done.stderr, "no C compiler: apt-get install gcc libc6-dev libssl-dev\n")

    def test_ceiling_alone(self) -> None:
        """One peer, one workload: a table, right answers, exit status 0, nothing left behind."""
        need_compiler()
        done = self.run_command(
            "--quick",
            "--peers",
            "sendfile",
            "--workloads",
            "full,pipelined",
            "--users",
            "2",
            "--seconds",
            "0.05",
        )
        # A rate is compared in every row; CPU only where a slow machine needed enough of it to be measured.
        rows = re.findall(r"^  sendfile +[0-9.,]+/?s? +x1\.00", done.stdout, re.MULTILINE)
        self.assertEqual((done.returncode, len(rows)), (0, 2), done.stdout + done.stderr)
        self.assertIn("all right", done.stdout)
        self.assertEqual(list(self.scratch.iterdir()), [])

    def test_deliveries(self) -> None:
        """Mail that comes in by SMTP and LMTP: a table, every message compared, nothing left behind."""
        done = self.run_command(
            "deliveries", "--quick", "--messages", "16", "--peers", "pop3toy-lmtp,pop3toy-smtp"
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("every message was compared; all right", done.stdout)
        self.assertEqual(done.stdout.count("pop3toy-smtp "), 2, done.stdout)
        self.assertEqual(list(self.scratch.iterdir()), [])

    def test_curves(self) -> None:
        """The curves of the ceiling, several steps of each: right answers, nothing left behind."""
        need_compiler()
        reach = ("--most-messages", "100", "--most-octets", "10000", "--most-connections", "10")
        done = self.run_command("curves", "--quick", "--peers", "sendfile", *reach)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(done.stdout.count("sendfile "), 6, done.stdout)
        self.assertIn("all right", done.stdout)
        self.assertEqual(list(self.scratch.iterdir()), [])
