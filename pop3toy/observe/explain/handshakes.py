"""Why a TLS handshake failed, in a sentence."""

from __future__ import annotations

import re

from .explanation import N_, Explanation, Say, clause

__all__ = ["failed_handshake"]

#: Signs in OpenSSL's words, and what to say; the first that fits.
_SIGNS = (
    (
        r"http request",
        N_("A browser, or curl with http://, has come here: this port begins with TLS, and speaks no HTTP."),
        "hint",
    ),
    (
        r"wrong version number|unknown protocol|packet length too long|record layer failure",
        N_(
            "What came is no TLS: the client began in clear text, and this port begins with TLS. Choose"
            " SSL/TLS in the mail program, or the port without it, with STARTTLS."
        ),
        "hint",
    ),
    (
        r"unknown ca|certificate unknown|bad certificate|certificate verify failed",
        N_(
            "The client does not trust the certificate, as it does with every one that no authority it"
            " knows has signed."
        ),
        "hint",
    ),
    (
        r"unsupported protocol|no shared cipher|protocol version|inappropriate fallback|no protocols",
        N_("Client and server have no version of TLS, or no cipher, in common."),
        "warning",
    ),
)


def failed_handshake(why: str, say: Say) -> Explanation:
    """What to say of a handshake that failed.

    :param why: in OpenSSL's words.
    """
    for sign, text, kind in _SIGNS:
        if re.search(sign, why, re.IGNORECASE):
            return Explanation(kind, say(text), clause(8314, "3"))
    return Explanation("warning", say(N_("The handshake failed: {why}."), why=why), clause(8446, "6.2"))
