"""The table of SASL mechanisms, best first; a new one is a file and a row here."""

from __future__ import annotations

from .anonymous import AnonymousMechanism
from .cram import CramMD5
from .exchange import Mechanism
from .external import External
from .oauth import OAuthBearer, XOAuth2
from .plain_login import LoginMechanism, Plain
from .scram import ScramSHA1, ScramSHA1Plus, ScramSHA256, ScramSHA256Plus

__all__ = ["MECHANISMS"]

_BEST_FIRST: tuple[type[Mechanism], ...] = (
    External,
    ScramSHA256Plus,
    ScramSHA1Plus,
    ScramSHA256,
    ScramSHA1,
    OAuthBearer,
    XOAuth2,
    CramMD5,
    Plain,
    LoginMechanism,
    AnonymousMechanism,
)
MECHANISMS = {mechanism.name: mechanism for mechanism in _BEST_FIRST}
