"""TODO pop3toy/auth/throttle."""
