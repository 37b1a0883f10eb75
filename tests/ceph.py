"""A Ceph of our own: one monitor, three OSDs with three replicas of everything, two S3 gateways.

All of it is in one folder and on loopback, and its processes end with the process that started them.
For tests :func:`shared` starts one when it is first asked for, which takes some 20 s, and ends it with the
run. To try things by hand::

    python -m tests.ceph FOLDER

prints where it listens and the credentials as a shell exports them, and ends it at Ctrl-C, SIGTERM, or the
end of standard input.
"""

from __future__ import annotations

import atexit
import base64
import hashlib
import hmac
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from urllib.parse import urlsplit

from twisted.trial.unittest import SkipTest

from .realserver import DEADLINE, free_port, wait_until

__all__ = ["ACCESS_KEY", "BUCKET", "SECRET_KEY", "Ceph", "Daemon", "make_bucket", "missing", "shared"]

ACCESS_KEY, SECRET_KEY = "pop3toyaccess", "pop3toysecret"
#: The bucket that is there from the start.
BUCKET = "mail"
#: What has to be installed, and the Debian package of each.
_PROGRAMS = {
    "ceph-mon": "ceph-mon",
    "ceph-osd": "ceph-osd",
    "radosgw": "radosgw",
    "radosgw-admin": "radosgw",
    "ceph": "ceph-common",
    "monmaptool": "ceph-common",
    "setpriv": "util-linux",
}
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
OSDS, GATEWAYS = 3, 2

_CONFIG = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{ports[0]},v1:127.0.0.1:{ports[1]}]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
# Nobody else gets at loopback, and so no keys; a gateway fails with -13 unless it is told how to talk.
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc
run_dir = {root}
admin_socket = {root}/$name.asok
crash_dir = {root}/crash
log_file = {root}/$name.log
keyring = {root}/keyring
mon_data = {root}/$name
osd_data = {root}/$name
rgw_data = {root}/$name
# Three replicas on one machine.
osd_crush_chooseleaf_type = 0
osd_pool_default_size = 3
osd_pool_default_min_size = 2
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
mon_max_pg_per_osd = 1000
osd_objectstore = bluestore
bluestore_block_create = true
bluestore_block_size = 8589934592
bluestore_cache_autotune = false
bluestore_cache_size = 67108864
# An OSD that has died is missed after a few seconds, and has not to be seen as dead by half a data centre.
osd_heartbeat_interval = 1
osd_heartbeat_grace = 4
mon_osd_min_down_reporters = 1
mon_data_avail_crit = 1
mon_data_avail_warn = 2
rgw_enable_apis = s3
"""
_GATEWAY = """
[client.rgw.{number}]
# Without tcp_nodelay each answer with a body takes 40 ms more.
rgw_frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
"""


def missing() -> str | None:
    """What has to be installed before there can be a Ceph; ``None`` if it is."""
    packages = {package for name, package in _PROGRAMS.items() if not _program(name)}
    if packages:
        return f"Ceph is not installed: apt-get install --no-install-recommends {' '.join(sorted(packages))}"
    return None


def _program(name: str) -> str | None:
    return shutil.which(name, path=_PATH)


class Daemon:
    """A process of Ceph's, which can be killed and started again."""

    def __init__(self, name: str, command: list[str], folder: Path) -> None:
        self.name = name
        self._command = command
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; it is not ready yet then."""
        assert not self.running, self.name
        with (self._folder / f"{self.name}.out").open("ab") as words:
            self._process = subprocess.Popen(
                # It ends when this process does, however that ends.
                ["setpriv", "--pdeathsig", "KILL", *self._command],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        (self._folder / f"{self.name}.pid").write_text(f"{self._process.pid}\n")

    def signal(self, number: int) -> None:
        """Send it a signal, as SIGSTOP and SIGCONT."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it in the middle of whatever it does, with SIGKILL; harmless if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE)
            (self._folder / f"{self.name}.pid").unlink(missing_ok=True)


