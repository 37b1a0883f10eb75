"""TODO pop3toy/routing."""
