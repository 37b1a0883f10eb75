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
from typing import BinaryIO, NamedTuple

import click

from ..errors import NoSuchMailbox, Refusal, StoreTrouble
from ..stores.filebody import OPEN_FLAGS
from ..stores.maildir_check import check_maildir
from ..stores.maildir_folders import open_or_refuse
from ..stores.maildir_paths import MaildirPaths
from ..stores.maildir_scan import scan
from .options import Failed, complete_user, maildir_option, maildir_paths, no_mailbox, printable

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
@click.argument("user", required=False, shell_complete=complete_user)
def list_(pattern: str, user: str | None) -> int:
    """List the messages of USER, or all mailboxes.

    Each message with the number that POP3 gives it now, its unique-id and its
    size in octets.
    """
    paths = maildir_paths(pattern)
    if user is None:
        unreadable = 0
        for name in _users(pattern):
            try:
                entries = stored_messages(paths, name)
            except (Refusal, Failed) as error:
                why = str(error) if isinstance(error, Failed) else f"{name}: {_why(error)}"
                click.echo(printable(why), err=True)
                unreadable += 1
                continue
            octets = sum(entry.octets for entry in entries)
            click.echo(f"{printable(name):20} {len(entries):7} messages {octets:13,} octets")
        return os.EX_DATAERR if unreadable else os.EX_OK
    for message in stored_messages(paths, user):
        header = _header(message)
        click.echo(f"{message.number:5} {message.octets:10} {message.uid}")
        click.echo(f"{'':16} {header.get('From', '')}: {header.get('Subject', '')}")
    return os.EX_OK


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
