"""TODO tests/config."""
