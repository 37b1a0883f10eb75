"""TODO pop3toy/config."""
