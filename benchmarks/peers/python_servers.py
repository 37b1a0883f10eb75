"""The two servers on Twisted: ours, and the one in twisted.mail."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from pathlib import Path

from benchmarks.peers.peer import NotHere, Peer, Setting, free_ports
from benchmarks.processes import Server

ROOT = Path(__file__).resolve().parents[2]
TWISTD = "from twisted.scripts.twistd import run; run()"


def _need_twisted() -> str:
    if importlib.util.find_spec("twisted") is None:
        raise NotHere("not installed: apt-get install python3-twisted (or pip install twisted)")
    return f"Twisted {importlib.metadata.version('twisted')}, Python {platform.python_version()}"


class Pop3toy(Peer):
    """This project's server, from this checkout.

    :param workers: processes on one port; 0 for the plain single process.
    """

    def __init__(self, name: str, workers: int = 0) -> None:
        super().__init__(name)
        self.workers = workers

    def version(self) -> str:
        """Its version and what it runs on."""
        twisted = _need_twisted()
        sys.path.insert(0, str(ROOT))
        try:
            from pop3toy._version import __version__
        finally:
            sys.path.remove(str(ROOT))
        more = f", {self.workers} workers" if self.workers else ""
        return f"pop3toy {__version__}{more}, {twisted}"

    def mail(self, setting: Setting) -> list[str]:
        """The options that say where the mail is."""
        return ["--maildir", f"{setting.world.mail}/{{user}}"]

    def launch(self, setting: Setting) -> Server:
        """Start it as anybody would, with the transcript off."""
        self.port, self.tls_port = free_ports(2)
        scratch = setting.scratch
        arguments = [sys.executable, "-c", TWISTD, "-n"]
        arguments += [f"--pidfile={scratch / 'twistd.pid'}", f"--logfile={scratch / 'twistd.log'}", "pop3toy"]
        arguments += ["--port", str(self.port)]
        arguments += [*self.mail(setting), "--transcript", "off"]
        # The default of 4,096 is for strangers' sake; here all come from one machine.
        arguments += ["--max-connections", "20000", "--max-per-address", "20000"]
        if setting.certificate:
            arguments += ["--tls-port", str(self.tls_port)]
            arguments += ["--certificate", str(setting.certificate), "--key", str(setting.key)]
        for account in setting.world.passwords.read_text().split():
            arguments += ["--user", account]
        if self.workers:
            arguments += ["--workers", str(self.workers)]
        return Server(arguments, scratch / "out.log", {"PYTHONPATH": str(ROOT)})


class TwistedMail(Peer):
    """``twisted.mail.pop3`` with the fewest changes that make its answers right; see ``twisted_mail.py``."""

    def __init__(self) -> None:
        super().__init__("twisted.mail")

    def version(self) -> str:
        """What it runs on."""
        return f"twisted.mail.pop3, {_need_twisted()}"

    def launch(self, setting: Setting) -> Server:
        """Start ``twisted_mail.py``, which prints its ports."""
        arguments = [sys.executable, "-m", "benchmarks.peers.twisted_mail"]
        arguments += [str(setting.world.mail), str(setting.world.passwords)]
        if setting.certificate:
            arguments += [str(setting.certificate), str(setting.key)]
        server = Server(arguments, setting.scratch / "out.log", {"PYTHONPATH": str(ROOT)})
        ports = [int(port) for port in server.first_line().split()]
        self.port, self.tls_port = (*ports, 0, 0)[:2]
        return server
