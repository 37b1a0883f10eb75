"""Dovecot 2.3, tuned.  ``benchmarks/README.rst`` gives the reasons of the settings that matter."""

from __future__ import annotations

import getpass
import grp
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from benchmarks.peers.peer import NotHere, Peer, Setting, free_ports
from benchmarks.processes import Server

_CONFIG = """\
protocols = pop3
listen = 127.0.0.1
base_dir = {run}
state_dir = {run}
instance_name = benchmark
log_path = {scratch}/dovecot.log
default_internal_user = {internal}
default_internal_group = {internal_group}
default_login_user = {login}
{chroot}

# One process serves many logins, one after the other, instead of one each.
service pop3-login {{
  service_count = 0
  client_limit = 12000
  process_min_avail = {cores}
  process_limit = {cores}
  {login_chroot}
  inet_listener pop3 {{
    port = {port}
  }}
  inet_listener pop3s {{
    port = {tls_port}
    ssl = {pop3s}
  }}
}}
service pop3 {{
  service_count = 0
  client_limit = 1
  process_min_avail = 8
  process_limit = 2000
}}
service auth {{
  client_limit = 20000
  user = {auth_user}
}}
service anvil {{
  client_limit = 20000
  {login_chroot}
  # No delay for an address that once sent a wrong password.
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  client_limit = 20000
}}
default_vsz_limit = 2G
default_process_limit = 2000
# Nobody reads the statistics.
stats_writer_socket_path =

disable_plaintext_auth = no
auth_mechanisms = plain
auth_cache_size = 32M
auth_cache_ttl = 1 hour
auth_cache_negative_ttl = 1 hour
auth_verbose = no
auth_worker_max_count = 1
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {passwords}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={scratch}/home/%u allow_all_users=yes
}}
first_valid_uid = 1
mail_max_userip_connections = 0
login_log_format_elements = user=<%u>

# The Maildir stays as it is: what Dovecot writes lies beside it.
mail_location = maildir:{mail}/%u:INDEX={index}/%u:CONTROL={index}/%u
mail_fsync = never
maildir_very_dirty_syncs = yes
mailbox_list_index = no
mail_log_prefix =
verbose_proctitle = no

pop3_no_flag_updates = yes
pop3_fast_size_lookups = yes
pop3_lock_session = no
pop3_enable_last = no
pop3_uidl_format = %08Xu%08Xv

{tls}
"""

_TLS = """\
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}
ssl_min_protocol = TLSv1.2
"""


def mail_owner() -> tuple[int, int] | None:
    """Who must own the Maildirs: Dovecot reads no mail as root.  ``None`` if we are not root."""
    if os.getuid() != 0:
        return None
    return (65534, grp.getgrnam("nogroup").gr_gid)


class Dovecot(Peer):
    """Dovecot in a directory of its own, in the foreground."""

    #: A process each: more would measure the machine's memory.
    most_held: ClassVar[int | None] = 500

    def __init__(self) -> None:
        super().__init__("dovecot")

    def version(self) -> str:
        """Its own word for its version."""
        program = self._program()
        told = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
        number = told.split()[0] if told else "?"
        if not re.match(r"2\.[23]\.", number):
            raise NotHere(f"Dovecot {number} reads another configuration; 2.3 is wanted")
        return f"Dovecot {number}"

    def _program(self) -> str:
        program = shutil.which("dovecot", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        if program is None or not any(Path(d, "pop3-login").exists() for d in LIBEXEC):
            raise NotHere("not installed: apt-get install dovecot-pop3d")
        return program

    def launch(self, setting: Setting) -> Server:
        """Write the configuration and start it."""
        self.port, self.tls_port = free_ports(2)
        scratch = setting.scratch
        # The path of a Unix socket has at most 107 octets, so this one is short.
        run = scratch / "run"
        index = scratch / "index"
        for directory in (run, index, scratch / "home"):
            directory.mkdir(exist_ok=True)
        owner = setting.world.owner
        rootless = owner is None
        me = getpass.getuser()
        if owner:
            os.chown(index, *owner)
        tls = _TLS.format(certificate=setting.certificate, key=setting.key)
        config = _CONFIG.format(
            run=run,
            scratch=scratch,
            index=index,
            mail=setting.world.mail,
            passwords=setting.world.passwords,
            port=self.port,
            tls_port=self.tls_port if setting.certificate else 0,
            pop3s="yes" if setting.certificate else "no",
            cores=os.cpu_count() or 1,
            internal=me if rootless else "dovecot",
            internal_group=grp.getgrgid(os.getgid()).gr_name if rootless else "dovecot",
            login=me if rootless else "dovenull",
            auth_user=me if rootless else "root",
            uid=owner[0] if owner else os.getuid(),
            gid=owner[1] if owner else os.getgid(),
            chroot="service ipc {\n  chroot =\n}" if rootless else "",
            login_chroot="chroot =" if rootless else "",
            tls=tls if setting.certificate else "ssl = no",
        )
        path = scratch / "dovecot.conf"
        path.write_text(config)
        return Server([self._program(), "-F", "-c", str(path)], scratch / "out.log")


LIBEXEC = ("/usr/lib/dovecot", "/usr/libexec/dovecot", "/usr/local/libexec/dovecot")
