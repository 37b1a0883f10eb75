"""What is there for speed alone, and knows how Twisted's transports and reactor work inside.

``immediate_write`` sends to a socket at once, ``reply_batcher`` answers those who are ready together
together. Both fall back to Twisted's own way where it looks different. No promise is kept here that would
not be kept without.
"""
