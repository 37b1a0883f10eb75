"""TODO tests/clients."""
