"""TODO tests/auth."""
