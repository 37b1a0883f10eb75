"""TODO tests/net."""
