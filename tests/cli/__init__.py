"""TODO tests/cli."""
