"""Masking: what of a name or a mechanism may be shown, whatever a client has put in its place.

For POP3 and SMTP alike; which of a command's arguments is a name, each protocol says itself.
"""

from __future__ import annotations

import re

__all__ = ["mechanism_alone", "name_alone"]

# Blanks (the no-break space, too), control characters, and what people put between two words.
_BEHIND_A_NAME = re.compile(rb"(?:[\x00-\x20\x7f:=,;|]|\xc2\xa0).*", re.DOTALL)


def name_alone(claimed: bytes) -> bytes:
    """A name that a client claims, without what stands behind it.

    That can be the password: people who do not know POP3 type both on one line, and
    clients send both where the name alone is asked for (RFC 4616 has a NUL between them).
    Blanks at its end are no password, and tell why the name is not known.
    """
    if not _BEHIND_A_NAME.search(claimed.rstrip(b" ")):
        return claimed
    return _BEHIND_A_NAME.sub(b" ****", claimed, count=1)


#: Names of SASL mechanisms, ours and others that clients ask for: what stands in the place of one
#: and is none of them may be a secret.
_MECHANISM_NAMES = (
    "ANONYMOUS APOP CRAM-MD5 DIGEST-MD5 ECDSA-NIST256P-CHALLENGE EXTERNAL GS2-KRB5 GS2-KRB5-PLUS GSSAPI"
    " GSS-SPNEGO KERBEROS_V4 KERBEROS_V5 LOGIN MSN NTLM OAUTH10A OAUTHBEARER OPENID20 OTP PLAIN"
    " PLAIN-CLIENTTOKEN RPA SAML20 SCRAM-SHA-1 SCRAM-SHA-1-PLUS SCRAM-SHA-224 SCRAM-SHA-256"
    " SCRAM-SHA-256-PLUS SCRAM-SHA-384 SCRAM-SHA-512 SCRAM-SHA-512-PLUS SCRAM-SHA3-512 SECURID SKEY"
    " SPNEGO X-OAUTH2 XOAUTH XOAUTH2 XYMCOOKIE"
)
_MECHANISM_FIRST = re.compile(
    rb"(?:%b)(?![\w-])" % _MECHANISM_NAMES.replace(" ", "|").encode("ascii"), re.IGNORECASE
)


def mechanism_alone(rest: bytes) -> bytes:
    """What stands behind AUTH, with nothing left of it but a mechanism's name."""
    if not rest:
        return b""
    match = _MECHANISM_FIRST.match(rest)
    if match is None:
        return b"****"
    return match[0].upper() + (b" ****" if rest[match.end() :].strip(b" ") else b"")
