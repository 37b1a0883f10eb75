"""``pop3toy deliver``: one message from standard input, for ``.forward``, procmail and cron.

The exit status tells the mail server what to do (sysexits.h): try again later
(75), bounce because there is no such user (67) or no room (73).
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import BinaryIO

import click

from ..auth.admin import list_users
from ..delivery.envelope import parse_address
from ..delivery.quota import parse_quota
from ..delivery.trace import begins_with_header, return_path
from ..errors import NoSuchMailbox, OverQuota, StoreTrouble
from ..interfaces import Incoming
from ..stores.maildir_delivery import MaildirDelivery
from ..threads import run_now
from .options import complete_user, maildir_option, maildir_paths, put, result_of

__all__ = ["deliver", "maildir_delivery"]

_CHUNK = 64 * 1024
#: An mbox separator, which local delivery agents put first (RFC 4155).
_FROM_LINE = re.compile(rb"From (\S*)")


def maildir_delivery(pattern: str, *, create: bool, accounts: Path | None = None) -> MaildirDelivery:
    """A delivery that does its work at once, with the quotas of an accounts file."""
    from twisted.internet import reactor

    users = list_users(accounts).by_name if accounts is not None else {}

    def quota(user: str) -> int | None:
        account = users.get(user)
        return parse_quota(account.settings.get("quota", "none")) if account is not None else None

    locate = maildir_paths(pattern, create=create).locate
    # It is only asked for the time; nothing runs.
    return MaildirDelivery(locate, run_now, reactor, quota=quota)


@click.command()
@maildir_option
@click.option(
    "-a",
    "--accounts",
    envvar="POP3TOY_ACCOUNTS",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    metavar="FILE",
    show_envvar=True,
    help="The accounts file, for quotas.",
)
@click.option("-c", "--create", is_flag=True, help="Make the user's Maildir if it is missing.")
@click.option(
    "-f",
    "--sender",
    envvar="SENDER",
    metavar="ADDRESS",
    show_envvar=True,
    help="The sender of the envelope, for the Return-Path header.",
)
@click.argument("user", shell_complete=complete_user)
def deliver(pattern: str, accounts: Path | None, create: bool, sender: str | None, user: str) -> int:
    """Deliver one message, read from standard input, to USER.

    It is safe on the disk when the command ends with exit status 0. Otherwise
    nothing of it is left, and the status is one of sysexits.h: 67 there is no
    such mailbox, 73 it is full, 75 try again later.

    \b
    In a .forward file:
      "|pop3toy deliver -m /srv/mail/{user} ann"
    """
    incoming: Incoming | None = None
    try:
        incoming = result_of(maildir_delivery(pattern, create=create, accounts=accounts).begin(user))
        _copy(sys.stdin.buffer, incoming, sender)
        result_of(incoming.commit())
    except NoSuchMailbox as error:
        return _failed(f"{user} has no mailbox here", error, os.EX_NOUSER)
    except OverQuota as error:
        return _failed(f"the mailbox of {user} is full", error, os.EX_CANTCREAT)
    except StoreTrouble as error:
        return _failed(error.text, error, os.EX_TEMPFAIL)
    except ValueError as error:
        click.echo(f"Error: {error}", err=True)
        return os.EX_DATAERR
    finally:
        if incoming is not None:
            # Harmless after the commit.
            incoming.abort()
    return os.EX_OK


def _copy(source: BinaryIO, incoming: Incoming, sender: str | None) -> None:
    line = source.readline(_CHUNK)
    separator = _FROM_LINE.match(line)
    if separator is not None:
        sender = sender or separator[1].decode("utf-8", "replace")
        line = source.readline(_CHUNK)
    if sender:
        # MAILER-DAEMON is how a separator writes the empty sender.
        address = None if sender in ("<>", "MAILER-DAEMON") else parse_address(sender.strip("<>"))
        put(incoming, return_path(address))
        if not begins_with_header(line.rstrip(b"\n")):
            put(incoming, b"\n")
    while line:
        put(incoming, line)
        line = source.read(_CHUNK)


def _failed(message: str, error: StoreTrouble, status: int) -> int:
    click.echo(f"Error: {message}{f' ({error.detail})' if error.detail else ''}", err=True)
    return status
