"""TODO pop3toy/run."""
