"""CAPA tells whether others can listen."""

from pop3toy import Settings

from ..run.test_server import STRANGER, MemoryCase


class PrivateTests(MemoryCase):
    """X-PRIVATE."""

    def test_who_is_told(self) -> None:
        """It is told to this machine, not to the network."""
        self.started(Settings(port=1))
        self.assertIn(b"\r\nX-PRIVATE\r\n", self.talk(1, b"CAPA"))
        self.assertNotIn(b"X-PRIVATE", self.talk(1, b"CAPA", peer=STRANGER))
