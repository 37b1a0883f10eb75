"""Mail that comes in: SMTP, submission, LMTP."""
