"""Metrics for Prometheus, and whether the server is well.

``table`` lists all metrics, ``labels`` bounds what may stand in a label, ``metrics`` counts what observers
are told, ``timed`` measures a store, ``asked`` tells what is worked out when somebody asks, ``shared`` adds
up several processes, ``health`` looks for trouble, ``site`` serves all that by HTTP. These modules are loaded
only where metrics are asked for. No port is opened here, which ``run.monitoring`` does. Start with ``table``.
"""
