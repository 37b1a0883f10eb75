"""A Postfix of our own on loopback, with its folders in a temporary one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .mailserver import LOOPBACK
from .realserver import free_port

__all__ = ["MAIN", "MASTER", "PostfixMixin", "write_postfix"]

MAIN = """
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file_prefixes = {root}
maillog_file = {root}/maillog
inet_interfaces = {loopback}
inet_protocols = ipv4
myhostname = relay.example.org
mydestination =
mynetworks = {loopback}/32
smtpd_relay_restrictions = permit_mynetworks, reject
virtual_mailbox_maps = static:any
smtputf8_enable = no
# Otherwise it adds Date and Message-Id to what mynetworks send.
local_header_rewrite_clients =
"""

MASTER = """
{loopback}:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
lmtp unix - - y - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
pickup unix n - n 60 1 pickup
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


def write_postfix(root: Path, main: str, master: str, **values: object) -> Path:
    """Make Postfix' folders, and write its configuration.

    :param main: of ``main.cf``; ``root``, ``loopback`` and the values are put into both.
    :return: the folder that ``postfix -c`` takes.
    """
    for folder in ("etc", "queue", "data"):
        (root / folder).mkdir()
    shutil.chown(root / "data", "postfix")
    config = root / "etc"
    for name, text in (("main.cf", main), ("master.cf", master)):
        (config / name).write_text(text.format(root=root, loopback=LOOPBACK, **values))
    return config


class PostfixMixin(SynchronousTestCase):
    """For a test with a Postfix of its own."""

    def needs_postfix(self) -> None:
        """Skip the test where there can be none."""
        if shutil.which("postfix") is None:
            self.skipTest("postfix is not installed (Debian package postfix)")
        if os.geteuid() != 0:
            self.skipTest("Postfix starts as root only")

    def prepare_postfix(self, root: Path, main: str = MAIN, master: str = MASTER, **values: object) -> None:
        """Write its configuration, with a free port as ``port``."""
        # Postfix's own user goes through it to the socket.
        root.chmod(0o755)
        self.postfix_root, self.port = root, free_port()
        write_postfix(root, main, master, port=self.port, **values)

    def start_postfix(self) -> None:
        """Start it; it stops with the test."""
        self.postfix("start")
        self.addCleanup(self.postfix, "stop")

    def postfix(self, command: str) -> None:
        """Run ``postfix`` on our configuration."""
        config = str(self.postfix_root / "etc")
        done = subprocess.run(["postfix", "-c", config, command], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr + self.log())

    def log(self) -> str:
        """What Postfix has to say."""
        path = self.postfix_root / "maillog"
        return path.read_text() if path.exists() else ""
