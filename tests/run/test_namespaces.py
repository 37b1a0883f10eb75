"""Containers, as docs/operating tells it: process 1; no IPv6; IPv6 sockets for IPv6 alone."""

from __future__ import annotations

import json
import os
import poplib
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ..folders import new_folder
from ..realserver import DEADLINE, RealServer, environment, maildir_options, wait_until

#: Starts the toy on port 2590 with options, waits until it listens at so many places as its first
#: argument says, and tells at which of the two addresses it answers.
_ASK = """
import json, poplib, subprocess, sys
command = [sys.executable, "-m", "pop3toy", "--transcript=off", *sys.argv[2:]]
server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
wanted = int(sys.argv[1])
for line in server.stdout:
    wanted -= "listens for POP3" in line
    if not wanted:
        break
answers = {}
for address in ("127.0.0.1", "::1"):
    try:
        poplib.POP3(address, 2590, timeout=20).quit()
        answers[address] = True
    except OSError:
        answers[address] = False
server.terminate()
server.communicate()
print(json.dumps(answers))
"""


def unshared(*kinds: str) -> list[str]:
    """The command that runs another in namespaces of its own, which ends with it."""
    command = ["unshare", *kinds, "--fork", "--kill-child"]
    if shutil.which("unshare") is None:
        raise SkipTest("unshare is not installed (Debian package util-linux)")
    done = subprocess.run([*command, "true"], capture_output=True, text=True, check=False, timeout=DEADLINE)
    if done.returncode != 0:
        raise SkipTest(f"no namespaces here: {done.stderr.strip()}")
    return command


def children(process: int) -> list[int]:
    """The processes that another has started."""
    return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


class ProcessOneTests(SynchronousTestCase):
    """As a container's only process."""

    def test_ends_and_starts_again(self) -> None:
        """It serves as process 1, replaces a worker that died, leaves nothing of it, and ends by SIGTERM."""
        folder = new_folder(self)
        (folder / "mail").mkdir()
        server = RealServer(
            *maildir_options(folder / "mail"),
            "--create",
            "--workers=2",
            folder=folder,
            launcher=unshared("--pid"),
        )
        self.addCleanup(server.terminate)
        [first] = children(server.process.pid)
        status = Path(f"/proc/{first}/status").read_text()
        [numbers] = [line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")]
        self.assertEqual(numbers[-1], "1")
        wait_until(lambda: len(children(first)) == 2, "two workers")
        wait_until(lambda: server.log.count(" serves (process ") == 2, "both serve")
        died = children(first)[0]
        os.kill(died, signal.SIGKILL)
        wait_until(lambda: server.log.count(" serves (process ") == 3, "another worker")
        self.assertNotIn(died, children(first))
        client = poplib.POP3("127.0.0.1", server.port, timeout=DEADLINE)
        client.user("ann")
        client.pass_("secret")
        client.quit()
        os.kill(first, signal.SIGTERM)
        server.process.wait(DEADLINE)
        self.assertTrue(server.log.endswith("Server Shut Down.\n"))


class NetworkTests(SynchronousTestCase):
    """In a network of its own, set up as some hosts are."""

    def answers(self, setting: str, *options: str, places: int = 1) -> dict[str, bool]:
        """At which addresses a toy answers that was started where this setting of the kernel is 1."""
        script = 'ip link set lo up && sysctl -q -w "$1=1" && shift && exec "$@"'
        folder = new_folder(self)
        done = subprocess.run(
            [
                *unshared("--net"), "sh", "-c", script, "sh", setting,
                sys.executable, "-c", _ASK, str(places), *options,
            ],
            capture_output=True, text=True, check=False, timeout=DEADLINE,
            env=environment(folder), cwd=folder,
        )  # fmt: skip
        if done.returncode != 0 and "Traceback" not in done.stderr:
            raise SkipTest(f"no network can be set up here: {done.stderr.strip()}")
        self.assertEqual(done.returncode, 0, done.stderr)
        found: dict[str, bool] = json.loads(done.stdout.splitlines()[-1])
        return found

    def test_no_ipv6(self) -> None:
        """Where IPv6 is switched off, ``::`` serves IPv4."""
        answers = self.answers("net.ipv6.conf.all.disable_ipv6", "--interface=::", "--port=2590")
        self.assertEqual(answers, {"127.0.0.1": True, "::1": False})

    def test_ipv6_alone(self) -> None:
        """Where sockets of IPv6 are for that alone, ``::`` is too, and both have to be named."""
        setting = "net.ipv6.bindv6only"
        answers = self.answers(setting, "--interface=::", "--port=2590")
        self.assertEqual(answers, {"127.0.0.1": False, "::1": True})
        answers = self.answers(setting, "--listen=tcp6:2590", "--listen=tcp:2590", places=2)
        self.assertEqual(answers, {"127.0.0.1": True, "::1": True})
