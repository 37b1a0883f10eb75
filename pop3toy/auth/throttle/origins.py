"""Where clients come from: whom an address stands for, and which stand for many.

Pure: text in, answers out.  What is counted by origin is in ``login_throttle`` and
``connection_limiter``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

__all__ = ["NOWHERE", "Networks", "is_local", "neighbourhood", "network"]


@lru_cache(maxsize=4096)
def network(host: str) -> str:
    """Whom an address stands for: itself, or its /64 for IPv6, where one client has them all."""
    if ":" not in host:
        return host
    address = _parsed(host)
    if not isinstance(address, IPv6Address) or address.is_loopback:
        return str(address) if address is not None else host
    return address.packed[:8].hex(":", 2) + "::/64"


@lru_cache(maxsize=4096)
def neighbourhood(host: str) -> str:
    """The network of an address that one party may well have as a whole: a /24 of IPv4, a /48 of IPv6."""
    address = _parsed(host)
    if address is None or address.is_loopback:
        return network(host)
    octets = 3 if address.version == 4 else 6
    return address.packed[:octets].hex()


@lru_cache(maxsize=4096)
def is_local(host: str) -> bool:
    """Whether an address, or what it stands for, is one of this machine's loopback addresses."""
    address = _parsed(host)
    return address is not None and address.is_loopback


@dataclass(frozen=True)
class Networks:
    """Some addresses and networks; ``host in networks`` says whether an address is one of them."""

    members: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, texts: Iterable[str]) -> Networks:
        """From addresses and networks in text: ``192.0.2.1``, ``2001:db8::/32``.

        :raises ValueError: if one is neither.
        """
        return cls(tuple(ip_network(text) for text in texts))

    def __contains__(self, host: str) -> bool:
        address = _parsed(host) if self.members else None
        return address is not None and any(address in member for member in self.members)


NOWHERE = Networks()


def _parsed(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
