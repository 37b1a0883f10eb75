"""What commands have in common that speak to a server: its address, a password, whom to trust."""

from __future__ import annotations

import os
import ssl
import warnings
from getpass import GetPassWarning
from pathlib import Path

import click

__all__ = ["address", "password_of", "trusting"]


def address(text: str, hint: str, port: int, *, any_port: bool = False) -> tuple[str, int]:
    """``host``, ``host:port``, ``[::1]:port`` or ``::1``.

    :param port: if none is said.
    :param any_port: whether 0 is a port.
    """
    host, colon, number = text.rpartition(":")
    if not colon or text.endswith("]") or (":" in host and not host.endswith("]")):
        host = text
    elif number.isascii() and number.isdigit() and (0 if any_port else 1) <= int(number) < 65536:
        port = int(number)
    else:
        raise click.BadParameter(f"{number} is no port", param_hint=hint)
    host = host.removeprefix("[").removesuffix("]")
    if not host:
        raise click.BadParameter("the host is missing", param_hint=hint)
    return host, port


def trusting(ca_file: Path | None, *, insecure: bool) -> ssl.SSLContext:
    """What makes TLS with a server.

    :param ca_file: whose certificates are trusted, in place of the system's.
    :param insecure: whether any certificate is.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise click.BadParameter(f"{ca_file} holds no certificate", param_hint="--ca-file") from None
    if insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def password_of(path: Path | None) -> str:
    """The password: a file's first line, POP3TOY_PASSWORD, or what somebody types."""
    if path is not None:
        with path.open("rb") as file:
            octets = file.readline().removesuffix(b"\n").removesuffix(b"\r")
        try:
            return octets.decode("utf-8")
        except UnicodeDecodeError:
            raise click.BadParameter("the password is not UTF-8", param_hint="--password-file") from None
    # An empty one is none: so does CI set what it has no value for.
    if found := os.environ.get("POP3TOY_PASSWORD"):
        return found
    with warnings.catch_warnings():
        # Python would ask all the same, and show what is typed.
        warnings.simplefilter("error", GetPassWarning)
        try:
            return str(click.prompt("Password", hide_input=True, err=True))
        except GetPassWarning:
            raise click.UsageError(
                "There is no terminal to ask for the password; --password-file or POP3TOY_PASSWORD say it."
            ) from None
