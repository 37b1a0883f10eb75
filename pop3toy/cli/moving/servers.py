"""What commands share that log in at POP3 servers: addresses, trust, users and passwords."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeAlias

import click

from ...moving.client import Client
from ...moving.fetching import Account
from ...moving.login import session
from ...moving.server import NotTrusted, Server, Trouble, parse_url
from ...stores.copying.counts import Stopped
from ..options import Failed, FloatRange, printable
from ..remote import password_of, trusting

__all__ = ["account_at", "login", "password_for", "passwords", "reached", "server_at", "with_servers"]

_Command: TypeAlias = Callable[..., object]


def with_servers(command: _Command) -> _Command:
    """The options that say whom to trust, and who logs in."""
    file = click.Path(path_type=Path, dir_okay=False)
    for option in reversed(
        [
            click.option(
                "--password-file",
                type=file,
                metavar="FILE",
                help="Whose first line is the password; else POP3TOY_PASSWORD is it, or it is asked for.",
            ),
            click.option(
                "--users-file",
                type=file,
                metavar="FILE",
                help="Users with their passwords there, a line each: user:password.",
            ),
            click.option("--cafile", type=file, metavar="FILE", help="Trust the certificates in FILE."),
            click.option(
                "--insecure",
                is_flag=True,
                help="Trust any certificate. Passwords and mail can be read by anybody between.",
            ),
            click.option(
                "--allow-cleartext",
                is_flag=True,
                help="Go on without TLS if a server offers none; anybody between can read all.",
            ),
            click.option(
                "--timeout",
                type=FloatRange(0.1),
                default=60.0,
                show_default=True,
                help="Seconds for an answer.",
            ),
        ]
    ):
        command = option(command)
    return command


def server_at(
    url: str, hint: str, *, cafile: Path | None, insecure: bool, allow_cleartext: bool, timeout: float
) -> Server:
    """The server that an address says.

    :param hint: what it is called in sentences.
    """
    try:
        host, port, implicit, user = parse_url(url)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=hint) from None
    try:
        context = trusting(cafile, insecure=insecure)
    except click.BadParameter as error:
        error.param_hint = "--cafile"
        raise
    return Server(host, port, implicit, context, allow_cleartext, timeout, user)


def passwords(users_file: Path | None) -> Mapping[str, str]:
    """Passwords by user, in the order of the file.

    :raises Failed: if it is none; no password is shown.
    """
    if users_file is None:
        return {}
    with users_file.open("rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            click.echo(f"{users_file}: others can read it, and the passwords in it; chmod 600", err=True)
        found: dict[str, str] = {}
        for number, line in enumerate(file, 1):
            try:
                user, colon, password = line.rstrip(b"\r\n").decode("utf-8-sig").partition(":")
            except UnicodeDecodeError:
                raise Failed(f"{users_file}, line {number}: this is not UTF-8", os.EX_CONFIG) from None
            if not line.strip():
                continue
            if not (user and colon and password):
                raise Failed(f"{users_file}, line {number}: this is not user:password", os.EX_CONFIG)
            if user in found:
                raise Failed(f"{users_file}, line {number}: {printable(user)} is there twice", os.EX_CONFIG)
            found[user] = password
    if not found:
        raise Failed(f"{users_file}: there is nobody in it", os.EX_CONFIG)
    return found


def login(server: Server, user: str, password: str) -> Callable[[], Client]:
    """What makes connections on which a user has logged in."""
    return partial(session, server, user, password, time.monotonic)


def account_at(
    server: Server,
    user: str,
    password: str,
    tell: Callable[[str], object],
    stopped: Callable[[], bool] = lambda: False,
) -> Account:
    """Logins of one user, of which each is waited for as the server asks.

    :param tell: told in a sentence what is waited for.
    :param stopped: asked each second of a wait whether to stop.
    """
    return Account(
        login(server, user, password),
        clock=time.monotonic,
        wait=partial(_wait, threading.Event(), stopped),
        tell=tell,
    )


def _wait(never: threading.Event, stopped: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if stopped():
            raise Stopped
        never.wait(min(left, 1.0))


def reached(server: Server) -> None:
    """See to it that the server can be reached and is trusted, before anybody is asked for anything.

    :raises Failed: with the one line that says what is wrong.
    """
    try:
        Client(server, time.monotonic).quit()
    except NotTrusted as error:
        raise Failed(printable(error.detail), os.EX_NOPERM) from None
    except Trouble as error:
        raise Failed(printable(error.detail), os.EX_UNAVAILABLE) from None


def password_for(user: str, server: Server, password_file: Path | None, given: Mapping[str, str]) -> str:
    """One user's password: of the users' file, if there is one.

    :raises Failed: if the user is not in it.
    """
    if not given:
        return password_of(password_file)
    if user not in given:
        raise Failed(f"{printable(user)} is not in the file of users", os.EX_NOUSER)
    return given[user]
