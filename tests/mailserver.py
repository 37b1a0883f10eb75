"""A whole mail server as a process of its own: ``python -m tests.mailserver ROOT USER...``.

POP3, SMTP, submission and LMTP on free ports of loopback, with Maildirs in ROOT and
each user's name as password.  Prints the ports as one line of JSON.  For tests
with real clients, and for those that kill it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet import ssl

from pop3toy.auth.authenticator import PortalAuthenticator
from pop3toy.auth.memory import MemoryAccounts
from pop3toy.auth.realm import MailboxRealm
from pop3toy.delivery.factory import lmtp_factory, smtp_factory, submission_factory
from pop3toy.delivery.recipients import Recipients
from pop3toy.delivery.submission import SenderRealm
from pop3toy.factory import POP3Factory
from pop3toy.stores.maildir import MaildirStore
from pop3toy.stores.maildir_delivery import MaildirDelivery
from pop3toy.stores.maildir_paths import MaildirPaths
from pop3toy.threads import WorkerThreads

LOOPBACK = "127.0.0.1"


class MailServer:
    """The process, and where it listens.

    :param root: a folder; its ``mail`` holds the Maildirs.
    """

    def __init__(self, root: Path, *users: str) -> None:
        (root / "mail").mkdir(exist_ok=True)
        self.root = root
        command = [sys.executable, "-m", "tests.mailserver", str(root), *users]
        project = str(Path(__file__).parent.parent)
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, cwd=project, env={**os.environ, "PYTHONPATH": project}
        )
        assert self.process.stdout is not None
        ports: dict[str, int] = json.loads(self.process.stdout.readline())
        self.pop3, self.smtp, self.submission = ports["pop3"], ports["smtp"], ports["submission"]
        self.lmtp = str(root / "lmtp.sock")

    def kill(self) -> None:
        """End it as a power cut would end it, as far as a process can know."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def messages(self, user: str) -> list[bytes]:
        """What lies in a user's Maildir, in the order of delivery."""
        folder = self.root / "mail" / user
        files = [*folder.glob("new/*"), *folder.glob("cur/*")]
        return [file.read_bytes() for file in sorted(files, key=lambda file: file.name)]


def make_certificate(folder: Path) -> Path:
    """A certificate for localhost, with its key, as one PEM file."""
    pem = folder / "cert.pem"
    if not pem.exists():
        key, certificate = folder / "key", folder / "certificate"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2",
             "-keyout", str(key), "-out", str(certificate)],
            check=True, capture_output=True,
        )  # fmt: skip
        pem.write_bytes(key.read_bytes() + certificate.read_bytes())
    return pem


def _serve(root: Path, users: list[str]) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed
    reading, writing = WorkerThreads(reactor), WorkerThreads(reactor, name="delivery", size=16)
    paths = MaildirPaths(str(root / "mail" / "{user}"), create=True)
    delivery = MaildirDelivery(paths.locate, writing.run, reactor)
    recipients = Recipients(
        lambda name: name if name in users else None, domains=["localhost", "example.org"]
    )
    checkers = [MemoryAccounts({user: user for user in users})]
    pem = root / "cert.pem"
    tls = ssl.PrivateCertificate.loadPEM(pem.read_bytes()).options() if pem.exists() else None
    factories = {
        "pop3": POP3Factory(
            reactor, PortalAuthenticator(Portal(MailboxRealm(MaildirStore(paths, reading.run)), checkers))
        ),
        "smtp": smtp_factory(delivery, recipients, reactor, tls=tls),
        "submission": submission_factory(
            delivery, recipients, reactor, PortalAuthenticator(Portal(SenderRealm(), checkers)), tls=tls
        ),
    }
    reading.startService()
    writing.startService()
    ports = {}
    for name, factory in factories.items():
        ports[name] = reactor.listenTCP(0, factory, interface=LOOPBACK).getHost().port
    reactor.listenUNIX(str(root / "lmtp.sock"), lmtp_factory(delivery, recipients, reactor))
    for threads in (reading, writing):
        reactor.addSystemEventTrigger("after", "shutdown", threads.stopService)
    reactor.callWhenRunning(lambda: print(json.dumps(ports), flush=True))
    reactor.run()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2:])
