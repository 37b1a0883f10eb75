"""TODO pop3toy/net/tls."""
