"""The start under twistd, where it can go wrong before a port is open: twistd's own options, and its daemon.

``twistd_options`` looks at what twistd would end with a traceback for, and says which user the process
becomes; ``pid_file`` knows that file; ``daemon`` has somebody told why a daemon cannot start.  None of them
knows the settings of the server.
Begin with ``twistd_options``.
"""
