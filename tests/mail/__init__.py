"""Octets, listings, unique-ids."""
