"""Courier's POP3 server, where its program is.

Debian's package courier-pop cannot be installed beside dovecot-pop3d, so its program is taken out of the
package (see ``.ci/run``).  It begins behind the login, which its own daemons do as root on ports and paths of
their own; here a thread does that, and the program has the connection from then on, as from them.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path

from twisted.trial.unittest import SkipTest

__all__ = ["Courier"]

_PLACES = ("/usr/lib/courier/courier/courierpop3d", "/opt/courier-pop/usr/lib/courier/courier/courierpop3d")


class Courier:
    """A Courier for one Maildir, on a free port of 127.0.0.1.

    :param maildir: of the user ann, whose password is secret.
    """

    def __init__(self, maildir: Path, port: int = 0) -> None:
        program = next((place for place in _PLACES if Path(place).exists()), None)
        if program is None:
            raise SkipTest(f"{_PLACES[1]} is not there: see .ci/run")
        self._program = program
        self._maildir = maildir
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def stop(self) -> None:
        """Take no more connections."""
        # Which a thread that waits for one does not notice of a close.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                self._session(client)

    def _session(self, client: socket.socket) -> None:
        client.sendall(b"+OK Hello there.\r\n")
        while line := _line(client):
            word = line.split()[0].upper()
            if word == b"CAPA":
                client.sendall(b"+OK Here's what I can do:\r\nUSER\r\nTOP\r\nUIDL\r\nPIPELINING\r\n.\r\n")
            elif word == b"USER":
                client.sendall(b"+OK Password required.\r\n")
            elif line == b"PASS secret\r\n":
                # Its first word is "+OK logged in."
                environ = {"AUTHENTICATED": "ann", "AUTHADDR": "ann", "HOME": str(self._maildir)}
                subprocess.run(
                    [self._program, str(self._maildir)],
                    cwd=self._maildir,
                    env={**os.environ, **environ, "TCPREMOTEIP": "127.0.0.1", "TCPREMOTEPORT": "1"},
                    stdin=client.fileno(),
                    stdout=client.fileno(),
                    stderr=subprocess.DEVNULL,
                    check=False,
                )
                return
            else:
                client.sendall(b"-ERR Invalid command.\r\n")


def _line(client: socket.socket) -> bytes:
    """A line, and not an octet of what follows: that is the program's."""
    line = b""
    while not line.endswith(b"\n"):
        octet = client.recv(1)
        if not octet:
            return b""
        line += octet
    return line
