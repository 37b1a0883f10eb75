"""podman in a place of its own: its images, networks and ports are nobody else's, and go with the test.

Here lives a mount and a network namespace that commands of the pages run in as they stand there, with an
empty ``/srv`` and an image of Debian under any name.  Nothing here knows what is in the containers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SkipTest

from .realserver import DEADLINE

__all__ = ["PodmanWorld", "wheels"]

#: What is different in the namespaces.  podman does not take cgroups of the first version and the second at
#: once, as some machines have them.
_PREPARE = """
set -e
mount --make-rprivate /
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
    umount -l /sys/fs/cgroup
    mount -t cgroup2 none /sys/fs/cgroup
fi
mount -t tmpfs none /srv
mkdir -p "$1/containers"
mount --bind "$1/containers" /var/lib/containers
if [ -d /var/lib/cni ]; then mount -t tmpfs none /var/lib/cni; fi
mount -t tmpfs none /run
ip link set lo up
echo ready
exec cat
"""

#: Debian's python3 as its packages have it, not set up: enough for a container, and made in seconds.
_MERGED = (
    'mkdir -p "$1/usr/bin" "$1/usr/sbin" "$1/usr/lib" "$1/usr/lib64"; '
    'for d in bin sbin lib lib64; do ln -s "usr/$d" "$1/$d"; done'
)
_USERS = (
    'for d in passwd group; do cp "$1/usr/share/base-passwd/$d.master" "$1/etc/$d"; done; '
    'rm -rf "$1/usr/share/doc" "$1/var/lib/apt/lists" "$1/var/cache/apt"'
)
_PACKAGES = "python3,python3-venv,dash,coreutils,base-files,base-passwd,passwd"
#: The Python of that system.
_SUITE, _PYTHON = "bookworm", "3.11"


class PodmanWorld:
    """The namespaces, until :meth:`close`.

    :param folder: an empty one, for images, containers and what else podman keeps.
    :raises SkipTest: where podman cannot work, with the reason.
    """

    def __init__(self, folder: Path) -> None:
        for program, package in (
            ("podman", "podman"),
            ("mmdebstrap", "mmdebstrap"),
            ("nsenter", "util-linux"),
        ):
            if shutil.which(program) is None:
                raise SkipTest(f"{program} is not installed (Debian package {package})")
        if os.geteuid() != 0:
            raise SkipTest("containers with published ports are tried as root")
        self._folder = folder
        Path("/var/lib/containers").mkdir(exist_ok=True)
        # podman asks for more than a process may that is not allowed to raise its limits.
        (folder / "containers.conf").write_text(
            '[containers]\ncgroups = "disabled"\nlog_driver = "k8s-file"\n'
            'default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        )
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "sh", "-c", _PREPARE, "sh", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if self._holder.stdout.readline() != b"ready\n":
            why = self._holder.stderr.read().decode().strip()
            self._end()
            raise SkipTest(f"no namespaces here: {why}")

    def run(
        self, command: str | Sequence[str], *, stdin: str | bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        """Run a line of a shell, or a program with its arguments, in the world."""
        words = ["bash", "-c", command] if isinstance(command, str) else list(command)
        done = subprocess.run(
            ["nsenter", f"--target={self._holder.pid}", "--mount", "--net", f"--wd={Path.cwd()}", *words],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=4 * DEADLINE,
            check=False,
            env={
                **os.environ,
                "CONTAINERS_CONF": str(self._folder / "containers.conf"),
                "BUILDAH_ISOLATION": "chroot",
            },
        )
        return subprocess.CompletedProcess(
            done.args,
            done.returncode,
            done.stdout.decode("utf-8", "replace"),
            done.stderr.decode("utf-8", "replace"),
        )

    def must(self, command: str | Sequence[str], *, stdin: str | bytes = b"") -> str:
        """What such a command prints, which must succeed."""
        done = self.run(command, stdin=stdin)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def image(self, name: str, packages: Path) -> None:
        """Make an image of Debian with Python, in which pip finds wheels in ``/wheels`` and nowhere else.

        :raises SkipTest: where Debian's packages cannot be had.
        """
        tree = self._folder / "base.tar"
        done = subprocess.run(
            [
                "mmdebstrap", "--quiet", "--mode=root", "--variant=extract", f"--include={_PACKAGES}",
                f"--setup-hook={_MERGED}", f"--extract-hook={_USERS}",
                f'--extract-hook=cp -r {packages} "$1/wheels"', _SUITE, str(tree),
            ],
            capture_output=True, text=True, timeout=4 * DEADLINE, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SkipTest(f"Debian's packages cannot be had here: {done.stderr[-300:]}")
        self.must(
            [
                "podman", "import", "--change", "ENV PIP_NO_INDEX=1", "--change",
                "ENV PIP_FIND_LINKS=/wheels", str(tree), name,
            ]
        )  # fmt: skip

    def close(self) -> None:
        """End all containers and remove what was made."""
        self.run(["podman", "rm", "--force", "--all", "--time", "0"])
        # The storage has mounts of its own, in these namespaces.
        self.run(["umount", "-l", "/var/lib/containers"])
        self._end()

    def _end(self) -> None:
        for pipe in (self._holder.stdin, self._holder.stdout, self._holder.stderr):
            assert pipe is not None
            pipe.close()
        self._holder.wait(DEADLINE)


def wheels(folder: Path, *requirements: str) -> Path:
    """A folder with what pip installs for these on the Python of the images.

    :raises SkipTest: where they cannot be had.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"),
            *("--python-version", _PYTHON, "--dest", str(folder), *requirements),
        ],
        capture_output=True,
        text=True,
        timeout=4 * DEADLINE,
        check=False,
    )
    if done.returncode:
        raise SkipTest(f"Python's packages cannot be had here: {done.stderr[-300:]}")
    return folder
