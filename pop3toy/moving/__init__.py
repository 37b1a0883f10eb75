"""Moving mail in from other servers: what their files say, which messages are the same, and POP3 itself.

Start with ``matching``.  ``dovecot``, ``courier`` and ``cyrus`` read the files of these servers; they get
bytes and names, and open nothing.  ``client`` and ``login`` are a POP3 client for commands.
"""
