"""Metrics and health of a running server: what is measured where, and the port that tells of it.

``process`` measures one that serves clients, with ``measured``; ``endpoint`` has the port, ``troubles`` what
``/healthz`` looks at; ``supervisor`` tells of all workers together. All this is with ``--metrics`` alone:
else nothing is measured, and no module of ``observe.metrics``, where it is counted, is loaded. Start with
``process``.
"""
