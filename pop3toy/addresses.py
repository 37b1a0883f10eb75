"""Mail addresses as text (RFC 5321 section 4.1.2), for logins and for recipients.

Syntax alone.  Whether this server takes mail for an address, and for which user, ``routing`` knows.
"""

from __future__ import annotations

import re
import stringprep
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

__all__ = ["MAILBOX", "Address", "folded", "ip_literal", "is_domain", "parse_address", "unquoted"]


def folded(domain: str) -> str:
    """One spelling for a domain: lower case, IDNA's ASCII form, no final dot."""
    domain = domain.rstrip(".").lower()
    try:
        # IDNA has other dots as well (RFC 3490 section 3.1).
        return domain.encode("idna").decode("ascii").rstrip(".")
    except UnicodeError:
        return domain


class Address(NamedTuple):
    """A mailbox, as text."""

    #: The local part, without quotes.
    local: str
    #: The domain as it was written, perhaps ``[192.0.2.1]``; "" when none was given.
    domain: str
    #: The whole as it was written, for headers and logs.
    written: str


# RFC 5321 section 4.1.2 and RFC 6531 section 3.3.  Dots may stand anywhere: there
# are real senders with "a..b", and no mailbox of ours becomes another one by it.
_LOCAL = r"""[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\-\u0080-\U0010ffff]+|"(?:[^"\\\x00-\x1f\x7f]|\\[ -~])*\""""


_DOMAIN = r"[A-Za-z0-9._\-\u0080-\U0010ffff]+|\[[A-Za-z0-9.:\-]+\]"


#: A pattern with the groups ``local`` and ``domain``.
MAILBOX = rf"(?P<local>{_LOCAL})(?:@(?P<domain>{_DOMAIN}))?"


_ADDRESS = re.compile(MAILBOX)


# RFC 3490 section 3.1: what separates labels.
_DOT = re.compile("[.\u3002\uff0e\uff61]")


def parse_address(text: str) -> Address:
    """Read ``local@domain`` or ``local``.

    :raises ValueError: if it is neither.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or not is_domain(match["domain"] or ""):
        raise ValueError("not a mail address")
    return Address(unquoted(match["local"]), match["domain"] or "", text)


def ip_literal(domain: str) -> IPv4Address | IPv6Address | None:
    """The address that a domain such as ``[192.0.2.1]`` or ``[IPv6:::1]`` is (RFC 5321 section 4.1.3)."""
    if not domain.startswith("["):
        return None
    tag, colon, address = domain[1:-1].partition(":")
    try:
        if not colon:
            return IPv4Address(tag)
        found = IPv6Address(address) if tag.lower() == "ipv6" else None
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if found is not None else None


def is_domain(domain: str) -> bool:
    """Whether it can be one, or there is none: no label is empty, but for one behind a final dot."""
    if domain.startswith("["):
        return ip_literal(domain) is not None
    *labels, last = _DOT.split(domain)
    if not labels and not domain:
        return True
    if last or not labels:
        labels.append(last)
    if domain.isascii():
        return "" not in labels
    # Characters that IDNA maps to nothing make no label (RFC 3454 table B.1), and some become dots.
    empty = any(all(map(stringprep.in_table_b1, label)) for label in labels)
    return not empty and "" not in folded(domain).split(".")


def unquoted(local: str) -> str:
    """A local part without its quotes."""
    return re.sub(r"\\(.)", r"\1", local[1:-1]) if local.startswith('"') else local
