"""The servers that take mail: how each is configured, started and stopped.

Dovecot delivers by LMTP; Postfix takes mail by SMTP, queues it, and hands it on by
LMTP.  ``twisted.mail`` has no store that can deliver on Python 3
(``MaildirMessage`` mixes text and octets), so it is not among them.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.dovecot import LIBEXEC, Dovecot
from benchmarks.peers.peer import DoesNotStart, NotHere, free_ports
from benchmarks.peers.python_servers import ROOT, TWISTD, Pop3toy
from benchmarks.processes import Server
from tests.postfix_world import MAIN, MASTER, write_postfix

__all__ = ["TAKERS", "Taker"]

#: Seconds until a server greets.
START_PATIENCE = 60.0

_DOVECOT = """\
protocols = lmtp
listen = 127.0.0.1
base_dir = {root}/run
state_dir = {root}/run
instance_name = deliveries
log_path = {root}/dovecot.log
default_internal_user = {internal}
default_internal_group = {internal_group}
default_login_user = {login}
stats_writer_socket_path =
service lmtp {{
  inet_listener lmtp {{
    port = {port}
  }}
  process_min_avail = 8
  service_count = 0
}}
ssl = no
# Each message is on the disk before the reply, as with the others.
mail_fsync = always
mailbox_list_index = no
mail_location = maildir:{mail}/%n:INDEX={root}/index/%n:CONTROL={root}/index/%n
maildir_very_dirty_syncs = yes
first_valid_uid = 1
auth_username_format = %n
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={root}/home/%n allow_all_users=yes
}}
"""

#: What is not as in tests.
_POSTFIX = """\
virtual_mailbox_domains = localhost
virtual_transport = lmtp:inet:{loopback}:{lmtp}
# As many deliveries at once as there are senders; one for a mailbox at a time is not enough here.
lmtp_destination_concurrency_limit = 20
lmtp_destination_recipient_limit = 1
# No delays for a busy client.
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
in_flow_delay = 0
"""


class Taker:
    """A server, or two one behind the other, that takes mail for anybody into Maildirs.

    :param lmtp: whether it is spoken to in LMTP.
    """

    def __init__(self, name: str, *, lmtp: bool) -> None:
        self.name = name
        self.lmtp = lmtp
        self.port = 0
        self.servers: list[Server] = []

    def version(self) -> str:
        """What is measured, in words.

        :raises NotHere: if it is not installed, or cannot run here.
        """
        raise NotImplementedError

    def launch(self, root: Path, mail: Path, users: Sequence[str]) -> None:
        """Start the processes; sets ``port``."""
        raise NotImplementedError

    @contextmanager
    def running(self, root: Path, mail: Path, users: Sequence[str]) -> Iterator[None]:
        """While the body runs, so does it.

        :param root: a directory of its own.
        :param mail: where the Maildirs are, ``mail/USER``; they exist.
        :raises DoesNotStart: if it ends or never greets.
        """
        try:
            self.launch(root, mail, users)
            self._wait_for_greeting()
            yield
        finally:
            # Who hands mail on goes before who takes it.
            for server in reversed(self.servers):
                server.stop()
            self.servers.clear()

    def _wait_for_greeting(self) -> None:
        deadline = time.monotonic() + START_PATIENCE
        while not self._greets():
            if time.monotonic() > deadline or any(s.process.poll() is not None for s in self.servers):
                raise DoesNotStart("\n".join(server.complaint() for server in self.servers))
            time.sleep(0.05)

    def _greets(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
                greeted = sock.recv(512).startswith(b"220")
                sock.sendall(b"QUIT\r\n")
                return greeted
        except OSError:
            return False


class Pop3toyTaker(Taker):
    """This project's server, from this checkout, started as anybody would."""

    def version(self) -> str:
        """Its version and what it runs on."""
        return Pop3toy("pop3toy").version()

    def launch(self, root: Path, mail: Path, users: Sequence[str]) -> None:
        """SMTP or LMTP on a port; POP3 on one that nobody uses."""
        self.port, pop3 = free_ports(2)
        arguments = [sys.executable, "-c", TWISTD, "-n"]
        arguments += [f"--pidfile={root / 'twistd.pid'}", f"--logfile={root / 'twistd.log'}", "pop3toy"]
        arguments += ["--port", str(pop3), "--maildir", f"{mail}/{{user}}", "--transcript", "off"]
        if self.lmtp:
            arguments += ["--lmtp", f"tcp:{self.port}:interface=127.0.0.1"]
        else:
            arguments += ["--smtp-port", str(self.port)]
        for user in users:
            arguments += ["--user", f"{user}:sesame"]
        self.servers.append(Server(arguments, root / "out.log", {"PYTHONPATH": str(ROOT)}))


