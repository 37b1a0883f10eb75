"""How fast mail comes in: messages of 6 KB, each on the disk before it is acknowledged.

Lives here: the rounds, the figures and the table.  Who takes the mail is in
``peers/mail_in.py``, who sends it in ``senders.py``.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.peers.mail_in import TAKERS, Taker
from benchmarks.peers.peer import DoesNotStart, NotHere
from benchmarks.processes import cpu_seconds
from benchmarks.rounds import machine, say
from benchmarks.senders import Letter, Refused, compare, files, send

#: Mailboxes that the mail goes to in turn.
USERS = 20
#: Seconds that mail which was taken may lie in a queue.
QUEUE_PATIENCE = 180.0


@dataclass(frozen=True)
class Row:
    """Connections at once, and how many messages over all of them."""

    connections: int
    messages: int

    @property
    def title(self) -> str:
        """For people."""
        many = f"{self.connections} connections at once" if self.connections > 1 else "one connection"
        return f"{self.messages:,} messages of 6 KB, {many}"


@dataclass
class Delivered:
    """One row of one peer, once.  Times in seconds."""

    #: Messages a second that were acknowledged, and that were in their Maildirs.
    taken: float
    delivered: float
    #: CPU of all the server's processes for a message.
    cpu: float
    p50: float
    p99: float
    #: How much of one core the senders needed, 0 to 1.
    client_busy: float


def _wait(mail: Path, users: Sequence[str], count: int) -> float:
    """Wait until so many messages are delivered; gives the time."""
    deadline = time.perf_counter() + QUEUE_PATIENCE
    while sum(len(files(mail, user)) for user in users) < count and time.perf_counter() < deadline:
        time.sleep(0.02)
    return time.perf_counter()


def _measure(taker: Taker, root: Path, row: Row, letters: Sequence[Letter]) -> tuple[Delivered, list[str]]:
    users = [f"user{number}" for number in range(USERS)]
    shutil.rmtree(root, ignore_errors=True)
    mail = root / "mail"
    for path in (root, mail):
        path.mkdir()
        path.chmod(0o755)
    for user in users:
        for folder in ("new", "cur", "tmp"):
            (mail / user / folder).mkdir(parents=True)
    if os.geteuid() == 0:
        # Who reads and writes mail is never root; pop3toy runs here as who started it.
        for path in (mail, *mail.rglob("*")):
            os.chown(path, 65534, 65534)
    own = root / "own"
    own.mkdir()
    own.chmod(0o755)
    with taker.running(own, mail, users):
        # The first delivery to each makes what a server needs to make once.
        warm = [Letter.make(2, number) for number in range(USERS)]
        faults = send(taker.port, warm, users, 1, lmtp=taker.lmtp).complaints
        _wait(mail, users, len(warm))
        before = sum(cpu_seconds(server.pid) for server in taker.servers)
        began = time.perf_counter()
        sent = send(taker.port, letters, users, row.connections, lmtp=taker.lmtp)
        delivered = _wait(mail, users, len(warm) + sent.count) - began
        cpu = sum(cpu_seconds(server.pid) for server in taker.servers) - before
        faults += sent.complaints
        for number, user in enumerate(users):
            there = [path.read_bytes() for path in files(mail, user)]
            faults += [f"{user}: {fault}" for fault in compare([warm[number], *sent.taken[user]], there)]
    count = max(sent.count, 1)
    latencies = sent.latencies or [0.0]
    return Delivered(
        sent.count / sent.seconds,
        sent.count / delivered,
        cpu / count,
        latencies[len(latencies) // 2],
        latencies[min(int(len(latencies) * 0.99), len(latencies) - 1)],
        sent.cpu / sent.seconds,
    ), faults


def _median(samples: Sequence[Delivered], figure: str) -> float:
    return statistics.median(getattr(sample, figure) for sample in samples)


def _as_text(versions: dict[str, str], samples: dict[str, dict[str, list[Delivered]]], reference: str) -> str:
    lines = [f"{name}: {version}" for name, version in versions.items()]
    head = f"  {'':<17}{'taken':>10}{'times':>8}{'delivered':>12}{'times':>8}{'cpu/message':>14}"
    head += f"{'p50 ms':>9}{'p99 ms':>9}{'senders':>9}"
    for title, peers in samples.items():
        lines += ["", title, head]
        for peer, own in peers.items():
            line = f"  {peer:<17}"
            for figure, width in (("taken", 10), ("delivered", 12)):
                value = _median(own, figure)
                line += f"{f'{value:,.0f}/s':>{width}}"
                base = _median(peers[reference], figure) if reference in peers else 0
                line += f"{f'x{value / base:.2f}' if base else '-':>8}"
            line += f"{_median(own, 'cpu') * 1e3:>11.2f} ms"
            line += f"{_median(own, 'p50') * 1e3:>9.2f}{_median(own, 'p99') * 1e3:>9.2f}"
            lines.append(line + f"{_median(own, 'client_busy'):>9.0%}")
    lines += [
        "",
        f"times: better than {reference}; medians over the rounds.",
        "taken: acknowledged with 250, hence on the disk (fsync); delivered: in its Maildir.",
        "senders: share of one core that sending needed.",
    ]
    return "\n".join(lines)


def run(root: Path, peers: Sequence[str], rows: Sequence[Row], rounds: int, json_to: Path | None) -> int:
    """Measure, print, and perhaps write; 1 if a message was lost, doubled or changed, else 0."""
    # How busy it was before, not with what is measured.
    where = machine()
    versions: dict[str, str] = {}
    left_out: dict[str, str] = {}
    wrong: list[str] = []
    samples: dict[str, dict[str, list[Delivered]]] = {}
    for name in peers:
        try:
            versions[name] = TAKERS[name].version()
        except NotHere as why:
            left_out[name] = str(why)
            say(f"{name} is left out: {why}")
    if not versions:
        say("nobody took part")
        return 2
    letters = [Letter.make(1, number) for number in range(max(row.messages for row in rows))]
    for turn in range(rounds):
        for row in rows:
            # Nobody is always the first.
            names = list(versions)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                say(f"round {turn + 1} of {rounds}: {row.title}: {name}")
                try:
                    sample, faults = _measure(TAKERS[name], root / "deliveries", row, letters[: row.messages])
                except (DoesNotStart, OSError, Refused) as why:
                    wrong.append(f"{name}: {why}")
                    continue
                samples.setdefault(row.title, {}).setdefault(name, []).append(sample)
                wrong += [f"{name}, {row.title}: {fault}" for fault in faults[:3]]
    reference = next(iter(versions), "")
    print(_as_text(versions, samples, reference))
    print("\n".join(wrong) or "every message was compared; all right")
    if json_to:
        told = {
            "machine": where,
            "peers": versions,
            "left_out": left_out,
            "wrong": wrong,
            "rows": {
                title: {peer: [asdict(sample) for sample in own] for peer, own in by_peer.items()}
                for title, by_peer in samples.items()
            },
        }
        json_to.write_text(json.dumps(told, indent=1) + "\n")
    return 1 if wrong else 0
