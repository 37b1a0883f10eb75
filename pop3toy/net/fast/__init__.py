"""TODO pop3toy/net/fast."""
