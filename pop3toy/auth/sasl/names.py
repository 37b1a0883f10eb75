"""The names of the SASL mechanisms, best first, apart from the mechanisms: reading options loads none."""

from __future__ import annotations

from typing import Final

__all__ = ["MECHANISM_NAMES"]

MECHANISM_NAMES: Final = (
    "EXTERNAL",
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-1-PLUS",
    "SCRAM-SHA-256",
    "SCRAM-SHA-1",
    "OAUTHBEARER",
    "XOAUTH2",
    "CRAM-MD5",
    "PLAIN",
    "LOGIN",
    "ANONYMOUS",
)
