"""``pop3toy deliver``: one message from standard input, for ``.forward``, procmail and cron.

The exit status tells the mail server what to do (sysexits.h).  It returns the mail to
its sender for every status but 75, so whatever is the administrator's to mend is 75:
accounts that cannot be read, a disk that is gone, a bug.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any, BinaryIO

import click

from ..auth.admin import list_users
from ..delivery import limits
from ..delivery.envelope import Address, parse_address
from ..delivery.quota import quota_of
from ..delivery.trace import begins_with_header, return_path
from ..errors import NoSuchMailbox, OverQuota, StoreTrouble
from ..interfaces import Incoming
from ..stores.maildir_delivery import MaildirDelivery
from ..stores.maildir_paths import MaildirPaths
from ..threads import run_now
from .mbox import sender_of
from .options import Failed, complete_user, maildir_option, put, result_of

__all__ = ["deliver", "maildir_delivery"]

_CHUNK = 64 * 1024


def maildir_delivery(paths: MaildirPaths, accounts: Any = None) -> MaildirDelivery:
    """A delivery that does its work at once.

    :param accounts: users with their settings by name, for quotas.
    """
    from twisted.internet import reactor

    # It is only asked for the time; nothing runs.
    return MaildirDelivery(paths, run_now, reactor, quota=quota_of((accounts or {}).get))


@click.command()
@maildir_option
@click.option(
    "-a",
    "--accounts",
    envvar="POP3TOY_ACCOUNTS",
    type=click.Path(path_type=Path),
    metavar="FILE",
    show_envvar=True,
    help="The accounts file, for quotas, and for who may have a Maildir made.",
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
    such mailbox, 73 the message is larger than the mailbox may ever be, 65
    there is no message, 75 try again later: the mailbox is full, or something
    is wrong here.

    \b
    In a .forward file:
      "|pop3toy deliver -m /srv/mail/{user} ann"
    """
    source = _Source()
    incoming: Incoming | None = None
    known: Any = {}
    try:
        known = list_users(accounts).by_name if accounts is not None else {}
        # With a list of those there are nobody else gets one, however the name was misspelled.
        create = create and (accounts is None or user in known)
        delivery = maildir_delivery(MaildirPaths(pattern, create=create), known)
        incoming = result_of(delivery.begin(user))
        _copy(source, incoming, sender)
        result_of(incoming.commit())
    except NoSuchMailbox as error:
        # Somebody who has an account has a mailbox as well, unless something is wrong.
        status = os.EX_TEMPFAIL if user in known else os.EX_NOUSER
        raise Failed(_told(f"{user} has no mailbox here", error), status) from None
    except OverQuota as error:
        if error.holds is not None and source.octets_in_all() > error.holds:
            what, status = f"the message is larger than the mailbox of {user}", os.EX_CANTCREAT
        else:
            what, status = f"the mailbox of {user} is full", os.EX_TEMPFAIL
        raise Failed(_told(what, error), status) from None
    except StoreTrouble as error:
        raise Failed(_told(error.text, error), os.EX_TEMPFAIL) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise Failed(f"{where}{error.strerror or error}", os.EX_TEMPFAIL) from None
    finally:
        if incoming is not None:
            # Harmless after the commit.
            incoming.abort()
    return os.EX_OK


class _Source:
    """Standard input, counted."""

    def __init__(self) -> None:
        if sys.stdin is None:
            raise Failed("standard input is closed", os.EX_TEMPFAIL)
        self._file: BinaryIO = sys.stdin.buffer
        self._octets = 0

    def line(self) -> bytes:
        """The next line, or a large piece of it."""
        return self._counted(self._file.readline(_CHUNK))

    def chunk(self) -> bytes:
        """The next octets."""
        return self._counted(self._file.read(_CHUNK))

    def octets_in_all(self) -> int:
        """How many there are; reads them all."""
        while self.chunk():
            pass
        return self._octets

    def _counted(self, data: bytes) -> bytes:
        self._octets += len(data)
        return data


def _copy(source: _Source, incoming: Incoming, sender: str | None) -> None:
    line = source.line()
    # An mbox separator, which local delivery agents put first (RFC 4155).
    told = sender_of(line)
    if told is not None:
        sender = sender or told.decode("utf-8", "replace")
        line = source.line()
    if not line:
        raise Failed("there is no message on standard input", os.EX_DATAERR)
    header = _return_path(sender) if sender else b""
    if header:
        put(incoming, header)
        if not begins_with_header(line.rstrip(b"\n")):
            put(incoming, b"\n")
    while line:
        put(incoming, line)
        line = source.chunk()


def _return_path(sender: str) -> bytes:
    # MAILER-DAEMON is how a separator writes the empty sender.
    if sender in ("<>", "MAILER-DAEMON"):
        return return_path(None)
    address = _address(sender.removeprefix("<").removesuffix(">"))
    # Somebody's mail is not refused for a sender of a strange form.
    return return_path(address) if address is not None else b""


def _address(text: str) -> Address | None:
    """The address; with its local part in quotes if it needs them and has lost them on its way."""
    local, at, domain = text.rpartition("@")
    local, domain = (local, domain) if at else (domain, "")
    for written in (text, '"' + re.sub(r'(["\\])', r"\\\1", local) + f'"{at}{domain}'):
        try:
            if len(written.encode()) <= limits.PATH:
                return parse_address(written)
        except ValueError:
            continue
    return None


def _told(message: str, error: StoreTrouble) -> str:
    return f"{message}{f' ({error.detail})' if error.detail else ''}"