class DovecotTaker(Taker):
    """Dovecot's LMTP server."""

    def version(self) -> str:
        """Its own word for its version."""
        version = Dovecot().version()
        if not any(Path(libexec, "lmtp").exists() for libexec in LIBEXEC):
            raise NotHere("not installed: apt-get install dovecot-lmtpd")
        return f"{version}, LMTP"

    def launch(self, root: Path, mail: Path, users: Sequence[str]) -> None:
        """Write the configuration and start it."""
        (self.port,) = free_ports(1)
        self.servers.append(_dovecot(root, mail, self.port))


class PostfixTaker(Taker):
    """Postfix, which queues, and behind it a server that delivers.

    :param behind: delivers by LMTP.
    """

    def __init__(self, name: str, behind: Taker) -> None:
        super().__init__(name, lmtp=False)
        self._behind = behind

    def version(self) -> str:
        """Its own word for its version."""
        if shutil.which("postconf", path="/usr/sbin:/usr/bin") is None:
            raise NotHere("not installed: apt-get install postfix")
        if os.geteuid() != 0:
            raise NotHere("Postfix starts as root only")
        told = subprocess.run(
            ["/usr/sbin/postconf", "-dh", "mail_version"], capture_output=True, text=True, check=True
        )
        return f"Postfix {told.stdout.strip()} before {self._behind.version()}"

    def launch(self, root: Path, mail: Path, users: Sequence[str]) -> None:
        """Both; the one that delivers first."""
        behind = root / "behind"
        behind.mkdir()
        behind.chmod(0o755)
        self._behind.launch(behind, mail, users)
        self.servers += self._behind.servers
        self._behind.servers.clear()
        (self.port,) = free_ports(1)
        # Nothing of it is in a chroot.
        master = MASTER.replace("lmtp unix - - y", "lmtp unix - - n")
        config = write_postfix(root, MAIN + _POSTFIX, master, port=self.port, lmtp=self._behind.port)
        self.servers.append(
            Server(["/usr/sbin/postfix", "-c", str(config), "start-fg"], root / "postfix.log")
        )


def _dovecot(root: Path, mail: Path, port: int) -> Server:
    for name in ("run", "index", "home"):
        (root / name).mkdir()
    owner = mail.stat()
    rootless = os.getuid() != 0
    me = pwd.getpwuid(os.getuid()).pw_name
    if not rootless:
        for name in ("index", "home"):
            os.chown(root / name, owner.st_uid, owner.st_gid)
    config = root / "dovecot.conf"
    config.write_text(
        _DOVECOT.format(
            root=root,
            mail=mail,
            port=port,
            uid=owner.st_uid,
            gid=owner.st_gid,
            internal=me if rootless else "dovecot",
            internal_group=grp.getgrgid(os.getgid()).gr_name if rootless else "dovecot",
            login=me if rootless else "dovenull",
        )
    )
    program = shutil.which("dovecot", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    assert program is not None
    return Server([program, "-F", "-c", str(config)], root / "out.log")


#: By the name that ``--peers`` takes; the first is the measure of the others.
TAKERS: dict[str, Taker] = {
    taker.name: taker
    for taker in (
        DovecotTaker("dovecot-lmtp", lmtp=True),
        Pop3toyTaker("pop3toy-lmtp", lmtp=True),
        Pop3toyTaker("pop3toy-smtp", lmtp=False),
        PostfixTaker("postfix+dovecot", DovecotTaker("dovecot-lmtp", lmtp=True)),
        PostfixTaker("postfix+pop3toy", Pop3toyTaker("pop3toy-lmtp", lmtp=True)),
    )
}
