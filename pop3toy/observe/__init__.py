"""TODO pop3toy/observe."""
