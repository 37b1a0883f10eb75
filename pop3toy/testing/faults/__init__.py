"""Faults: what a server does wrong on purpose, and when.

``kinds`` has each kind with what it does to a reply, ``rules`` when it happens, ``gate`` puts it in,
``file`` reads both from TOML; ``store`` and ``tls`` are what stands around those parts of a server,
``server`` the whole of it.
Nothing of the server knows of them.  Start reading with ``kinds``.
"""
