"""From addresses to users, and how much these may keep.

``recipients`` resolves an address, ``aliases`` reads the alias file, ``quota`` the quotas of accounts.
Knows no protocol and no store.  Start with ``recipients``.
"""
