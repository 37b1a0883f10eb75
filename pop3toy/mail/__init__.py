"""TODO pop3toy/mail."""
