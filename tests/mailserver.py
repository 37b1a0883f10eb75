"""A whole mail server, started as an administrator starts it: for real clients, and for tests that kill it.

POP3, SMTP, submission and LMTP on free ports of loopback, with Maildirs in a
folder and each user's name as password.
"""

from __future__ import annotations

from pathlib import Path

from .realserver import RealServer

LOOPBACK = "127.0.0.1"


class MailServer:
    """``twistd -n pop3toy`` with ways in and out.

    :param root: a folder; its ``mail`` holds the Maildirs.
    :param lmtp: an endpoint for LMTP; a Unix socket in the folder if not given.
    """

    def __init__(self, root: Path, *users: str, lmtp: str | None = None) -> None:
        self.root = root
        self.lmtp = str(root / "lmtp.sock")
        for folder in ("mail", "server"):
            (root / folder).mkdir(exist_ok=True)
        pem = root / "cert.pem"
        self._server = RealServer(
            f"--maildir={root}/mail/{{user}}", "--create", *(f"--user={user}:{user}" for user in users),
            "--smtp-port=0", "--submission-port=0", f"--lmtp={lmtp or f'unix:{self.lmtp}'}",
            "--domain=localhost", "--domain=example.org",
            # All clients of a test come from one address.
            "--max-per-address=1000",
            *([f"--certificate={pem}"] if pem.exists() else []),
            folder=root / "server",
        )  # fmt: skip
        self.process = self._server.process
        self.pop3 = self._server.port
        self.smtp, self.submission = map(self._server.port_for, ("SMTP", "submission"))

    def kill(self) -> None:
        """End it as a power cut would end it, as far as a process can know."""
        self._server.kill()

    def stop(self) -> None:
        """End it in good order."""
        self._server.terminate()

    def messages(self, user: str) -> list[bytes]:
        """What lies in a user's Maildir, in the order of delivery."""
        folder = self.root / "mail" / user
        files = [*folder.glob("new/*"), *folder.glob("cur/*")]
        return [file.read_bytes() for file in sorted(files, key=lambda file: file.name)]
