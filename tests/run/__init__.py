"""TODO tests/run."""
