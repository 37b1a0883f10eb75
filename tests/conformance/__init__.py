"""Tests of ``pop3toy check``: against this server, Dovecot, and servers that break each rule."""
