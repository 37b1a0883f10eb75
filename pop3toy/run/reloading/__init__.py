"""Settings that are read again while the server runs, at SIGHUP.

``again`` reads and checks the file and says what comes of it, ``taking`` gives the new values to the parts of
a server. What may change at all is a table in ``config.changes``. Start with ``again``.
"""
