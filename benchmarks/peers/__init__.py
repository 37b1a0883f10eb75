"""The servers that are compared: how each is found, configured, started and stopped."""

from __future__ import annotations

from benchmarks.peers.dovecot import Dovecot
from benchmarks.peers.peer import DoesNotStart, NotHere, Peer, Setting
from benchmarks.peers.python_servers import Pop3toy, TwistedMail
from benchmarks.peers.sendfile import SendfileServer

__all__ = ["PEERS", "DoesNotStart", "NotHere", "Peer", "Setting"]

#: By the name that ``--peers`` takes; the first is the measure of the others.
PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Dovecot(),
        Pop3toy("pop3toy"),
        Pop3toy("pop3toy-2", workers=2),
        TwistedMail(),
        SendfileServer(),
    )
}
