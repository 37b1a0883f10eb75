"""``pop3toy mailbox``: what is in a mailbox, and whether it is sound.

Of these ``remove`` alone takes the mailbox's lock, and ``unlock`` makes one that is lost: a mail program may
be fetching while the others run.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from email.header import decode_header, make_header
from email.parser import BytesHeaderParser
from typing import cast

import click

from ..auth.accounts.passwd_file import Account
from ..config.settings import Settings
from ..errors import InUse, MessageGone, NoSuchMailbox, Refusal, StoreTrouble
from ..interfaces import IMailboxUnlocking, IStoreAdmin, StoredMessage
from ..routing.quota import parse_quota
from .options import (
    Failed,
    accounts_of,
    administration,
    complete_user,
    failure_of,
    no_mailbox,
    printable,
    user_meant,
    with_settings,
    worst,
)

__all__ = ["header_of", "mailbox", "messages_of", "reason", "users_of"]

_user_argument = click.argument("user", shell_complete=complete_user)


@click.group()
def mailbox() -> None:
    """Mailboxes: list, show, import, export, check, expire, undo, unlock,
    remove."""


def messages_of(admin: IStoreAdmin, user: str) -> Sequence[StoredMessage]:
    """The messages of a user, in the order in which POP3 would list them now.

    :raises Failed: if the user has no mailbox.
    """
    try:
        return admin.list(user)
    except NoSuchMailbox as error:
        raise no_mailbox(user, error) from None


@mailbox.command(name="list")
@with_settings(store=True, accounts="for quotas: how full mailboxes are")
@click.argument("user", required=False, shell_complete=complete_user)
def list_(settings: Settings, user: str | None) -> int:
    """List the messages of USER, or all mailboxes.

    Each message with the number that POP3 gives it now, its octets as POP3 sends
    it, and its unique-id. Each mailbox with the number of messages and its octets
    as quotas count them, which are those of the files in a Maildir (user list shows
    the same); with --accounts also how full it is if its user has a quota.
    """
    admin = administration(settings)
    known = accounts_of(settings)
    status = os.EX_OK
    user = user and user_meant(settings, admin, user)
    names = users_of(admin, settings) if user is None else [user]
    if not names:
        of = f"; {len(known)} user{'s'[: len(known) != 1]} without one" if known else ""
        click.echo(f"There is no mailbox yet{of}", err=True)
    for name in names:
        try:
            messages, octets = messages_of(admin, name), admin.usage(name)
            full = _how_full(octets, known.get(name))
        except Exception as error:
            if user is not None:
                raise
            line, failed = failure_of(name, error, os.EX_DATAERR)
            click.echo(printable(line), err=True)
            status = worst((status, failed))
            continue
        if user is None:
            click.echo(f"{printable(name):20} {_messages(messages, 7):16} {octets:13,} octets{full}")
            continue
        for number, message in enumerate(messages, 1):
            header = header_of(admin, name, message)
            click.echo(f"{number:5} {message.octets:10} {message.uid.decode('ascii')}")
            click.echo(f"{'':16} {header.get('From', '')}: {header.get('Subject', '')}")
        if full:
            click.echo(f"{_messages(messages)}{full}")
    return status


def _how_full(used: int, account: Account | None) -> str:
    """How much of the quota is used.

    :param used: as a delivery counts it.
    """
    quota = account.settings.get("quota") if account is not None else None
    try:
        most = parse_quota(quota) if quota is not None else None
    except ValueError as error:
        return f", {error}"
    if most is None:
        return ""
    return f", {100 * used // most if most else 100}% of {quota} used"


@mailbox.command()
@with_settings(store=True)
@click.option("-H", "--headers", is_flag=True, help="The header only.")
@_user_argument
@click.argument("message")
def show(settings: Settings, headers: bool, user: str, message: str) -> None:
    """Show a message, given by its number or its unique-id.

    What could steer a terminal is shown escaped, unless the output goes to a
    file or another program.
    """
    admin = administration(settings)
    user = user_meant(settings, admin, user)
    with admin.read(user, _find(messages_of(admin, user), message)) as file:
        data = file.read()
    if headers:
        data = re.split(rb"\n\r*+\n", data, maxsplit=1)[0] + b"\n"
    if sys.stdout.isatty():
        text = data.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
        click.echo("".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text), nl=False)
    else:
        sys.stdout.buffer.write(data)


@mailbox.command()
@with_settings(store=True)
@click.option("-q", "--quick", is_flag=True, help="Look at names only, do not read the messages.")
@click.argument("users", nargs=-1, shell_complete=complete_user)
def check(settings: Settings, quick: bool, users: tuple[str, ...]) -> int:
    """Look for what is wrong in the mailboxes of USERS, or in all.

    Wrong sizes in file names, messages that are there twice, files that cannot
    be read, folders that are missing. Nothing is changed. Exit status 65 if
    something was found.
    """
    admin = administration(settings)
    found = 0
    for name in [user_meant(settings, admin, user) for user in users] or users_of(admin, settings):
        try:
            for problem in admin.problems(name, read=not quick):
                click.echo(printable(f"{name}: {problem}"))
                found += 1
        except NoSuchMailbox as error:
            if users:
                raise no_mailbox(name, error) from None
            click.echo(printable(f"{name}: {reason(error)}"))
            found += 1
        except Exception as error:
            click.echo(printable(failure_of(name, error, 0)[0]))
            found += 1
    click.echo(f"{found} problem{'s'[: found != 1]}" if found else "Nothing wrong", err=True)
    return os.EX_DATAERR if found else os.EX_OK


@mailbox.command()
@with_settings(store=True)
@_user_argument
def unlock(settings: Settings, user: str) -> None:
    """Let USER in again whose mailbox has lost its lock.

    In an object store the lock is an object. Where that was removed, or
    something else is in its place, nobody can open the mailbox, and pop3toy
    mailbox check says so. Look first whether mail is missing as well: then
    bring all of it back. A lock that can be read is left alone: that of a
    server that has died is over after 75 seconds.
    """
    admin = administration(settings)
    user = user_meant(settings, admin, user)
    if not IMailboxUnlocking.providedBy(admin):
        raise Failed("the locks of this store cannot get lost", os.EX_UNAVAILABLE)
    try:
        mended = cast(IMailboxUnlocking, admin).unlock(user)
    except NoSuchMailbox as error:
        raise no_mailbox(user, error) from None
    click.echo(f"The mailbox of {printable(user)} {'has a new lock' if mended else 'has a lock; it stays'}.")


@mailbox.command()
@with_settings(store=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_user_argument
def remove(settings: Settings, yes: bool, user: str) -> None:
    """Remove the mailbox of USER with all mail in it.

    It is refused with exit status 75 while a session has the mailbox open. The
    account stays: see pop3toy user del.
    """
    if not settings.store.for_each_user:
        raise click.UsageError("all users share one mailbox, and it is not removed here")
    admin = administration(settings)
    user = user_meant(settings, admin, user)
    if not yes:
        click.confirm(f"Remove the mailbox of {printable(user)}, {_what_is_in(admin, user)}?", abort=True)
    try:
        admin.remove(user)
    except NoSuchMailbox as error:
        raise no_mailbox(user, error) from None
    except InUse as error:
        raise Failed(f"[{error.code}] {user}: {error.text}; nothing was removed", os.EX_TEMPFAIL) from None
    click.echo(f"The mailbox of {user} is gone, with its mail.")


def _what_is_in(admin: IStoreAdmin, user: str) -> str:
    try:
        messages, octets = messages_of(admin, user), admin.usage(user)
    except StoreTrouble as error:
        return f"which cannot be read ({printable(reason(error))})"
    return f"with {_messages(messages)} ({octets:,} octets)"


def _messages(messages: Sequence[StoredMessage], width: int = 0) -> str:
    """How many there are, the number in so many columns at the least."""
    return f"{len(messages):{width}} message{'s'[: len(messages) != 1]}"


def _find(messages: Sequence[StoredMessage], wanted: str) -> StoredMessage:
    for number, message in enumerate(messages, 1):
        if wanted in (message.uid.decode("ascii"), str(number)):
            return message
    raise click.BadParameter(f"there is no message {wanted}; mailbox list shows them", param_hint="MESSAGE")


def reason(error: Refusal) -> str:
    """What an administrator is told of a refusal."""
    return error.detail or error.text


def header_of(admin: IStoreAdmin, user: str, message: StoredMessage) -> dict[str, str]:
    """Some headers as text, safe for a terminal."""
    try:
        with admin.read(user, message) as file:
            parsed = BytesHeaderParser().parsebytes(re.split(rb"\n\r*+\n", file.read(65536), maxsplit=1)[0])
    except (OSError, MessageGone, StoreTrouble):
        return {}
    return {name: _text(str(parsed[name])) for name in ("From", "Subject") if name in parsed}


def _text(value: str) -> str:
    try:
        value = str(make_header(decode_header(value)))
    except (ValueError, LookupError):
        pass
    value = " ".join(value.split())
    return "".join(c if c.isprintable() else "?" for c in value)[:100]


def users_of(admin: IStoreAdmin, settings: Settings) -> Sequence[str]:
    """All users with a mailbox."""
    if not settings.store.for_each_user:
        raise click.UsageError("all users share one mailbox: name one")
    return admin.users()
