"""Whose mail it is."""
