"""TODO tests/smtp."""
