"""Is an object storage fit for mail?  ``pop3toy store check`` asks.

What the look at the start (``probe``) cannot see: whether conditions hold when several processes ask at the
same time (``contest``), and how fast it is (``latencies``).  Start with ``examination``.  No server uses it.
"""
