"""A Cyrus in a folder of its own, where its programs are.

Debian's packages cannot be installed beside Dovecot's, so their programs are taken out of them (see
``.ci/run``).  Cyrus's own ``master`` starts its POP3 server and its delivery by LMTP, which makes mailboxes.
Passwords are asked for at a socket of Cyrus SASL's saslauthd, which is this process.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import smtplib
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ..realserver import DEADLINE, free_port, wait_until

__all__ = ["CyrusCase"]

_ROOT = Path("/opt/cyrus")
_PROGRAMS = _ROOT / "usr/lib/cyrus/bin"
_CONFIG = """\
configdirectory: {root}/conf
partition-default: {root}/spool
defaultpartition: default
cyrus_user: nobody
cyrus_group: nogroup
servername: localhost
allowplaintext: yes
autocreate_post: yes
autocreate_quota: 0
sasl_pwcheck_method: saslauthd
sasl_saslauthd_path: {root}/saslauthd
sasl_mech_list: PLAIN
duplicatesuppression: no
unixhierarchysep: no
"""
_SERVICES = """\
START {{
  recover cmd="{programs}/ctl_cyrusdb -C {root}/imapd.conf -r"
}}
SERVICES {{
  pop3 cmd="{programs}/pop3d -C {root}/imapd.conf" listen="127.0.0.1:{port}" proto="tcp4"
  lmtp cmd="{programs}/lmtpd -a -C {root}/imapd.conf" listen="{root}/lmtp"
}}
EVENTS {{
}}
"""


class CyrusCase(SynchronousTestCase):
    """A Cyrus; the password of all is secret.

    :cvar configuration: more lines of its ``imapd.conf``.
    """

    configuration = ""

    def setUp(self) -> None:
        if not _PROGRAMS.exists():
            raise SkipTest(f"{_PROGRAMS} is not there: see .ci/run")
        if os.getuid() != 0:
            raise SkipTest("Cyrus starts as root")
        # One at a time on a machine: two of them reset each other's connections.
        turn = open(Path(tempfile.gettempdir()) / "pop3toy-tests-cyrus.lock", "a")  # noqa: SIM115
        self.addCleanup(turn.close)
        fcntl.flock(turn, fcntl.LOCK_EX)
        self.root = Path(tempfile.mkdtemp(prefix="cyrus-"))
        self.addCleanup(shutil.rmtree, self.root)
        self.root.chmod(0o755)
        self.spool = self.root / "spool"
        self.port = free_port()
        (self.root / "imapd.conf").write_text(_CONFIG.format(root=self.root) + self.configuration)
        words = {"root": self.root, "port": self.port, "programs": _PROGRAMS}
        (self.root / "cyrus.conf").write_text(_SERVICES.format(**words))
        owner = pwd.getpwnam("nobody")
        for name in ("conf", "spool"):
            (self.root / name).mkdir()
            os.chown(self.root / name, owner.pw_uid, owner.pw_gid)
        self._answer_for_passwords()
        self.start()

    def start(self) -> None:
        """Start it."""
        libraries = next((_ROOT / "usr/lib").glob("*-linux-gnu"))
        config, services, pid = (str(self.root / name) for name in ("imapd.conf", "cyrus.conf", "pid"))
        self.process = process = subprocess.Popen(
            [str(_PROGRAMS / "master"), "-D", "-C", config, "-M", services, "-p", pid],
            env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(self.stop)
        wait_until(lambda: self._listens() or process.poll() is not None, "Cyrus listens")
        self.assertIsNone(process.poll(), "Cyrus has ended")

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def deliver(self, user: str, messages: Iterable[bytes]) -> None:
        """Deliver messages, whose line ends are those of the wire; the user's mailbox is made."""
        with smtplib.LMTP(str(self.root / "lmtp")) as lmtp:
            for message in messages:
                self.assertEqual(lmtp.sendmail("bob@example.org", [user], message), {})

    def _listens(self) -> bool:
        # By looking: a connection that says nothing is a failure of its process, and with a few of them
        # Cyrus takes a service out of use.
        listening = f":{self.port:04X} 00000000:0000 0A "
        return listening in Path("/proc/net/tcp").read_text() and (self.root / "lmtp").exists()

    def _answer_for_passwords(self) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.root / "saslauthd"))
        (self.root / "saslauthd").chmod(0o777)
        listener.listen()

        def answer() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client, client.makefile("rb") as file:
                    # Name, password, service and realm, each with its length in front; so is the answer.
                    words = [file.read(struct.unpack(">H", file.read(2))[0]) for _ in range(4)]
                    said = b"OK" if words[1] == b"secret" else b"NO"
                    client.sendall(struct.pack(">H", len(said)) + said)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        self.addCleanup(thread.join, DEADLINE)
        self.addCleanup(listener.close)
        # Which a thread that waits for a connection does not notice of a close.
        self.addCleanup(listener.shutdown, socket.SHUT_RDWR)
