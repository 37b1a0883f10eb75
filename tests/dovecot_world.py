"""Dovecot in a folder of its own, where it is installed."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from .corpus import make_maildir
from .realserver import free_port, wait_until
from .tls_world import Authority

__all__ = ["PASSWORD", "USER", "DovecotCase"]

USER, PASSWORD = "ann", "open sesame"
#: Dovecot's own defaults, but for the lock, which it leaves out.
_CONFIG = """\
protocols = pop3
listen = 127.0.0.1
base_dir = {root}/run
state_dir = {root}/run
log_path = {root}/log
default_internal_user = dovecot
default_internal_group = dovecot
default_login_user = dovenull
service pop3-login {{
  inet_listener pop3 {{
    port = {port}
  }}
  inet_listener pop3s {{
    port = {tls_port}
    ssl = yes
  }}
}}
# No delay for an address that once sent a wrong password.
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
auth_failure_delay = 0
auth_mechanisms = plain login cram-md5
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {root}/passwords
}}
userdb {{
  driver = static
  args = uid=nobody gid={group} home={root}/home allow_all_users=yes
}}
first_valid_uid = 1
mail_location = maildir:{root}/mail/%u
mail_max_userip_connections = 0
pop3_lock_session = yes
ssl = yes
ssl_cert = <{pem}
ssl_key = <{pem}
"""


def listens(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class DovecotCase(SynchronousTestCase):
    """A Dovecot with the mailbox of one user; TLS is trusted by ``trust``.

    :cvar configuration: more lines of it, in which ``{root}`` is its folder.
    :cvar messages: what is in the mailbox.
    """

    configuration = ""
    messages: Sequence[bytes] = (b"Subject: one\n\nhello\n", b"Subject: two\n\n.dot\n")

    def setUp(self) -> None:
        program = shutil.which("dovecot", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        if program is None or not Path("/usr/lib/dovecot/pop3-login").exists():
            raise SkipTest("Dovecot is not installed: apt-get install dovecot-pop3d")
        told = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
        if not told.startswith("2.3."):
            raise SkipTest(f"Dovecot {told.split()[0]} reads another configuration; 2.3 is wanted")
        if os.getuid() != 0:
            raise SkipTest("Dovecot's own users are needed, and so is root")
        # The path of a Unix socket has at most 107 octets, and all of it is readable to Dovecot's users.
        self.root = Path(tempfile.mkdtemp(prefix="dovecot-"))
        self.addCleanup(shutil.rmtree, self.root)
        self.root.chmod(0o755)
        authority = Authority(self.root)
        self.authority_file = authority.file
        self.trust = ssl.create_default_context(cafile=authority.file)
        pem = authority.issue("localhost", "127.0.0.1").write(self.root / "pair.pem")
        (self.root / "passwords").write_text(f"{USER}:{PASSWORD}\n")
        (self.root / "home").mkdir()
        self.fill()
        self.port, self.tls_port = free_port(), free_port()
        group = grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name
        config = self.root / "dovecot.conf"
        config.write_text(
            (_CONFIG + self.configuration).format(
                root=self.root, port=self.port, tls_port=self.tls_port, pem=pem, group=group
            )
        )
        process = subprocess.Popen(
            [program, "-F", "-c", str(config)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.process = process
        self.addCleanup(process.wait, 60)
        self.addCleanup(process.terminate)
        wait_until(lambda: listens(self.port) or process.poll() is not None, "Dovecot listens")
        self.assertIsNone(process.poll(), (self.root / "log").read_text() if process.poll() else "")

    def fill(self) -> None:
        """A Maildir that belongs to nobody."""
        maildir = make_maildir(self.root / "mail" / USER)
        for at, message in enumerate(self.messages):
            (maildir / "cur" / f"{1_700_000_000 + at}.M{at}P1.mail:2,S").write_bytes(message)
        owner = pwd.getpwnam("nobody")
        for path in [self.root / "mail", self.root / "home", *(self.root / "mail").rglob("*")]:
            os.chown(path, owner.pw_uid, owner.pw_gid)
