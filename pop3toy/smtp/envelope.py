"""The envelope: MAIL FROM and RCPT TO, from octets to values (RFC 5321 section 4.1.2).

Pure syntax.  ``routing.recipients`` says whether an address is ours, and whose it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from ..addresses import MAILBOX, Address, is_domain, unquoted
from . import limits

__all__ = ["BadEnvelope", "Recipient", "Sender", "mail_from", "path_alone", "rcpt_to"]


class BadEnvelope(ValueError):
    """MAIL or RCPT does not parse, or asks for what this server cannot do; knows its SMTP reply.

    :param address: the address, if that much was clear.
    """

    def __init__(self, code: int, enhanced: str, text: str, address: Address | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.enhanced = enhanced
        self.text = text
        self.address = address


class Sender(NamedTuple):
    """What MAIL FROM said."""

    #: ``None`` is the empty path ``<>``, from which bounces come.
    address: Address | None
    #: Octets that the client announced, or ``None`` (RFC 1870 section 5).
    size: int | None = None
    #: The client will use UTF-8 in addresses and headers (RFC 6531 section 3.4).
    utf8: bool = False
    #: RFC 3461 sections 4.3 and 4.4: ``FULL`` or ``HDRS``, and ENVID as it came; empty if not given.
    ret: str = ""
    envid: str = ""


class Recipient(NamedTuple):
    """What RCPT TO said."""

    address: Address
    #: RFC 3461 sections 4.1, 4.2: the words of NOTIFY in capitals, and ORCPT as it came; empty if not given.
    notify: tuple[str, ...] = ()
    original: str = ""


# RFC 3461 section 4: printable ASCII but for + and =, which are written in hexadecimal.
_XTEXT = r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})"
_ENVID = re.compile(rf"{_XTEXT}{{1,100}}")
# Section 4.2, with the 500 octets of section 5.4; RFC 6533 has more for utf-8, which is taken as it comes.
_ORCPT = re.compile(rf"[A-Za-z0-9-]{{1,40}};{_XTEXT}{{1,450}}")
_NOTIFY = ("SUCCESS", "FAILURE", "DELAY")

# A source route is accepted and ignored: RFC 5321 appendix C.  The angle brackets may be missing, and a space
# may stand behind the colon: people on telnet write so, and it cannot mean anything else.
_ARGUMENT = re.compile(
    rf"\s*(?:<>|(?P<bracket><)?(?:@[^:>\s]*:)?{MAILBOX}(?(bracket)>))(?:\s+(?P<parameters>.*))?", re.DOTALL
)
# RFC 1870, 6152, 6531: the parameters that cannot hold a secret.
_PUBLIC_PARAMETER = re.compile(r"SIZE=[0-9]{1,20}|BODY=(?:7BIT|8BITMIME)|SMTPUTF8", re.IGNORECASE)


def mail_from(argument: bytes, *, utf8: bool, largest: int, dsn: bool = False) -> Sender:
    """Read what follows MAIL.

    :param utf8: whether SMTPUTF8 is offered.
    :param dsn: whether DSN is (RFC 3461).
    :param largest: octets of the largest message taken.
    :raises BadEnvelope: with the reply.
    """
    address, parameters = _parsed(argument, b"FROM:", "5.1.7")
    size, smtputf8, ret, envid = None, False, "", ""
    for name, value in parameters.items():
        if name == "SIZE" and value.isascii() and value.isdigit() and len(value) <= 20:
            size = int(value)
            if size > largest:
                raise BadEnvelope(552, "5.3.4", f"message is larger than {largest} octets", address)
        elif name == "BODY" and value.upper() in ("7BIT", "8BITMIME"):
            # RFC 6152: octets are kept as they are in any case.
            continue
        elif name == "SMTPUTF8" and not value and utf8:
            smtputf8 = True
        elif name == "AUTH" and value:
            # RFC 4954 section 5: no client is trusted to say it, and it is passed on nowhere.
            continue
        elif name == "RET" and dsn:
            ret = value.upper()
            if ret not in ("FULL", "HDRS"):
                raise BadEnvelope(501, "5.5.4", "RET is FULL or HDRS", address)
        elif name == "ENVID" and dsn:
            envid = value
            if not _ENVID.fullmatch(envid):
                raise BadEnvelope(501, "5.5.4", "ENVID has 1 to 100 characters of xtext", address)
        else:
            raise BadEnvelope(555, "5.5.4", "MAIL parameter not recognized", address)
    if address is not None and not (smtputf8 or address.written.isascii()):
        raise _needs_smtputf8(address)
    return Sender(address, size, smtputf8, ret, envid)


def rcpt_to(argument: bytes, *, utf8: bool, dsn: bool = False) -> Recipient:
    """Read what follows RCPT.

    :param utf8: whether MAIL said SMTPUTF8.
    :param dsn: whether DSN is offered (RFC 3461).
    :raises BadEnvelope: with the reply.
    """
    address, parameters = _parsed(argument, b"TO:", "5.1.3")
    if address is None:
        raise BadEnvelope(501, "5.1.3", "RCPT needs an address")
    notify: tuple[str, ...] = ()
    original = ""
    for name, value in parameters.items():
        if name == "NOTIFY" and dsn:
            notify = tuple(value.upper().split(","))
            if notify != ("NEVER",) and not (set(notify) <= set(_NOTIFY) and len(set(notify)) == len(notify)):
                why = "NOTIFY is NEVER, or some of SUCCESS, FAILURE and DELAY"
                raise BadEnvelope(501, "5.5.4", why, address)
        elif name == "ORCPT" and dsn:
            original = value
            if not _ORCPT.fullmatch(original):
                raise BadEnvelope(501, "5.5.4", "ORCPT is a type and an address in xtext", address)
        else:
            raise BadEnvelope(555, "5.5.4", "RCPT parameter not recognized", address)
    if not (utf8 or address.written.isascii()):
        raise _needs_smtputf8(address)
    return Recipient(address, notify, original)


def path_alone(argument: bytes) -> bytes:
    """What follows MAIL or RCPT, masked but for the path and for parameters that cannot hold a secret."""
    keyword, colon, rest = argument.partition(b":")
    match = _ARGUMENT.fullmatch(rest.decode("utf-8", "replace"))
    if keyword.upper() not in (b"FROM", b"TO") or not colon or match is None:
        return b"****"
    words = (match["parameters"] or "").split()
    masked = [word if _PUBLIC_PARAMETER.fullmatch(word) else "****" for word in words]
    path = match.string[: match.start("parameters")] if words else match.string
    return b"%b:%b" % (keyword, " ".join([path.rstrip(), *masked]).encode())


def _parsed(argument: bytes, keyword: bytes, enhanced: str) -> tuple[Address | None, Mapping[str, str]]:
    if argument[: len(keyword)].upper() != keyword:
        raise BadEnvelope(501, "5.5.4", f"{keyword.decode()}<address> expected")
    try:
        match = _ARGUMENT.fullmatch(argument[len(keyword) :].decode("utf-8"))
    except UnicodeDecodeError:
        match = None
    if match is None or not is_domain(match["domain"] or ""):
        raise BadEnvelope(501, enhanced, "that is not a mail address")
    parameters = {}
    for word in (match["parameters"] or "").split():
        name, _, value = word.partition("=")
        if name.upper() in parameters:
            # RFC 5321 section 4.1.1.11.
            raise BadEnvelope(501, "5.5.4", "a parameter stands there twice")
        parameters[name.upper()] = value
    local, domain = match["local"], match["domain"] or ""
    if local is None:
        return None, parameters
    written = f"{local}@{domain}" if domain else local
    if len(written.encode()) > limits.PATH:
        raise BadEnvelope(501, enhanced, f"an address has at most {limits.PATH} octets")
    return Address(unquoted(local), domain, written), parameters


def _needs_smtputf8(address: Address) -> BadEnvelope:
    return BadEnvelope(553, "5.6.7", "an address in UTF-8 needs SMTPUTF8", address)
