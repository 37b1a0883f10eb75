"""Servers as they are put together, started, stopped and killed."""
