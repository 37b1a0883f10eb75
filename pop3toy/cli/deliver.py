"""``pop3toy deliver``: one message from standard input, for ``.forward``, procmail and cron.

The exit status tells the mail server what to do (sysexits.h): for 75 every mail server tries again,
for the others that are given here it returns the mail to its sender.  So what the administrator has to
mend is 75: accounts that cannot be read, a disk that is gone, a bug.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Collection
from functools import wraps
from typing import Any, BinaryIO

import click

from ..addresses import Address, parse_address
from ..auth.accounts.passwd_file import parse
from ..auth.names import NameIndex
from ..config.settings import Settings
from ..errors import NoSuchMailbox, OverQuota, StoreTrouble
from ..interfaces import Incoming
from ..mail.message_start import HEADER, take_off, with_headers, without_return_path
from ..net.watched_file import read
from ..smtp import limits
from ..smtp.trace import return_path
from .options import (
    Failed,
    accounts_of,
    complete_user,
    delivery,
    listed,
    names_for,
    printable,
    result_of,
    with_settings,
)

__all__ = ["deliver"]


def _tried_again(command: Callable[..., object]) -> Callable[..., object]:
    """Whatever it does not foresee is no reason to return mail."""

    @wraps(command)
    def run(*arguments: Any, **words: Any) -> object:
        try:
            return command(*arguments, **words)
        except (Failed, click.ClickException):
            raise
        except (KeyboardInterrupt, click.Abort):
            raise Failed("stopped", os.EX_TEMPFAIL) from None
        except Exception as error:
            raise Failed(f"{type(error).__name__}: {printable(str(error))}", os.EX_TEMPFAIL) from None

    return run


@click.command()
@_tried_again
@with_settings(
    store=True,
    accounts="for quotas, and for who gets mail",
    # What the administrator has to mend is no reason to return mail.
    status=os.EX_TEMPFAIL,
)
@click.option("-c", "--create", is_flag=True, help="Make the user's mailbox if it is missing.")
@click.option(
    "-f",
    "--sender",
    envvar="SENDER",
    metavar="ADDRESS",
    show_envvar=True,
    help="The sender of the envelope, for the Return-Path header.",
)
@click.argument("user", shell_complete=complete_user)
def deliver(settings: Settings, create: bool, sender: str | None, user: str) -> int:
    """Deliver one message, read from standard input, to USER.

    It is safe in the store when the command ends with exit status 0. Otherwise
    nothing of it is left, and the status is one of sysexits.h: 67 there is no
    such user, 69 the message is larger than the mailbox may ever be, 65
    there is no message, 75 try again later: the mailbox is full, or something
    is wrong here.

    \b
    In a .forward file:
      "|pop3toy deliver -m /srv/mail/{user} ann"
    """
    source = _Source()
    incoming: Incoming | None = None
    known: Collection[str] = ()
    try:
        accounts = accounts_of(settings)
        known = {*names_for(settings, user), *(name for name, _ in settings.users)}
        # The name may be spelled as a sender has written it.
        user = NameIndex(known).find(user) or user
        if listed(settings) and not settings.auth and user not in known:
            # As by SMTP and LMTP: without an account no mail, though a mailbox may be there still.
            if why := _in_doubt(settings, user):
                raise Failed(why, os.EX_TEMPFAIL)
            raise Failed(f"there is no account {user}", os.EX_NOUSER)
        # Of others than those that are listed only who has a mailbox is known.
        may_have = user in known if listed(settings) else create
        make = may_have and (create or settings.store.create)
        into = delivery(settings, create=make, accounts=accounts)
        result_of(into.check(user))
        incoming = result_of(into.begin([user]))
        _copy(source, incoming, sender)
        result_of(incoming.commit())
    except NoSuchMailbox as error:
        # A user with an account and no mailbox is the administrator's to mend.
        status = os.EX_TEMPFAIL if user in known else os.EX_NOUSER
        raise Failed(_told(f"{user} has no mailbox here", error), status) from None
    except OverQuota as error:
        if error.holds is not None and source.octets_in_all() > error.holds:
            what, status = f"the message is larger than the mailbox of {user}", os.EX_UNAVAILABLE
        else:
            what, status = f"the mailbox of {user} is full", os.EX_TEMPFAIL
        # Without the detail: a mail server returns this to the sender, whom paths do not concern.
        raise Failed(_told(what, error) if error.holds is None else what, status) from None
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


def _in_doubt(settings: Settings, user: str) -> str:
    """Why it is not certain that there is no such account, if it is not: then no mail goes back."""
    path = settings.accounts_file
    if path is None:
        return ""
    content = read(path, time.time)
    if content.being_written:
        return f"the accounts file {path} is being written"
    found = parse(content.octets)
    if not found.by_name and not settings.users:
        return f"there are no users in the accounts file {path}"
    unclear = found.unclear.find(user) is not None
    return f"the line of {user} in the accounts file {path} is not understood" if unclear else ""


class _Source:
    """Standard input, counted."""

    def __init__(self) -> None:
        if sys.stdin is None:
            raise Failed("standard input is closed", os.EX_TEMPFAIL)
        self._file: BinaryIO = sys.stdin.buffer
        self._octets = 0

    def chunk(self) -> bytes:
        """The next octets, as many as a header may have unless they end before."""
        data = self._file.read(HEADER)
        self._octets += len(data)
        return data

    def octets_in_all(self) -> int:
        """How many there are; reads them all."""
        while self.chunk():
            pass
        return self._octets


def _copy(source: _Source, incoming: Incoming, sender: str | None) -> None:
    # Local delivery agents put a mailbox file's separator first, which names the sender.
    first = source.chunk()
    told, start = take_off(first)
    if not start:
        raise Failed("there is no message on standard input", os.EX_DATAERR)
    header = b""
    if sender:
        header = _return_path(sender)
    elif told and without_return_path(start) == start:
        header = _return_path(told.decode("utf-8", "surrogateescape"))
    start = with_headers(header, start, cut=len(first) == HEADER) if header else start
    result_of(incoming.write(start))
    while chunk := source.chunk():
        result_of(incoming.write(chunk))


def _return_path(sender: str) -> bytes:
    # A separator has MAILER-DAEMON for the empty sender, and - for one that is not known.
    if sender.upper() in ("<>", "MAILER-DAEMON"):
        return return_path(None)
    if sender == "-":
        return b""
    address = _address(sender.removeprefix("<").removesuffix(">"))
    # Mail is not refused because its sender has a strange form.
    return return_path(address) if address is not None else b""


def _address(text: str) -> Address | None:
    """The address; its local part in quotes if it needs them and lost them on its way, and has a domain."""
    local, at, domain = text.rpartition("@")
    quoted = '"' + re.sub(r'(["\\])', r"\\\1", local) + f'"@{domain}'
    for written in (text, quoted) if at else (text,):
        try:
            if len(written.encode()) <= limits.PATH:
                return parse_address(written)
        except ValueError:
            continue
    return None


def _told(message: str, error: StoreTrouble) -> str:
    return f"{message}{f' ({error.detail})' if error.detail else ''}"
