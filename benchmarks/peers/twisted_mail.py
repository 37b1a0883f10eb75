"""twisted.mail.pop3 as a program: ``-m benchmarks.peers.twisted_mail MAIL PASSWORDS [CERTIFICATE KEY]``.

It is Twisted's own protocol and Maildir, with only what it takes to give right
answers on Python 3; each departure says what happens without it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet import protocol, reactor, ssl
from twisted.mail import maildir, pop3
from zope.interface import implementer


class Maildir(maildir.MaildirMailbox):
    """Twisted's Maildir, repaired."""

    def getMessage(self, i: int) -> IO[Any]:
        """Open a message as octets: Twisted opens text, and every RETR fails with a TypeError."""
        return open(self.list[i], "rb")

    def listMessages(self, i: int | None = None) -> Any:
        """Octets with CRLF from the name's W=: Twisted tells the file's size, one octet a line short."""
        if i is not None:
            return self._octets(self.list[i])  # type: ignore[arg-type]
        return [self._octets(path) for path in self.list]  # type: ignore[arg-type]

    @staticmethod
    def _octets(path: bytes) -> int:
        return int(path.rpartition(b",W=")[2].partition(b":")[0])


class Session(pop3.POP3):
    """Twisted's protocol, repaired."""

    _at_line_start = True

    def connectionMade(self) -> None:
        """TCP_NODELAY: without it every RETR of a small message waits 40 ms for a delayed ACK."""
        self.transport.setTcpNoDelay(True)
        super().connectionMade()

    def do_RETR(self, i: bytes) -> Any:
        """A message begins at the start of a line."""
        self._at_line_start = True
        return super().do_RETR(i)

    def transformChunk(self, chunk: bytes) -> bytes:
        """Stuff the dot of a chunk that begins with a line: Twisted forgets it at each 16 KiB."""
        stuffed = super().transformChunk(chunk)
        if self._at_line_start and chunk.startswith(b"."):
            stuffed = b"." + stuffed
        self._at_line_start = chunk.endswith(b"\n")
        return stuffed


class Factory(protocol.ServerFactory):
    """Sessions that log nothing, as for every other peer."""

    protocol = Session  # type: ignore[assignment]
    noisy = False

    def __init__(self, portal: Portal) -> None:
        self.portal = portal

    def buildProtocol(self, addr: object) -> Session:
        """A session with the portal."""
        session = Session()
        session.factory = self  # type: ignore[assignment]
        session.portal = self.portal  # type: ignore[assignment]
        return session


@implementer(IRealm)
class Realm:
    """Each user's Maildir below one directory."""

    def __init__(self, mail: Path) -> None:
        self.mail = mail

    def requestAvatar(self, avatar_id: bytes, mind: object, *interfaces: object) -> tuple[Any, Any, Any]:
        """Open the mailbox."""
        path = str(self.mail / avatar_id.decode("ascii")).encode()
        return pop3.IMailbox, Maildir(path), lambda: None


def main(mail: str, passwords: str, *tls: str) -> None:
    """Listen on free ports of 127.0.0.1 and print them."""
    checker = InMemoryUsernamePasswordDatabaseDontUse()
    for line in Path(passwords).read_text().splitlines():
        user, _, password = line.partition(":")
        checker.addUser(user.encode("ascii"), password.encode("ascii"))
    factory = Factory(Portal(Realm(Path(mail)), [checker]))
    ports = [reactor.listenTCP(0, factory, backlog=1024, interface="127.0.0.1")]
    if tls:
        context = ssl.DefaultOpenSSLContextFactory(tls[1], tls[0], sslmethod=ssl.SSL.TLS_METHOD)  # type: ignore[attr-defined]
        ports.append(reactor.listenSSL(0, factory, context, backlog=1024, interface="127.0.0.1"))  # type: ignore[attr-defined]
    print(*(port.getHost().port for port in ports), flush=True)  # type: ignore[attr-defined]
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
