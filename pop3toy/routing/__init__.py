"""Whose mail it is, and where it goes: addresses, aliases, quotas.

``recipients`` resolves an address, ``aliases`` is the alias file, ``quota`` says how much a user may keep.
No protocol and no store is known here. Start with ``recipients``.
"""
