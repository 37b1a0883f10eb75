"""This server on object storage, and a Ceph to keep it: the one that the tests start."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.peer import NotHere, Setting, free_ports
from benchmarks.peers.python_servers import ROOT, Pop3toy
from benchmarks.processes import cpu_seconds
from tests import ceph
from tests.s3servers import credentials_file

COMMAND = "from pop3toy.cli import main; main()"


@dataclass(frozen=True)
class Place:
    """Where mail is kept.

    :param credentials: a file with them.
    """

    url: str
    endpoint: str
    credentials: Path

    def options(self, name: str = "--store") -> list[str]:
        """The options for it; ``name`` begins the names of two of them."""
        return [f"{name}-endpoint", self.endpoint, f"{name}-credentials", str(self.credentials)]


class Storage:
    """A Ceph, three OSDs and two gateways, in a folder; :meth:`stop` ends it.

    :raises NotHere: where it is not installed.
    """

    def __init__(self, folder: Path) -> None:
        if why := ceph.missing():
            raise NotHere(why)
        folder.mkdir()
        self._ceph = ceph.Ceph(folder / "ceph")
        self.place = Place(f"s3://{ceph.BUCKET}/mail", self._ceph.endpoints[0], credentials_file(folder))

    def version(self) -> str:
        """Its own word for its version."""
        return " ".join(self._ceph.run("ceph", "--version").split()[:3])

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU so far: of the gateways, and of all the OSDs."""
        return {
            "gateways": sum(cpu_seconds(one.pid) for one in self._ceph.gateways),
            "osds": sum(cpu_seconds(one.pid) for one in self._ceph.osds),
        }

    def written(self) -> int:
        """Octets that the OSDs have had written to the disk so far, all three replicas."""
        total = 0
        for one in self._ceph.osds:
            told = dict(line.split(": ") for line in Path(f"/proc/{one.pid}/io").read_text().splitlines())
            total += int(told["write_bytes"])
        return total

    def stop(self) -> None:
        """End all of it."""
        self._ceph.kill()


def command(*arguments: str) -> None:
    """Run a command of pop3toy's.

    :raises AssertionError: with its words, if it fails.
    """
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (arguments, done.stdout[-2000:], done.stderr[-2000:])


class OnObjects(Pop3toy):
    """This server with ``--store``.

    :param lmtp: whether it takes mail as well.
    """

    def __init__(self, name: str, place: Place, workers: int = 0, *, lmtp: bool = False) -> None:
        super().__init__(name, workers)
        self.place = place
        self.lmtp_port = free_ports(1)[0] if lmtp else 0

    def mail(self, setting: Setting) -> list[str]:
        """See :class:`Pop3toy`."""
        options = ["--store", self.place.url, *self.place.options()]
        if self.lmtp_port:
            options += ["--lmtp", f"tcp:{self.lmtp_port}:interface=127.0.0.1"]
        return options
