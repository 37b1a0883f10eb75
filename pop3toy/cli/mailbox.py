"""``pop3toy mailbox``: what is in a mailbox, and whether it is sound.

Reads Maildirs without locking them: a mail program may be fetching meanwhile, and
nothing here removes or renames anything.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from email.header import decode_header, make_header
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import BinaryIO, NamedTuple

import click

from ..auth.accounts.admin import list_users
from ..auth.accounts.passwd_file import Account
from ..errors import NoSuchMailbox, Refusal, StoreTrouble
from ..routing.quota import parse_quota
from ..stores.maildir.body import OPEN_FLAGS
from ..stores.maildir.check import check_maildir
from ..stores.maildir.folders import open_or_refuse
from ..stores.maildir.incoming.usage import octets_used
from ..stores.maildir.paths import MaildirPaths
from ..stores.maildir.scan import scan
from .options import (
    Failed,
    accounts_file_option,
    complete_user,
    maildir_option,
    maildir_paths,
    no_mailbox,
    printable,
)

__all__ = ["StoredMessage", "mailbox", "stored_messages"]

_user_argument = click.argument("user", shell_complete=complete_user)


@click.group()
def mailbox() -> None:
    """Mailboxes: list, show, import, export, check."""


class StoredMessage(NamedTuple):
    """A message as POP3 would list it now."""

    number: int
    uid: str
    octets: int
    #: Where it is, such as ``new/NAME``.
    path: str
    paths: MaildirPaths
    user: str

    def open(self) -> BinaryIO:
        """The message's file.

        :raises OSError: if it is not there any more, or cannot be read.
        :raises pop3toy.errors.StoreTrouble: if the Maildir cannot be.
        """
        folder, _, name = self.path.partition("/")
        with self.paths.opened(self.user) as maildir:
            parent = open_or_refuse(maildir, folder)
            try:
                return open(os.open(name, OPEN_FLAGS, dir_fd=parent), "rb")
            finally:
                os.close(parent)


def stored_messages(paths: MaildirPaths, user: str) -> Sequence[StoredMessage]:
    """The messages of a user, in the order in which POP3 would list them now."""
    try:
        with paths.opened(user) as maildir:
            snapshot = scan(maildir, lambda messages: {}, now=time.time(), tick=1.0, may_read=True)
    except NoSuchMailbox as error:
        raise no_mailbox(user, error) from None
    return [
        StoredMessage(number, entry.uid.decode("ascii"), entry.octets, path, paths, user)
        for number, (entry, path) in enumerate(zip(snapshot.listing, snapshot.paths, strict=True), 1)
    ]


@mailbox.command(name="list")
@maildir_option
@accounts_file_option("for quotas: how full mailboxes are")
@click.argument("user", required=False, shell_complete=complete_user)
def list_(pattern: str, accounts: Path | None, user: str | None) -> int:
    """List the messages of USER, or all mailboxes.

    Each message with the number that POP3 gives it now, its unique-id and its
    size in octets; each mailbox with its sums and, with --accounts, how full
    it is if its user has a quota.
    """
    paths = maildir_paths(pattern)
    known = list_users(accounts).by_name if accounts is not None else {}
    status = os.EX_OK
    for name in _users(pattern) if user is None else [user]:
        try:
            messages = stored_messages(paths, name)
            full = _how_full(paths, name, known.get(name))
        except (Refusal, Failed) as error:
            if user is not None:
                raise
            why = str(error) if isinstance(error, Failed) else f"{name}: {_why(error)}"
            click.echo(printable(why), err=True)
            status = os.EX_DATAERR
            continue
        if user is None:
            octets = sum(message.octets for message in messages)
            click.echo(f"{printable(name):20} {len(messages):7} messages {octets:13,} octets{full}")
            continue
        for message in messages:
            header = _header(message)
            click.echo(f"{message.number:5} {message.octets:10} {message.uid}")
            click.echo(f"{'':16} {header.get('From', '')}: {header.get('Subject', '')}")
        if full:
            click.echo(f"{len(messages)} messages{full}")
    return status


def _how_full(paths: MaildirPaths, user: str, account: Account | None) -> str:
    """How much of the quota is used, as a delivery counts it: octets on the disk."""
    quota = account.settings.get("quota") if account is not None else None
    try:
        most = parse_quota(quota) if quota is not None else None
    except ValueError as error:
        return f", {error}"
    if most is None:
        return ""
    with paths.opened(user) as maildir:
        used = octets_used(maildir)
    return f", {100 * used // most if most else 100}% of {quota} used"


@mailbox.command()
@maildir_option
@click.option("-H", "--headers", is_flag=True, help="The header only.")
@_user_argument
@click.argument("message")
def show(pattern: str, headers: bool, user: str, message: str) -> None:
    """Show a message, given by its number or its unique-id.

    What could steer a terminal is shown escaped, unless the output goes to a
    file or another program.
    """
    with _find(stored_messages(maildir_paths(pattern), user), message).open() as file:
        data = file.read()
    if headers:
        data = re.split(rb"\n\r*+\n", data, maxsplit=1)[0] + b"\n"
    if sys.stdout.isatty():
        text = data.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
        click.echo("".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text), nl=False)
    else:
        sys.stdout.buffer.write(data)


@mailbox.command()
@maildir_option
@click.option("-q", "--quick", is_flag=True, help="Look at names only, do not read the messages.")
@click.argument("users", nargs=-1, shell_complete=complete_user)
def check(pattern: str, quick: bool, users: tuple[str, ...]) -> int:
    """Look for what is wrong in the mailboxes of USERS, or in all.

    Wrong sizes in file names, messages that are there twice, files that cannot
    be read, folders that are missing. Nothing is changed. Exit status 65 if
    something was found.
    """
    paths = maildir_paths(pattern)
    found = 0
    for name in users or _users(pattern):
        try:
            for problem in _problems(paths, name, read=not quick):
                click.echo(printable(f"{name}: {problem}"))
                found += 1
        except NoSuchMailbox as error:
            if users:
                raise no_mailbox(name, error) from None
            click.echo(printable(f"{name}: {_why(error)}"))
            found += 1
        except Refusal as error:
            click.echo(printable(f"{name}: {_why(error)}"))
            found += 1
    click.echo(f"{found} problem{'s'[: found != 1]}" if found else "Nothing wrong", err=True)
    return os.EX_DATAERR if found else os.EX_OK


def _problems(paths: MaildirPaths, user: str, *, read: bool) -> Iterator[str]:
    with paths.opened(user) as maildir:
        yield from check_maildir(maildir, read=read, now=time.time())


def _find(entries: Sequence[StoredMessage], wanted: str) -> StoredMessage:
    for entry in entries:
        if wanted in (entry.uid, str(entry.number)):
            return entry
    raise click.BadParameter(f"there is no message {wanted}; mailbox list shows them", param_hint="MESSAGE")


def _why(error: Refusal) -> str:
    return error.detail or error.text


def _header(message: StoredMessage) -> dict[str, str]:
    """Some headers as text, safe for a terminal."""
    try:
        with message.open() as file:
            parsed = BytesHeaderParser().parsebytes(re.split(rb"\n\r*+\n", file.read(65536), maxsplit=1)[0])
    except (OSError, StoreTrouble):
        return {}
    return {name: _text(str(parsed[name])) for name in ("From", "Subject") if name in parsed}


def _text(value: str) -> str:
    try:
        value = str(make_header(decode_header(value)))
    except (ValueError, LookupError):
        pass
    value = " ".join(value.split())
    return "".join(c if c.isprintable() else "?" for c in value)[:100]


def _users(pattern: str) -> list[str]:
    """The users who have a Maildir, by the pattern."""
    pattern = os.path.abspath(os.path.expanduser(pattern))
    before, placeholder, after = pattern.partition("{user}")
    if not placeholder:
        raise click.UsageError("all users share one Maildir: name one")
    root, beginning = os.path.split(before)
    ending = after.partition("/")[0]
    users = []
    for name in sorted(os.listdir(root)):
        if name.startswith(beginning) and name.endswith(ending) and not name.startswith("."):
            user = name[len(beginning) : len(name) - len(ending)]
            if os.path.lexists(os.path.join(pattern.replace("{user}", user), "cur")):
                users.append(user)
    return users
