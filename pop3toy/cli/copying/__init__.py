"""``pop3toy store copy``: ``command`` is the command, ``users`` copies for several users at once.

What is done for one mailbox is in ``stores.copying``.
"""
