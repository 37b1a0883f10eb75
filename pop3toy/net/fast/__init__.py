"""What is there for speed alone, and knows how Twisted's transports and reactor work inside.

``immediate_write`` sends to a socket at once, ``reply_batcher`` answers connections that are ready together
in one go. Both fall back to Twisted's own way where it looks different. ``run.speed`` alone imports them, and
the folder can be deleted.
"""
