"""TODO tests/routing."""
