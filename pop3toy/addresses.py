"""What is the same about mail addresses for whoever logs in and whoever is written to."""

from __future__ import annotations

__all__ = ["folded"]


def folded(domain: str) -> str:
    """One spelling for a domain: lower case, IDNA's ASCII form, no final dot."""
    domain = domain.rstrip(".").lower()
    try:
        # IDNA has other dots as well (RFC 3490 section 3.1).
        return domain.encode("idna").decode("ascii").rstrip(".")
    except UnicodeError:
        return domain
