"""A running server: made of settings, started, stopped, in one process or several.

``assembly`` puts all parts together; ``access``, ``ports``, ``recipients`` and ``tls`` make one of them
each of the settings; ``process_context`` is what differs between processes, ``supervised`` and
``as_worker`` are those of a server with workers, over ``workers``; ``checks`` finds mistakes by looking at
files. Start with ``assembly``.
"""
