"""``pop3toy user``: ``command`` has the commands, ``app_passwords`` those for app passwords.

``listing`` shows the users, ``renaming`` renames one with the mailbox.
"""
