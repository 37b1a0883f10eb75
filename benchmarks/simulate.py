"""How many machines a large number of mailboxes needs, and what they cost, on object storage::

    python -m benchmarks.simulate
    python -m benchmarks.simulate --mailboxes 100000 --polls 24 --kept 200

Arithmetic on two things: what was measured on one machine (``docs/objects.json``, written by
``python -m benchmarks objects --json``), and assumptions, each of which is an option.  It knows averages and
a factor for the busiest hour, no queues: it tells the order of magnitude, not when a disk is too slow.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

FIGURES = Path(__file__).parents[1] / "docs" / "objects.json"
DAY = 86_400
#: Days of a month.
MONTH = 365 / 12
#: Octets of one request for a part of a message, and messages of one listing's answer.
RANGE, LISTED = 1_048_576, 1000


def assume(value: float, text: str) -> float:
    """An assumption, and what it is."""
    number: float = field(default=value, metadata={"text": text})
    return number


@dataclass(frozen=True)
class Assumptions:
    """What is not measured.  Times in days, money in US dollars a month unless it says otherwise."""

    mailboxes: float = assume(10_000_000, "mailboxes")
    polls: float = assume(48, "sessions a day and mailbox, all of them averaged")
    messages: float = assume(15, "messages that come in a day and mailbox")
    small: float = assume(8_000, "octets of a small message")
    middle: float = assume(80_000, "octets of one in the middle")
    large: float = assume(2_500_000, "octets of a large one")
    middle_share: float = assume(0.25, "share of messages in the middle")
    large_share: float = assume(0.03, "share of large ones")
    keeping: float = assume(0.3, "share of mailboxes that keep mail on the server")
    kept: float = assume(1_000, "messages in each of those")
    waiting: float = assume(10, "messages in each of the others, which remove what they fetch")
    peak: float = assume(3, "times the average in the busiest hour")
    busy: float = assume(0.6, "share of a core, a disk's operations or a disk's room that may be used")
    server_cores: float = assume(16, "cores of a machine with servers, one process each")
    node_cores: float = assume(32, "cores of a storage machine, with its gateway")
    node_disks: float = assume(12, "OSDs of a storage machine, one NVMe each")
    disk_octets: float = assume(7.68e12, "octets of one of those")
    disk_operations: float = assume(20_000, "small synchronous operations that one carries out in a second")
    put_operations: float = assume(2, "operations of a PUT on each replica: the object and the index")
    replicas: float = assume(3, "replicas")
    shard_objects: float = assume(100_000, "objects in a shard of a bucket's index")
    bucket_shards: float = assume(11, "shards of a bucket; a LIST asks each of them")
    server_price: float = assume(250, "a machine with servers: its price over 5 years, power, room")
    node_price: float = assume(700, "a storage machine, the same")
    s3_get: float = assume(0.40, "dollars for a million GET")
    s3_put: float = assume(5.00, "dollars for a million PUT or LIST; DELETE is free")
    s3_stored: float = assume(0.022, "dollars for a GB (10^9 octets here) stored")

    def mean(self, parts: Sequence[float]) -> float:
        """The mean over messages of a figure of small, middle and large ones."""
        small, middle, large = parts
        rest = 1 - self.middle_share - self.large_share
        return rest * small + self.middle_share * middle + self.large_share * large

    @property
    def octets(self) -> float:
        """Octets of a message on average."""
        return self.mean((self.small, self.middle, self.large))

    @property
    def ranges(self) -> float:
        """GETs of a message on average."""
        return self.mean([max(math.ceil(one / RANGE), 1) for one in (self.small, self.middle, self.large)])

    @property
    def stored(self) -> float:
        """Messages that are there."""
        return self.mailboxes * (self.keeping * self.kept + (1 - self.keeping) * self.waiting)


@dataclass(frozen=True)
class Cost:
    """Seconds of CPU of one thing: in servers, in gateways, in OSDs."""

    servers: float
    gateways: float
    osds: float

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            max(self.servers - other.servers, 0.0),
            max(self.gateways - other.gateways, 0.0),
            max(self.osds - other.osds, 0.0),
        )

    def times(self, count: float) -> Cost:
        """That of so many."""
        return Cost(self.servers * count, self.gateways * count, self.osds * count)

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.servers + other.servers, self.gateways + other.gateways, self.osds + other.osds)


@dataclass(frozen=True)
class Measured:
    """What one machine has shown."""

    poll: Cost
    fetched: Cost
    delivered: Cost
    #: Requests of a poll by method, counted.
    requests: dict[str, float]

    @classmethod
    def read(cls, path: Path) -> Measured:
        """Read the benchmark's figures.

        :raises KeyError: if the file has not all of them.
        """
        told = json.loads(path.read_text())

        def cost(row: str) -> Cost:
            rounds = told["storage"][row]["objects-1"]
            middle = len(rounds) // 2
            gateways, osds = (sorted(one[of] for one in rounds)[middle] for of in ("gateways", "osds"))
            return Cost(told["workloads"][row]["peers"]["objects-1"]["median"]["cpu"], gateways, osds)

        poll, mail = cost("login"), told["deliveries"]
        messages = sum(n for kind, n in told["requests"]["full"].items() if kind == "GET m")
        requests: dict[str, float] = {}
        for kind, count in told["requests"]["login"].items():
            method = kind.split(" ")[0]
            requests[method] = requests.get(method, 0) + count
        return cls(
            poll,
            (cost("full") - poll).times(1 / messages),
            Cost(mail["cpu"], mail["gateways"], mail["osds"]),
            requests,
        )


@dataclass(frozen=True)
class Need:
    """What it takes, in the busiest hour where that matters."""

    #: Requests a day, by method.
    requests: dict[str, float]
    #: Seconds of CPU that each second of the busiest hour needs.
    cores: Cost
    processes: int
    servers: int
    #: Operations of all disks in a second of the busiest hour.
    operations: float
    #: Octets of the mail, once.
    octets: float
    #: Storage machines by what asks for so many.
    nodes_for: dict[str, int]
    nodes: int
    objects: float
    buckets: int
    s3_requests: float
    s3_stored: float
    own: float


def simulate(of: Assumptions, measured: Measured) -> Need:
    """Work it out."""
    polls, mail = of.mailboxes * of.polls, of.mailboxes * of.messages
    # Each message that comes is fetched once, and in a mailbox that keeps none removed in that session.
    removing = min(polls, mail) * (1 - of.keeping)
    listings = of.keeping * max(math.ceil(of.kept / LISTED), 1) + (1 - of.keeping)
    requests = {
        "GET": polls * measured.requests["GET"] + mail * (of.ranges + 2),
        "PUT": polls * measured.requests["PUT"] + removing + mail,
        "LIST": polls * measured.requests["LIST"] * listings,
        "DELETE": removing,
    }
    second = of.peak / DAY
    cores = (
        measured.poll.times(polls) + measured.fetched.times(mail) + measured.delivered.times(mail)
    ).times(second)
    processes = math.ceil(cores.servers / of.busy)
    servers = math.ceil(processes / of.server_cores)
    writes = (requests["PUT"] + requests["DELETE"]) * of.put_operations * of.replicas
    operations = (writes + requests["GET"] + requests["LIST"] * of.bucket_shards) * second
    octets = of.stored * of.octets
    disks = {
        "room": octets * of.replicas / of.disk_octets / of.busy,
        "operations": operations / of.disk_operations / of.busy,
    }
    nodes_for = {what: math.ceil(count / of.node_disks) for what, count in disks.items()}
    nodes_for["CPU"] = math.ceil((cores.gateways + cores.osds) / of.busy / of.node_cores)
    # One of them may be away, and three have to be left.
    nodes = max(max(nodes_for.values()), 3) + 1
    # An account and a lease each.
    objects = of.stored + 2 * of.mailboxes
    asked = requests["GET"] * of.s3_get + (requests["PUT"] + requests["LIST"]) * of.s3_put
    return Need(
        requests,
        cores,
        processes,
        servers,
        operations,
        octets,
        nodes_for,
        nodes,
        objects,
        math.ceil(objects / of.shard_objects / of.bucket_shards),
        asked / 1e6 * MONTH + 0.0,
        octets / 1e9 * of.s3_stored,
        nodes * of.node_price + servers * of.server_price,
    )


def per_million_polls(of: Assumptions, measured: Measured) -> float:
    """Dollars on S3 for a million polls of unchanged mailboxes."""
    need = measured.requests
    return need["GET"] * of.s3_get + (need["PUT"] + need["LIST"]) * of.s3_put


def as_text(of: Assumptions, measured: Measured) -> str:
    """All of it, for people."""
    need = simulate(of, measured)
    second = of.peak / DAY
    poll, fetched, delivered = (
        f"{one.servers * 1e3:.1f} + {one.gateways * 1e3:.1f} + {one.osds * 1e3:.1f} ms"
        for one in (measured.poll, measured.fetched, measured.delivered)
    )
    s3_servers = need.servers * of.server_price
    lines = ["measured: CPU of servers + gateways + OSDs"]
    lines += [f"  a poll {poll}; a message fetched {fetched}; one delivered {delivered}"]
    lines += ["assumed"]
    lines += [f"  {getattr(of, one.name):>18,.15g}  {one.metadata['text']}" for one in fields(of)]
    lines += ["requests a second in the busiest hour"]
    lines += [f"  {count * second:>18,.0f}  {method}" for method, count in need.requests.items()]
    lines += ["servers"]
    lines += [f"  {need.processes:>18,}  processes, on {need.servers:,} machines"]
    lines += ["Ceph"]
    lines += [
        f"  {need.nodes:>18,}  machines with {need.nodes * of.node_disks:,g} OSDs, one of them to spare;"
    ]
    lines += [f"  {'':>18}  " + ", ".join(f"{count:,} for {what}" for what, count in need.nodes_for.items())]
    lines += [f"  {need.cores.gateways:>18,.0f}  cores of gateways, and {need.cores.osds:,.0f} of OSDs"]
    lines += [f"  {need.operations:>18,.0f}  operations of disks a second"]
    lines += [f"  {need.octets / 1e12:>18,.0f}  TB of mail, times {of.replicas:g}"]
    lines += [f"  {need.objects:>18,.0f}  objects: {need.buckets:,} buckets of {of.bucket_shards:g} shards"]
    lines += ["dollars a month"]
    lines += [f"  {need.own:>18,.0f}  own machines"]
    s3 = need.s3_requests + need.s3_stored + s3_servers
    lines += [f"  {s3:>18,.0f}  S3: {need.s3_requests:,.0f} for requests,"]
    lines += [f"  {'':>18}  {need.s3_stored:,.0f} for what is stored, {s3_servers:,.0f} for servers"]
    lines += [f"  {per_million_polls(of, measured):>18,.2f}  S3, a million polls"]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--figures", type=Path, default=FIGURES, help="measured figures (%(default)s)")
    for one in fields(Assumptions):
        option = f"--{one.name.replace('_', '-')}"
        text = f"{one.metadata['text']} (%(default)g)".replace("%)", "%%)")
        parser.add_argument(
            option, type=float, default=one.default, metavar="N", help=text.replace("(%%", "(%")
        )
    options = vars(parser.parse_args(arguments))
    measured = Measured.read(options.pop("figures"))
    print(as_text(Assumptions(**options), measured), end="")


if __name__ == "__main__":
    main()
