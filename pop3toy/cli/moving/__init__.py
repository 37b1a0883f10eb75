"""``pop3toy mailbox adopt``, ``accept``, ``fetch`` and ``compare``: moving in from other servers.

``servers`` has what commands share that log in at a POP3 server, ``sources`` what ``adopt`` reads of others.
What they do is in ``moving`` and in ``stores.copying``.
"""
