"""TODO tests/stores."""
