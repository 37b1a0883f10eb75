"""TODO pop3toy/stores/maildir/incoming."""
