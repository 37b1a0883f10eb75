"""A host of the tests' own: commands of the pages run on it as root, and change nothing outside.

It is this machine in namespaces: what is written into the folders of ``_OWN`` goes into a memory file system
above them, and its network is its own.  ``/opt/pop3toy-0.1.0`` is where these tests run, ``systemctl`` is
``tests.operating.systemd``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ..folders import new_folder
from ..pages import CHECKOUT
from ..realserver import DEADLINE, environment, wait_until
from ..run.test_namespaces import unshared
from ..tls_world import Authority

__all__ = ["HOST", "NAMES", "ScratchHost"]

HOST = "mail.example.org"
NAMES = (HOST, "autoconfig.example.org")

#: The folders that it has for itself; those of Python too, if other users cannot go through them.
_OWN = ("/etc", "/mnt", "/root", "/srv", "/opt", "/run", "/usr/local", "/var")

_SETUP = """
set -eu
over() {
    number=$((number + 1))
    mkdir -p "$scratch/$number" "$scratch/work$number"
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$scratch/$number,workdir=$scratch/work$number" "$1"
}
scratch=$1 number=0
shift
ip link set lo up
mount -t tmpfs -o mode=755 tmpfs "$scratch"
for folder in "$@"; do over "$folder"; done
for folder in "$@"; do chmod o+x "$folder"; done
mkdir "$scratch/bin" "$scratch/run"
touch "$scratch/ready"
exec sleep infinity
"""

_SYSTEMCTL = """#!/bin/bash
# What the pages ask of systemd.
set -eu
run={run}
echo "$*" >> "$run/asked"
alive() {{ [ -e "$run/systemd" ] && kill -0 "$(cat "$run/systemd")" 2> /dev/null; }}
case "$*" in
daemon-reload) ;;
"enable --now nftables"|"reload nftables")
    if nft list ruleset > /dev/null 2>&1; then nft --file /etc/nftables.conf; fi ;;
"enable --now pop3toy.socket pop3toy.service"|"start pop3toy.socket pop3toy.service")
    alive && exit 0
    cd {checkout}
    setsid {python} -m tests.operating.systemd "$run" pop3toy > "$run/words" 2>&1 < /dev/null &
    echo $! > "$run/systemd" ;;
"--quiet is-active pop3toy.service") alive ;;
"reload pop3toy.service"|"reload pop3toy") kill -HUP "$(cat "$run/systemd")" ;;
"restart pop3toy.service"|"restart pop3toy")
    old=$(cat "$run/pid")
    kill -USR1 "$(cat "$run/systemd")"
    while [ "$(cat "$run/pid")" = "$old" ]; do sleep 0.1; done ;;
"stop pop3toy.service pop3toy.socket"|"stop pop3toy.socket pop3toy.service")
    kill "$(cat "$run/systemd")"
    while alive; do sleep 0.1; done ;;
