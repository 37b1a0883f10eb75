"""In the place of systemd on a host of the tests': opens a unit's sockets, and starts its service.

``python -m tests.operating.systemd FOLDER NAME`` reads ``NAME.socket`` and ``NAME.service`` in
``/etc/systemd/system``, and runs until SIGTERM.  SIGHUP is for the service; SIGUSR1 restarts it, while the
sockets stay open.  In FOLDER are the service's process id and its log.
"""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import sys
from pathlib import Path

UNITS = Path("/etc/systemd/system")


def values(unit: str, name: str) -> list[str]:
    """What a setting of a unit is given."""
    lines = (UNITS / unit).read_text().splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")]


def start(name: str, sockets: list[socket.socket], folder: Path) -> subprocess.Popen[bytes]:
    """Start the service as its user, with the sockets as systemd hands them over."""
    [user], [command] = values(f"{name}.service", "User"), values(f"{name}.service", "ExecStart")
    account = pwd.getpwnam(user)
    count = len(sockets)
    places = " ".join(f"{at + 3}<&{one.fileno()}" for at, one in enumerate(sockets))
    process = subprocess.Popen(
        ["bash", "-c", f"exec {places}; LISTEN_FDS={count} LISTEN_PID=$$ exec {command}"],
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": account.pw_dir},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=(folder / "log").open("ab"),
        stderr=subprocess.STDOUT,
        pass_fds=[one.fileno() for one in sockets],
        user=user,
        group=account.pw_gid,
        extra_groups=[],
        umask=0o077,
    )
    beside = folder / "pid.new"
    beside.write_text(f"{process.pid}\n")
    beside.rename(folder / "pid")
    return process


def main(place: str, name: str) -> None:
    """Until SIGTERM."""
    folder = Path(place)
    wanted = {signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM}
    sockets = []
    for at, port in enumerate(values(f"{name}.socket", "ListenStream")):
        one = socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
        # As high as no place is, so that filling one leaves the others as they are.
        os.dup2(one.fileno(), 100 + at)
        sockets.append(socket.socket(fileno=100 + at))
    process = start(name, sockets, folder)
    # Behind the start: the service does not inherit it.
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    while True:
        asked = signal.sigwait(wanted)
        if asked == signal.SIGHUP:
            process.send_signal(asked)
            continue
        process.terminate()
        process.wait()
        if asked == signal.SIGTERM:
            return
        signal.pthread_sigmask(signal.SIG_UNBLOCK, wanted)
        process = start(name, sockets, folder)
        signal.pthread_sigmask(signal.SIG_BLOCK, wanted)


if __name__ == "__main__":
    main(*sys.argv[1:])
