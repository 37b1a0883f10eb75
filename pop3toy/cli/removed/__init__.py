"""``pop3toy mailbox expire`` and ``undo``: old mail goes, and mail that a client has removed comes back.

What is removed, and how, is in ``stores``.
"""
