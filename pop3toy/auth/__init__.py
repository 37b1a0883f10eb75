"""Who may come in: from credentials to a user, and from a user to an opened maildrop.

``authenticator`` answers what a session asks, by a ``twisted.cred`` portal; ``login`` is what is checked
behind the password; ``realm`` opens the maildrop. ``sasl`` has the mechanisms, ``accounts`` the sources of
users and passwords, ``throttle`` counts and delays. No protocol and no store is known here. Start with
``authenticator``.
"""
