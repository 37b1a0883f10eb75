"""``python -m benchmarks``: the command line, and putting the parts together."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import chart, curves, datasets, deliveries, native, objects
from benchmarks.datasets import World
from benchmarks.load import LoadGenerator
from benchmarks.measure import Bench
from benchmarks.peers import PEERS, Peer, Setting
from benchmarks.peers.dovecot import mail_owner
from benchmarks.peers.mail_in import TAKERS
from benchmarks.processes import ENDS, Server
from benchmarks.report import as_text
from benchmarks.rounds import run, say
from benchmarks.workloads import WORKLOADS

#: What all others are compared with, if it takes part.
REFERENCE = "dovecot"
#: Ten thousand idle sessions, each with a socket and whatever a server opens for a mailbox.
OPEN_FILES = 65_536
#: What only one of the things to measure takes.
ONLY_FOR = {
    "rounds": ("table", "deliveries", "objects"),
    "peers": ("table", "curves", "deliveries"),
    "workloads": ("table",),
    "chart": ("table", "curves"),
    "seconds": ("table", "curves", "objects"),
}


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        if not names:
            raise argparse.ArgumentTypeError(f"nothing is named; there are {', '.join(known)}")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return parse


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _new_file(text: str) -> Path:
    # Found out now, not after all was measured.
    path = Path(text)
    if path.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written")
    return path


def _picture(text: str) -> Path:
    if Path(text).suffix not in (".svg", ".png"):
        raise argparse.ArgumentTypeError(f"{text} ends neither with .svg nor with .png")
    return _new_file(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="The same POP3 work for several servers in one run; every octet is compared. "
        "Exit status 1 means wrong answers; no time ever fails a run.",
    )
    parser.add_argument(
        "what",
        nargs="?",
        choices=("table", "curves", "deliveries", "objects"),
        default="table",
        help="the table (default), the curves, mail that comes in, or mail on object storage",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="small mailboxes, one short round: under a minute")
    add("--rounds", type=_positive, help="how often everything is measured (default 3, quick 1)")
    add("--seconds", type=float, help="how long each load lasts (default 3, quick 0.3)")
    add(
        "--peers",
        type=_names([*PEERS, *TAKERS]),
        help=f"of {','.join(PEERS)}; for deliveries of {','.join(TAKERS)}",
    )
    add("--workloads", type=_names(list(WORKLOADS)), help=f"of {','.join(WORKLOADS)}")
    add("--json", type=_new_file, metavar="FILE", help="write all figures")
    add("--chart", type=_picture, metavar="FILE", help="draw them; .svg or .png (needs matplotlib)")
    return parser


@contextmanager
def _root() -> Iterator[Path]:
    """The directory of the run; removed at the end."""
    made = Path(tempfile.mkdtemp(prefix="pop3bench-"))
    # A server that gives up its rights must still find the mail.
    made.chmod(0o755)
    try:
        yield made
    finally:
        _be_patient()
        for server in list(Server.started):
            server.stop()
        shutil.rmtree(made, ignore_errors=True)


def _certificate(root: Path) -> tuple[Path, Path] | None:
    """A certificate with a P-256 key for all peers; ``None``, with a word, without OpenSSL's program."""
    certificate, key = root / "certificate.pem", root / "key.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost"
    )
    command += " -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    if shutil.which("openssl") is None:
        say("TLS is left out: apt-get install openssl")
        return None
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


def _data_sets(options: argparse.Namespace) -> list[datasets.DataSet]:
    """The sets that the chosen workloads need."""
    if options.quick:
        sets = [datasets.QUICK_SMALL, datasets.QUICK_MANY, datasets.QUICK_BIG, datasets.QUICK_IDLE]
    else:
        sets = [datasets.SMALL, datasets.MANY, datasets.BIG, datasets.IDLE]
    needed = {WORKLOADS[name].data for name in options.workloads or WORKLOADS}
    return [data for data in sets if data.name in needed]


def _peers(options: argparse.Namespace) -> list[Peer]:
    return [PEERS[name] for name in options.peers or PEERS if name in PEERS]


