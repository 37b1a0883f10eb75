"""Moving in: ``adopt`` keeps the unique-ids that clients know from another server, which ``sources`` reads.

What the files of other servers say is in ``pop3toy.moving``.
"""
