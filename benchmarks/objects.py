"""What mail on object storage costs: the same mail in Maildirs and in a Ceph, with 1, 2 and 4 processes.

Lives here: the order of things, and what must hold.  Rows, load and figures are those of the table; requests
are counted in a round of its own, in which nothing is measured (``requests``).
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from benchmarks.datasets import PASSWORD, DataSet
from benchmarks.load import Job, LoadGenerator
from benchmarks.measure import Bench, Sample
from benchmarks.peers import NotHere, Peer
from benchmarks.peers.object_store import OnObjects, Storage, command
from benchmarks.peers.python_servers import ROOT, Pop3toy
from benchmarks.processes import cpu_seconds
from benchmarks.report import as_text
from benchmarks.requests import CountingProxy, expected
from benchmarks.rounds import Outcome, say
from benchmarks.rounds import run as in_turn
from benchmarks.senders import Letter, send
from benchmarks.workloads import WORKLOADS, Workload

ROWS = ("login", "login-1", "full", "full-1", "bulk")
PROCESSES = (1, 2, 4)
#: What everything is compared with: the Maildirs, one process.
REFERENCE = "maildir-1"
#: The most that a login of an unchanged mailbox may ask for, from connect to the reply to QUIT.
MOST = {"GET": 2, "PUT": 2, "LIST": 1}
#: What fetching may cost beside Maildirs, without the requests' own CPU.
TIMES = 1.3
#: Seconds for something to come that is sure to.
PATIENCE = 10.0


class ObjectsBench(Bench):
    """A bench that looks at the storage as well.

    :ivar storage: by row and peer, what a session costs there: CPU in seconds, octets written.
    """

    ceph: Storage

    def __init__(self, bench: Bench, ceph: Storage) -> None:
        super().__init__(bench.setting, bench.load, bench.seconds)
        self.ceph = ceph
        self.storage: dict[str, dict[str, list[dict[str, float]]]] = {}

    def sample(self, peer: Peer, workload: Workload) -> Sample:
        """See :class:`~benchmarks.measure.Bench`."""
        cpu, written = self.ceph.cpu(), self.ceph.written()
        sample = super().sample(peer, workload)
        if isinstance(peer, OnObjects) and sample.sessions:
            told = {name: (now - cpu[name]) / sample.sessions for name, now in self.ceph.cpu().items()}
            told["written"] = (self.ceph.written() - written) / sample.sessions
            self.storage.setdefault(workload.name, {}).setdefault(peer.name, []).append(told)
        return sample


class Client:
    """A POP3 client that reads when it is told to."""

    def __init__(self, port: int, user: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._file = self._socket.makefile("rb")
        self.line()
        for command_ in (f"USER {user}", f"PASS {PASSWORD}"):
            self.ask(command_)

    def send(self, text: str) -> None:
        """A command, whose reply is not read yet."""
        self._socket.sendall(text.encode("ascii") + b"\r\n")

    def line(self) -> bytes:
        """The first line of a reply.

        :raises AssertionError: if it is not +OK.
        """
        line = self._file.readline()
        assert line.startswith(b"+OK"), line
        return line

    def ask(self, text: str, *, many: bool = False) -> None:
        """A command and its reply, perhaps of many lines."""
        self.send(text)
        self.line()
        while many and self._file.readline() != b".\r\n":
            pass

    def close(self) -> None:
        """QUIT."""
        self.ask("QUIT")
        self._socket.close()


def too_many(counts: Counter[str], sessions: int) -> list[str]:
    """What is above :data:`MOST` in the requests of logins."""
    by_method: Counter[str] = Counter()
    for kind, count in counts.items():
        by_method[kind.split(" ")[0]] += count
    return [
        f"a login needs {count / sessions:.2f} {method}, and may need {MOST.get(method, 0)}"
        for method, count in by_method.items()
        if count > MOST.get(method, 0) * sessions
    ]


def differing(what: str, counts: Counter[str], wanted: Counter[str], sessions: int) -> list[str]:
    """Where the requests of sessions are not those of the design."""
    return [
        f"{what}: {counts[kind] / sessions:g} {kind} a session, {wanted[kind]} by the design"
        for kind in sorted({*counts, *wanted})
        if counts[kind] != wanted[kind] * sessions
    ]


def overlap(proxy: CountingProxy, client: Client, messages: int) -> list[int]:
    """Fetch all messages in order; the numbers of those that were asked for while the one before was sent.

    The client reads nothing of message *n*, and does not ask for the next, until the storage was asked for
    *n* + 1 or that does not come: so nothing but the server can have asked ahead.
    """
    early = []
    proxy.take()

    def asked() -> int:
        return sum(one.method == "GET" and one.about == "m" for one in proxy.seen)

    for number in range(1, messages + 1):
        client.send(f"RETR {number}")
        # The server begins to look ahead with the second message that is fetched in order.
        patience = PATIENCE if 1 < number < messages else 0.2
        deadline = time.monotonic() + patience
        while asked() <= number and time.monotonic() < deadline:
            time.sleep(0.001)
        if asked() > number:
            early.append(number + 1)
        client.line()
        while client._file.readline() != b".\r\n":
            pass
    return early


def _counted(
    bench: ObjectsBench, proxy: CountingProxy, sets: Sequence[DataSet]
) -> tuple[dict[str, object], list[str]]:
    """The round in which requests are counted: what was, and what is wrong in it."""
    peer = OnObjects("counting", proxy.place, lmtp=True)
    told: dict[str, object] = {}
    wrong: list[str] = []
    bench.start(peer)
    small, big = sets
    world = bench.setting.world

    def count(what: str, wanted: Counter[str], times: int, do: Callable[[], object]) -> Counter[str]:
        proxy.take()
        do()
        # The lease is free before the client reads the reply to QUIT.
        counts = proxy.take()
        told[what] = {kind: number / times for kind, number in sorted(counts.items())}
        wrong.extend(differing(what, counts, wanted, times))
        return counts

    def load(data: DataSet, script: str, sessions: int) -> None:
        result = bench.load.run(Job(peer.port, world.expected(data), script, sessions=sessions))
        if result.failures:
            wrong.append(f"{script}: {result.complaints}")

    try:
        # The first session connects, and looks what the storage can do.
        load(small, "LSQ", 1)
        logins = count("login", expected(small.messages), 20, lambda: load(small, "LSQ", 20))
        wrong += too_many(logins, 20)
        fetched = expected(small.messages, small.octets, fetched=True)
        count("full", fetched, 10, lambda: load(small, "LSTURQ", 10))
        lines = (world.expected(big) / "messages.bin").read_bytes()
        ranges = sum(-(-octets // 1_048_576) for octets in memoryview(lines).cast("Q")[::3])
        wanted = expected(big.messages)
        wanted["GET m"] = ranges
        count("bulk", wanted, 1, lambda: load(big, "LSRQ", 1))
        client = Client(peer.port, small.user(0))
        early = overlap(proxy, client, small.messages)
        client.close()
        told["asked ahead"] = early
        if early != list(range(3, small.messages + 1)):
            wrong.append(
                f"of messages 3 to {small.messages} these were asked for while one was sent: {early}"
            )
        user = small.user(1)
        letters = [Letter.make(3, number) for number in range(10)]

        def deliver() -> None:
            wrong.extend(send(peer.lmtp_port, letters, [user], 1, lmtp=True).complaints)

        deliveries = Counter({"GET a": 2, "PUT m": 1})
        count("delivery", deliveries, len(letters), deliver)

        def remove() -> None:
            client = Client(peer.port, user)
            client.ask("TOP 1 0", many=True)
            for number in range(1, 4):
                client.ask(f"DELE {number}")
            client.close()

        removing = expected(small.messages + len(letters), removed=3) + Counter({"GET m": 1})
        count("TOP, and three removed", removing, 1, remove)
    finally:
        peer.stop()
    return told, wrong


def _taken(bench: ObjectsBench, data: DataSet, count: int) -> dict[str, float]:
    """Mail that comes in by LMTP over eight connections: rate, and CPU a message."""
    peer = OnObjects("deliveries", bench.ceph.place, lmtp=True)
    bench.start(peer)
    try:
        assert peer.server is not None
        users = [data.user(number) for number in range(data.users)]
        letters = [Letter.make(5, number) for number in range(count)]
        warm = [Letter.make(4, number) for number in range(len(users))]
        faults = send(peer.lmtp_port, warm, users, 1, lmtp=True).complaints
        before, storage, written = _cpu(peer), bench.ceph.cpu(), bench.ceph.written()
        sent = send(peer.lmtp_port, letters, users, 8, lmtp=True)
        assert not faults + sent.complaints, faults + sent.complaints
        return {
            "rate": count / sent.seconds,
            "cpu": (_cpu(peer) - before) / count,
            "p50": sent.latencies[count // 2],
            "p99": sent.latencies[int(count * 0.99)],
            **{name: (now - storage[name]) / count for name, now in bench.ceph.cpu().items()},
            "written": (bench.ceph.written() - written) / count,
        }
    finally:
        peer.stop()


def _cpu(peer: Peer) -> float:
    assert peer.server is not None
    return cpu_seconds(peer.server.pid)


def _alone(storage: Storage, drop: str, sessions: int, at_once: int) -> float:
    """Seconds of CPU of the requests of one session that fetches all of a small mailbox."""
    place = storage.place
    arguments = [place.endpoint, place.url, str(place.credentials), drop, str(sessions), str(at_once)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.requests", *arguments], cwd=ROOT, capture_output=True, check=True
    )
    return float(json.loads(done.stdout))


def _beside(bench: ObjectsBench, full: Workload, rate: float) -> dict[str, float]:
    """CPU of fetching all messages from objects, and from Maildirs as often, at the same time.

    A server that has much to do at once does each of it with less: on a machine that Ceph keeps busy, so many
    sessions a second cost Maildirs twice what one of as many as they can serve does.  So they are given what
    the objects can serve, in the same seconds.
    """
    objects, maildirs = OnObjects("beside", bench.ceph.place), Pop3toy("beside-maildir")
    world, scratch = bench.setting.world, bench.setting.scratch / "beside-load"
    scratch.mkdir(exist_ok=True)
    loads = {objects: bench.load, maildirs: LoadGenerator(bench.load.program, scratch)}
    jobs = {}
    try:
        for peer in loads:
            bench.start(peer)
            warm = Job(peer.port, world.expected(world.sets[0]), full.script, full.connections, sessions=100)
            assert not (told := bench.load.run(warm)).failures, told.complaints
            pace = rate if peer is maildirs else 0.0
            jobs[peer] = replace(warm, sessions=0, seconds=bench.seconds * 3, pace=pace)
        before = {peer: _cpu(peer) for peer in loads}
        with ThreadPoolExecutor(2) as pool:
            results = dict(zip(loads, pool.map(lambda peer: loads[peer].run(jobs[peer]), loads), strict=True))
        assert not sum(result.failures for result in results.values()), results
        ours, theirs = ((_cpu(peer) - before[peer]) / results[peer].sessions for peer in loads)
        return {"objects": ours, "maildir": theirs, "pace": results[maildirs].rate}
    finally:
        objects.stop()
        maildirs.stop()


def _goal(outcome: Outcome, alone: float, beside: dict[str, float]) -> dict[str, float | None]:
    """CPU of fetching 20 messages, and what it may be."""
    return {
        "objects": beside["objects"],
        "maildir": beside["maildir"],
        "pace": beside["pace"],
        "requests alone": alone,
        "goal": TIMES * beside["maildir"] + alone,
        "maildir, as many as it can": outcome.median("full", REFERENCE, "cpu"),
    }


def run(
    bench: Bench, sets: Sequence[DataSet], root: Path, *, rounds: int, quick: bool, json_to: Path | None
) -> int:
    """Measure, print, and perhaps write; 1 for a wrong answer or a request too many, else 0."""
    try:
        say("starting Ceph")
        storage = Storage(root / "storage")
    except NotHere as why:
        say(str(why))
        return 2
    try:
        return _run(ObjectsBench(bench, storage), sets, rounds, quick, json_to)
    finally:
        storage.stop()


def _run(bench: ObjectsBench, sets: Sequence[DataSet], rounds: int, quick: bool, json_to: Path | None) -> int:
    world, place = bench.setting.world, bench.ceph.place
    say("copying the mail to object storage")
    users = [data.user(number) for data in sets for number in range(data.users)]
    command(
        "store", "copy", "--threads", "8", f"{world.mail}/{{user}}", place.url, *place.options("--to"), *users
    )
    peers: list[Peer] = []
    for count in PROCESSES:
        workers = count if count > 1 else 0
        peers += [Pop3toy(f"maildir-{count}", workers), OnObjects(f"objects-{count}", place, workers)]
    workloads = [WORKLOADS[name] for name in ROWS]
    if quick:
        workloads = [workload.quick() for workload in workloads]
    outcome = in_turn(bench, peers, workloads, rounds)
    say("fetching from both at the same time")
    full = next(workload for workload in workloads if workload.name == "full")
    # Before mail comes in: every answer is compared.
    beside = _beside(bench, full, outcome.median("full", "objects-1", "rate") or 1.0)
    proxy = CountingProxy(place)
    try:
        say("counting requests")
        counts, wrong = _counted(bench, proxy, sets)
    finally:
        proxy.close()
    outcome.wrong += wrong
    say("requests alone, and mail that comes in")
    alone = _alone(bench.ceph, _drop(bench), 64 if quick else 400, full.connections)
    taken = _taken(bench, sets[0], 100 if quick else 1000)
    goal = _goal(outcome, alone, beside)
    print(as_text(outcome, workloads, REFERENCE))
    print(_more(counts, goal, taken, bench))
    if json_to:
        told = outcome.as_json(workloads, REFERENCE)
        told |= {"storage": bench.storage, "requests": counts, "fetching": goal, "deliveries": taken}
        told |= {"ceph": bench.ceph.version()}
        json_to.write_text(json.dumps(told, indent=1) + "\n")
    return 1 if outcome.wrong else 0


def _drop(bench: ObjectsBench) -> str:
    """The maildrop of the first user of all."""
    from pop3toy.stores.objects.connecting import Engines
    from pop3toy.stores.objects.settings import Objects
    from pop3toy.stores.objects.users import Users

    place = bench.ceph.place
    settings = Objects(place.url, endpoint=place.endpoint, credentials=str(place.credentials))
    return Users(Engines(settings)).find(bench.setting.world.sets[0].user(0)).drop


def _more(
    counts: dict[str, object], goal: dict[str, float | None], taken: dict[str, float], bench: ObjectsBench
) -> str:
    """What the table has no column for."""
    lines = ["requests a session, counted by a proxy:"]
    for what, told in counts.items():
        words = (
            ", ".join(f"{n:g} {kind}" for kind, n in told.items())
            if isinstance(told, dict)
            else f"messages {told}"
        )
        lines.append(f"  {what}: {words}")
    lines += ["", "CPU of the storage for a session (gateways, OSDs) and octets that three OSDs write:"]
    for row, by_peer in bench.storage.items():
        own = by_peer.get("objects-1", [])
        for told in own[-1:]:
            gateways, osds = told["gateways"] * 1e3, told["osds"] * 1e3
            lines.append(f"  {row}: {gateways:.2f} ms, {osds:.2f} ms, {told['written']:,.0f}")
    rate, cpu, half, most = taken["rate"], taken["cpu"] * 1e3, taken["p50"] * 1e3, taken["p99"] * 1e3
    lines += [
        "",
        f"a message that comes in (LMTP, 8 connections): {rate:,.0f}/s, CPU {cpu:.2f} ms, "
        f"half within {half:.1f} ms, 99 % within {most:.1f} ms",
    ]
    ours, theirs, alone, most_cpu, flat_out = (
        (goal[name] or 0.0) * 1e3
        for name in ("objects", "maildir", "requests alone", "goal", "maildir, as many as it can")
    )
    lines += [
        f"20 messages fetched: CPU {ours:.2f} ms, {'within' if ours <= most_cpu else 'ABOVE'} {most_cpu:.2f}",
        f"  ({TIMES} x {theirs:.2f} ms of Maildirs at the same time and pace ({goal['pace']:.0f}/s), and",
        f"  {alone:.2f} ms of the requests alone; Maildirs that serve all they can: {flat_out:.2f} ms)",
    ]
    return "\n".join(lines)
