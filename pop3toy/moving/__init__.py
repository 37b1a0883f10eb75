"""Moving mail in from other servers: what their files say, and which messages are the same.

Start with ``matching``.  ``dovecot``, ``courier`` and ``cyrus`` read the files of these servers; they get
bytes and names, and open nothing.
"""
