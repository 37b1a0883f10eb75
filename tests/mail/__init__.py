"""TODO tests/mail."""
