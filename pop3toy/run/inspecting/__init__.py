"""The inspector in a running server: which hub is told, where it listens, with which token, over workers too.

``serving`` puts it together in the process that listens; ``across`` is what workers and their supervisor
say to each other for it.  What is told by HTTP is in ``observe.inspector``.  Start with ``serving``.
"""
