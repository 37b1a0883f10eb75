"""TODO tests/observe."""
