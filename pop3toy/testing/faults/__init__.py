"""Faults: what a server does wrong on purpose, and when.  Start reading with ``kinds``."""
