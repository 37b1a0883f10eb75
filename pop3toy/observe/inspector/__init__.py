"""The inspector: a running server's sessions, events and mailboxes for browsers and programs, over HTTP.

An observer (``hub``) keeps what happened, within bounds; ``api`` tells it, and acts through
:class:`~pop3toy.interfaces.IServerControl` and a gate (``stepping``).  Who may ask is decided in ``access``,
in one place.  Start with ``hub``, then ``api``.  Nothing here knows a store or a protocol.
"""
