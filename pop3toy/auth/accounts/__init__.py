"""TODO pop3toy/auth/accounts."""
