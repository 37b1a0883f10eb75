"""Mail comes in: SMTP, submission and LMTP, on Twisted's own SMTP server, into an IDelivery."""
