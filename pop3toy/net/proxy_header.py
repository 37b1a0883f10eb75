"""The header of the PROXY protocol: who the client of a proxy is.

Versions 1 and 2, as HAProxy's ``proxy-protocol.txt`` has them.  Pure: octets
in, addresses out; the waiting for them is in ``proxied``.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple, TypeAlias

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

__all__ = ["Address", "BadHeader", "Header", "parse_header"]

Address: TypeAlias = IPv4Address | IPv6Address | UNIXAddress

#: Octets of a line of version 1, section 2.1.
_LONGEST_LINE = 107
_V1 = b"PROXY "
_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_V2_START = struct.Struct("!12sBBH")


class BadHeader(Exception):
    """This is no header; the text says why and holds no octets of the client's."""


class Header(NamedTuple):
    """A whole header."""

    #: ``None`` where the proxy speaks for itself or does not know (LOCAL, UNKNOWN, UNSPEC).
    source: Address | None
    destination: Address | None
    #: What came behind it.
    rest: bytes


def parse_header(octets: bytes) -> Header | None:
    """Read the header with which a connection begins; ``None`` as long as it is not whole.

    :raises BadHeader: as soon as it can be none.
    """
    if octets[: len(_V2)] == _V2[: len(octets)]:
        return _version_2(octets)
    if octets[: len(_V1)] == _V1[: len(octets)]:
        return _version_1(octets)
    raise BadHeader("there is no PROXY header")


def _version_1(octets: bytes) -> Header | None:
    line, end, rest = octets[: _LONGEST_LINE + 1].partition(b"\r\n")
    if not end:
        if len(octets) >= _LONGEST_LINE:
            raise BadHeader("the line of the PROXY header is too long")
        return None
    rest += octets[_LONGEST_LINE + 1 :]
    _, family, *fields = line.split(b" ")
    if family == b"UNKNOWN":
        # "The receiver must ignore anything presented before the CRLF is found."
        return Header(None, None, rest)
    if family not in _TEXTS or len(fields) != 4:
        raise BadHeader("the line of the PROXY header is malformed")
    parse, kind = _TEXTS[family]
    if b"%" in line:
        # Python reads a scope-id of whatever octets behind an IPv6 address; the header has none.
        raise BadHeader("an address in the PROXY header is malformed")
    try:
        hosts = [str(parse(field.decode("ascii"))) for field in fields[:2]]
    except ValueError:
        raise BadHeader("an address in the PROXY header is malformed") from None
    ports = [_port(field) for field in fields[2:]]
    source, destination = (kind("TCP", host, port) for host, port in zip(hosts, ports, strict=True))
    return Header(source, destination, rest)


def _port(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 5 or int(digits) > 65535:
        raise BadHeader("a port in the PROXY header is malformed")
    return int(digits)


def _version_2(octets: bytes) -> Header | None:
    if len(octets) < _V2_START.size:
        return None
    _, command, family, length = _V2_START.unpack_from(octets)
    if command not in (0x20, 0x21):
        raise BadHeader("the version or command of the PROXY header is not known")
    if len(octets) < _V2_START.size + length:
        return None
    addresses = octets[_V2_START.size : _V2_START.size + length]
    rest = octets[_V2_START.size + length :]
    if command == 0x20 or family == 0x00:
        return Header(None, None, rest)
    if family == 0x31 and length >= 216:
        return Header(_path(addresses[:108]), _path(addresses[108:216]), rest)
    if family not in _BINARIES or length < _BINARIES[family][0].size:
        raise BadHeader("the addresses of the PROXY header are not known or too short")
    form, parse, kind = _BINARIES[family]
    source, destination, source_port, destination_port = form.unpack_from(addresses)
    return Header(
        kind("TCP", str(parse(source)), source_port),
        kind("TCP", str(parse(destination)), destination_port),
        rest,
    )


def _path(padded: bytes) -> UNIXAddress:
    return UNIXAddress(padded.rstrip(b"\0"))


_Parse: TypeAlias = type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]
_TEXTS: dict[bytes, tuple[_Parse, type[IPv4Address] | type[IPv6Address]]] = {
    b"TCP4": (ipaddress.IPv4Address, IPv4Address),
    b"TCP6": (ipaddress.IPv6Address, IPv6Address),
}
_BINARIES: dict[int, tuple[struct.Struct, _Parse, type[IPv4Address] | type[IPv6Address]]] = {
    0x11: (struct.Struct("!4s4sHH"), ipaddress.IPv4Address, IPv4Address),
    0x21: (struct.Struct("!16s16sHH"), ipaddress.IPv6Address, IPv6Address),
}