def _deliveries(options: argparse.Namespace, root: Path) -> int:
    count = 40 if options.quick else 2_000
    rows = [deliveries.Row(1, max(count // 4, 1)), deliveries.Row(8, count)]
    names = [name for name in options.peers or TAKERS if name in TAKERS]
    if not names:
        say(f"none of these takes mail; of those that do there are {', '.join(TAKERS)}")
        return 2
    return deliveries.run(root, names, rows, options.rounds or (1 if options.quick else 3), options.json)


def _objects(options: argparse.Namespace, bench: Bench, root: Path) -> int:
    quick = options.quick
    sets = (datasets.QUICK_SMALL, datasets.QUICK_BIG) if quick else (datasets.SMALL, datasets.BIG)
    for data in sets:
        bench.setting.world.add(data)
    rounds = options.rounds or (1 if quick else 3)
    return objects.run(bench, sets, root, rounds=rounds, quick=quick, json_to=options.json)


def _table(options: argparse.Namespace, bench: Bench) -> int:
    for data in _data_sets(options):
        bench.setting.world.add(data)
    workloads = [WORKLOADS[name] for name in options.workloads or WORKLOADS]
    if bench.setting.certificate is None:
        workloads = [workload for workload in workloads if not workload.tls]
    most = _sessions_at_once()
    if most < max((workload.held for workload in workloads), default=0):
        say(f"the limit of open files is low (ulimit -n): no more than {most:,} sessions at once")
    workloads = [workload.at_most(most) for workload in workloads]
    if options.quick:
        workloads = [workload.quick() for workload in workloads if workload.name != "10k"]
    if not workloads:
        say("none of these workloads can be run")
        return 2
    rounds = options.rounds or (1 if options.quick else 3)
    outcome = run(bench, _peers(options), workloads, rounds)
    if not outcome.peers:
        say("nobody took part")
        return 1 if outcome.wrong else 2
    reference = REFERENCE if REFERENCE in outcome.peers else next(iter(outcome.peers))
    sys.stdout.write(as_text(outcome, workloads, reference))
    if options.json:
        options.json.write_text(json.dumps(outcome.as_json(workloads, reference), indent=1) + "\n")
    if options.chart:
        chart.draw_table(outcome, workloads, reference, options.chart)
    return 1 if outcome.wrong else 0


def _sessions_at_once() -> int:
    """How many the system lets a server have.

    pop3toy reckons with five open files for each (``run.process``), and refuses more.
    """
    return max((_open_files() - 1_000) // 5, 1)


def _open_files() -> int:
    """Let servers and clients have as many open files as we may give them; gives the number."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
            return OPEN_FILES
        except (ValueError, OSError):
            pass
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else OPEN_FILES


def _be_patient() -> None:
    """From here on: a second Ctrl-C must not keep it from stopping servers and tidying up."""
    for impatience in ENDS:
        signal.signal(impatience, signal.SIG_IGN)


def _stop(signum: int, frame: object) -> None:
    _be_patient()
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit status is 0 if every answer was right, 1 if not, 2 if it could not be run."""
    # Servers that give up their rights must find the mail.
    os.umask(0o022)
    parser = _parser()
    options = parser.parse_args(arguments)
    for option, takers in ONLY_FOR.items():
        if getattr(options, option) and options.what not in takers:
            parser.error(f"--{option.replace('_', '-')} is not for {options.what}")
    for end in ENDS:
        signal.signal(end, _stop)
    try:
        if options.chart:
            chart.available()
        with _root() as root:
            if options.what == "deliveries":
                return _deliveries(options, root)
            program = native.build("pop3load", root)
            pair = (None, None) if options.what == "objects" else _certificate(root) or (None, None)
            world = World(root, mail_owner(), say=say)
            setting = Setting(world, world.peers, *pair)
            seconds = options.seconds or (0.3 if options.quick else 3.0)
            bench = Bench(setting, LoadGenerator(program, root), seconds)
            if options.what == "table":
                return _table(options, bench)
            if options.what == "objects":
                return _objects(options, bench, root)
            reach = curves.QUICK if options.quick else curves.FULL.at_most(_sessions_at_once())
            return curves.run(bench, _peers(options), reach, options.json, options.chart)
    except (native.CompilerMissing, chart.NoChart) as missing:
        say(str(missing))
        return 2
    except KeyboardInterrupt:
        say("stopped")
        return 2


if __name__ == "__main__":
    sys.exit(main())
