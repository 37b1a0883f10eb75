"""The version, in its one place; setup.cfg and IMPLEMENTATION read it here."""

__version__ = "0.1.0"
