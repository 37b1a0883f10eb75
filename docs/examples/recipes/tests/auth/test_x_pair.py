"""X-PAIR lets in who knows the password."""

from base64 import b64encode

from pop3toy import Settings

from ..run.test_server import MemoryCase


class PairTests(MemoryCase):
    """X-PAIR."""

    def test_login(self) -> None:
        """The password decides; a response of another form is a mistake and no failed login."""
        self.started(Settings(port=1, users=(("ann", "secret"),)))
        for response, answer in (
            (b"ann secret", b"+OK maildrop"),
            (b"ann wrong", b"-ERR [AUTH]"),
            (b"ann", b"-ERR this is not"),
        ):
            said = self.talk(1, b"AUTH X-PAIR " + b64encode(response))
            self.assertTrue(said.splitlines()[1].startswith(answer), said)