class Ceph:
    """One Ceph in a folder.

    :ivar endpoints: where the gateways are.
    :ivar osds: what keeps the data.
    :ivar gateways: what speaks S3.

    :param root: the folder, new or empty.
    :raises AssertionError: with the words of what failed, if it does not come up; nothing runs then.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.root.mkdir(parents=True, exist_ok=True)
        self._conf = self.root / "ceph.conf"
        self._ports = [free_port() for _ in range(2 + GATEWAYS)]
        self._fsid = str(uuid.uuid4())
        self.endpoints = tuple(f"http://127.0.0.1:{port}" for port in self._ports[2:])
        self._conf.write_text(
            _CONFIG.format(fsid=self._fsid, ports=self._ports, root=self.root)
            + "".join(_GATEWAY.format(number=at, port=port) for at, port in enumerate(self._ports[2:]))
        )
        self.mon = self._daemon("mon.a", "ceph-mon", "--id", "a")
        self.osds = [self._daemon(f"osd.{at}", "ceph-osd", "--id", str(at)) for at in range(OSDS)]
        self.gateways = [
            self._daemon(f"client.rgw.{at}", "radosgw", "--name", f"client.rgw.{at}")
            for at in range(GATEWAYS)
        ]
        try:
            self._make()
        except BaseException:
            self.kill()
            raise

    def _daemon(self, name: str, program: str, *arguments: str) -> Daemon:
        command = [_program(program) or program, "-f", "--conf", str(self._conf), *arguments]
        return Daemon(name, command, self.root)

    @property
    def daemons(self) -> list[Daemon]:
        """All its processes, in the order in which they are started."""
        return [self.mon, *self.osds, *self.gateways]

    def run(self, program: str, *arguments: str) -> str:
        """What a command of Ceph's prints.

        :raises AssertionError: with its words if it fails.
        """
        done = subprocess.run(
            [_program(program) or program, *arguments, "--conf", str(self._conf)],
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == 0, (program, arguments, done.stdout, done.stderr)
        return done.stdout

    def _make(self) -> None:
        (self.root / "keyring").touch()
        (self.root / "crash").mkdir(exist_ok=True)
        address = f"[v2:127.0.0.1:{self._ports[0]},v1:127.0.0.1:{self._ports[1]}]"
        map_ = str(self.root / "monmap")
        self.run("monmaptool", "--create", "--addv", "a", address, "--fsid", self._fsid, map_)
        for daemon in self.daemons:
            (self.root / daemon.name).mkdir(exist_ok=True)
        self.run("ceph-mon", "--mkfs", "--id", "a", "--monmap", map_)
        self.mon.start()
        for at, osd in enumerate(self.osds):
            name = str(uuid.uuid4())
            self.run("ceph", "osd", "new", name, str(at))
            self.run("ceph-osd", "--mkfs", "--id", str(at), "--osd-uuid", name)
            osd.start()
        # Makes the zone, which two gateways would make at the same time.
        self.run("radosgw-admin", "user", "create", "--uid=pop3toy", "--display-name=pop3toy",
                 f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}")  # fmt: skip
        for gateway in self.gateways:
            gateway.start()
        self.wait_for_gateways()
        make_bucket(self.endpoints[0], BUCKET)

    def make_bucket(self, name: str) -> None:
        """Make a bucket, unless it is there."""
        make_bucket(self.endpoints[0], name)

    def wait_for_gateways(self) -> None:
        """Wait until the gateways that run answer."""
        for gateway, endpoint in zip(self.gateways, self.endpoints, strict=True):
            wait_until(
                lambda gateway=gateway, endpoint=endpoint: self._answers(gateway, endpoint),
                f"{gateway.name} answers",
                pause=0.1,
            )

    def _answers(self, gateway: Daemon, endpoint: str) -> bool:
        if not gateway.running:
            return True
        try:
            # A bucket's name that nobody has; 404 comes from the OSDs, 200 for / from the gateway alone.
            return _request(endpoint, "HEAD", "/nobody-has-it") == 404
        except (OSError, http.client.HTTPException):
            return False

    def wait_for_osds(self) -> None:
        """Wait until the monitor has noticed which OSDs run, and which do not."""
        running = sum(osd.running for osd in self.osds)

        def up() -> bool:
            told: int = json.loads(self.run("ceph", "osd", "stat", "--format=json"))["num_up_osds"]
            return told == running

        wait_until(up, f"{running} OSDs are up", pause=0.2)

    def kill(self) -> None:
        """End everything at once with SIGKILL; what was acknowledged is on the disk."""
        for daemon in reversed(self.daemons):
            if daemon.running:
                daemon.signal(signal.SIGKILL)
        for daemon in self.daemons:
            daemon.kill()

    def start(self) -> None:
        """Start what does not run, and wait until it answers."""
        stopped = [daemon for daemon in self.daemons if not daemon.running]
        for daemon in stopped:
            daemon.start()
        if stopped:
            self.wait_for_osds()
            self.wait_for_gateways()


def make_bucket(endpoint: str, name: str) -> None:
    """Make a bucket by an S3 interface at an address, unless it is there."""
    deadline = time.monotonic() + DEADLINE
    while (status := _request(endpoint, "PUT", f"/{name}")) not in (200, 409):
        # The first one makes pools, and is refused while they are not ready.
        assert time.monotonic() < deadline, (name, status)
        time.sleep(0.2)


def _request(endpoint: str, method: str, path: str) -> int:
    """The status of a request with a signature (version 2, which is four lines)."""
    date = formatdate(usegmt=True)
    signed = hmac.digest(SECRET_KEY.encode(), f"{method}\n\n\n{date}\n{path}".encode(), hashlib.sha1)
    where = urlsplit(endpoint)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
    try:
        signature = f"AWS {ACCESS_KEY}:{base64.b64encode(signed).decode()}"
        connection.request(
            method, path, headers={"Date": date, "Authorization": signature, "Content-Length": "0"}
        )
        return connection.getresponse().status
    finally:
        connection.close()


_shared: Callable[[], Ceph] | None = None


def shared() -> Ceph:
    """The Ceph of this run of tests: whole, with the bucket :data:`BUCKET`; of keys each test takes its own.

    :raises SkipTest: where it is not installed.
    """
    global _shared
    if _shared is None:
        why = missing()
        if why is not None:
            raise SkipTest(why)
        # Not below the folder of trial: the path of a Unix socket has at most 107 octets.
        folder = Path(tempfile.mkdtemp(prefix="pop3toy-ceph-"))
        atexit.register(_remove, folder, os.getpid())
        try:
            ceph = Ceph(folder)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            # For others the wait would be as long, and as vain.
            failed = AssertionError(f"Ceph does not start: {error}")

            def fails() -> Ceph:
                raise failed

            _shared = fails
        else:
            atexit.register(_end, ceph, os.getpid())
            _shared = lambda: ceph  # noqa: E731
    return _shared()


def _remove(folder: Path, process: int) -> None:
    # And not at the end of a process that was forked.
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _end(ceph: Ceph, process: int) -> None:
    if os.getpid() == process:
        ceph.kill()


def main(folder: str) -> None:
    """Run one until Ctrl-C, SIGTERM or the end of standard input."""
    why = missing()
    if why is not None:
        sys.exit(why)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    began = time.monotonic()
    ceph = Ceph(Path(folder))
    try:
        print(f"export AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY}")
        print(f"export POP3TOY_STORE=s3://{BUCKET} POP3TOY_STORE_ENDPOINT={ceph.endpoints[0]}")
        print(
            f"# the other gateway: {ceph.endpoints[1]}; up after {time.monotonic() - began:.1f} s", flush=True
        )
        for _ in sys.stdin:
            pass
    except KeyboardInterrupt:
        pass
    finally:
        ceph.kill()


if __name__ == "__main__":
    main(*sys.argv[1:])
