"""TODO pop3toy/auth/sasl."""
