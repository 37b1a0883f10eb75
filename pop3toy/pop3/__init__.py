"""TODO pop3toy/pop3."""
