"""The ``pop3toy`` command."""