"reload nginx") [ ! -e /run/nginx.pid ] || nginx -s reload ;;
*) echo "systemctl $*: no test expects that" >&2; exit 1 ;;
esac
"""


class ScratchHost:
    """The host, until the test ends.

    :raises SkipTest: where there can be none.
    """

    def __init__(self, test: SynchronousTestCase) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root sets up a host")
        for program, package in (("nsenter", "util-linux"), ("ip", "iproute2"), ("setpriv", "util-linux")):
            if shutil.which(program) is None:
                raise SkipTest(f"{program} is not installed (Debian package {package})")
        for script in ("pop3toy", "twistd"):
            if not Path(sys.prefix, "bin", script).exists():
                raise SkipTest(f"{script} is not beside this Python")
        self.folder = new_folder(test)
        self.folder.chmod(0o755)
        self._scratch = self.folder / "scratch"
        self._scratch.mkdir()
        closed = {
            str(parent)
            for path in (sys.prefix, sys.base_prefix, CHECKOUT)
            for parent in Path(path).resolve().parents
            if not parent.stat().st_mode & 0o001
        }
        self._holder = subprocess.Popen(
            [
                *unshared("--mount", "--net", "--pid", "--mount-proc"),
                *("sh", "-c", _SETUP, "sh", str(self._scratch), *_OWN, *sorted(closed)),
            ],
            env=environment(self.folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        test.addCleanup(self._end)
        self._first = ""
        deadline = time.monotonic() + DEADLINE
        while not self._ready():
            if self._holder.poll() is not None or time.monotonic() > deadline:
                assert self._holder.stdout is not None
                raise SkipTest(f"no host can be set up here: {self._holder.stdout.read().decode().strip()}")
            time.sleep(0.05)
        self.authority = Authority(self.folder)
        self.run_folder = self._scratch / "run"
        systemctl = _SYSTEMCTL.format(run=self.run_folder, checkout=CHECKOUT, python=sys.executable)
        hosts = "".join(f"127.0.0.1 {name}\n" for name in NAMES)
        self.write(self._scratch / "bin" / "systemctl", systemctl, mode=0o755)
        self.run(f"printf '{hosts}' >> /etc/hosts; ln -s {sys.prefix} /opt/pop3toy-0.1.0")
        # This machine may be one that has the server already.
        self.run("sed -i /^pop3toy:/d /etc/passwd /etc/shadow /etc/group /etc/gshadow")

    def _ready(self) -> bool:
        with contextlib.suppress(OSError, IndexError):
            pid = self._holder.pid
            self._first = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
            return Path(f"/proc/{self._first}/root{self._scratch}/ready").exists()
        return False

    def _end(self) -> None:
        # The first process of a namespace takes all others with it.
        self._holder.kill()
        self._holder.communicate()

    def inside(self, *command: str) -> list[str]:
        """The command line for one that runs on the host."""
        return ["nsenter", f"--target={self._first}", "--mount", "--net", "--pid", "--", *command]

    def run(self, script: str, *, stdin: str = "", status: int = 0) -> str:
        """Run commands as root would type them in a checkout; what they say."""
        done = subprocess.run(
            # Ended from inside: who ends nsenter leaves what it has started.
            self.inside("timeout", f"{DEADLINE:.0f}", "bash", "-euc", f"cd {CHECKOUT}\n{script}"),
            env={
                **environment(self.folder),
                "PATH": f"{self._scratch}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "SSL_CERT_FILE": str(self.authority.file),
            },
            input=stdin,
            capture_output=True,
            text=True,
            timeout=2 * DEADLINE,
            check=False,
            start_new_session=True,
        )
        said = done.stdout + done.stderr
        assert done.returncode == status, f"{script}\nended with status {done.returncode}:\n{said}"
        return said

    def write(self, path: Path | str, text: str, *, mode: int = 0o644) -> None:
        """Make a file there, and its folder."""
        self.run(f"install -D -m {mode:o} /dev/stdin {path}", stdin=text)

    def certificate(self, *names: str) -> bytes:
        """A certificate for the host's names, where certbot has them; as DER."""
        pair = self.authority.issue(*(names or NAMES), ends=timedelta(days=60))
        live = f"/etc/letsencrypt/live/{HOST}"
        self.run(f"install -d -m 700 /etc/letsencrypt/live {live}")
        self.write(f"{live}/privkey.pem", pair.key.decode(), mode=0o600)
        self.write(f"{live}/fullchain.pem", pair.certificate.decode())
        return pair.x509.public_bytes(Encoding.DER)

    def log(self) -> str:
        """What the server has logged."""
        return self.run(f"cat {self.run_folder}/log 2> /dev/null || true")

    def wait_for(self, words: str, times: int = 1) -> None:
        """Until the server's log has this."""
        try:
            wait_until(lambda: self.log().count(words) >= times, words, pause=0.2)
        except AssertionError as why:
            raise AssertionError(
                f"{why}:\n{self.log()}\n{self.run(f'cat {self.run_folder}/words')}"
            ) from None
