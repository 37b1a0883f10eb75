"""Whose mail it is, and where it goes: addresses, aliases, quotas, several users.

``recipients`` resolves an address, ``aliases`` is the alias file, ``quota`` says how much a user may keep,
``fanout`` gives one message to several. No protocol and no store is known here. Start with ``recipients``.
"""
