"""``--login-patience``."""

from twisted.internet.testing import StringTransport

from pop3toy.tap import Options

from ..run.test_server import LOOPBACK, MemoryCase


class PatienceTests(MemoryCase):
    """What is said on the command line reaches the connection."""

    def test_patience(self) -> None:
        """A client that says nothing is sent away when the time is over, and not before."""
        options = Options()
        options.parseOptions(["--port=1", "--login-patience=900"])
        self.started(options.settings)
        transport = StringTransport(peerAddress=LOOPBACK)
        protocol = self.reactor.tcpServers[0][1].buildProtocol(LOOPBACK)
        protocol.makeConnection(transport)
        self.addCleanup(protocol.connectionLost)
        self.reactor.advance(899)
        self.assertFalse(transport.disconnecting)
        self.reactor.advance(2)
        self.assertTrue(transport.disconnecting)
