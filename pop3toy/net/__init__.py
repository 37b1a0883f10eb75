"""TODO pop3toy/net."""
