"""Dovecot, where it is installed, keeps what is looked at, with the departures that it has on purpose."""

from __future__ import annotations

from pop3toy.conformance.rules import Level
from pop3toy.conformance.table import RULES

from ..dovecot_world import DovecotCase
from .world import MESSAGES, failed, look

#: USER without a name is taken; USER and SASL, which do not work after login, are announced no more then.
KNOWN = {"user-argument", "capa-kept"}


class DovecotTests(DovecotCase):
    """Dovecot with the messages that other servers are looked at with."""

    messages = MESSAGES

    def test_musts(self) -> None:
        """With STLS and with TLS from the start no MUST is broken but those that are known."""
        for port, tls in ((self.port, "stls"), (self.tls_port, "implicit")):
            found = look(
                port, RULES, tls=tls, context=self.trust, timeout=3.0, patience=20.0, destructive=True
            )
            broken = {name for name in failed(found) if found[name].rule.level is Level.MUST}
            self.assertEqual(broken, KNOWN, failed(found))
