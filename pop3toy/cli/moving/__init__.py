"""``pop3toy mailbox fetch`` and ``compare``; ``servers`` has what both share: whom to trust, and who logs in.

What they do is in ``moving`` and in ``stores.copying``.
"""
