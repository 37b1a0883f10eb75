"""Mail that comes into object storage: one request makes a message visible as a whole, or not at all.

``delivery`` is the way in, ``sums`` what maildrops hold, for quotas. Start with ``delivery``.
"""
