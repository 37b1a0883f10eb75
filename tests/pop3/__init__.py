"""TODO tests/pop3."""
