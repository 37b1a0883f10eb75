"""Copying mailboxes from one store to another, with their unique-ids, while both are in use.

Blocks, and needs no reactor.  Start with ``mailbox``, which knows what is copied and what is not; the two
kinds of store are in ``maildirs`` and ``objects``, and what they have in common in ``messages``.
"""
