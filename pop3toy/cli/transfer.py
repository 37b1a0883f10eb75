"""``pop3toy mailbox import`` and ``export``: mail comes in from files, and goes out to files."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from ..auth.accounts.passwd_file import Account
from ..config.settings import Settings
from ..errors import MessageGone, NoSuchMailbox
from ..files import by_its_name, new_file
from ..interfaces import IDelivery, IStoreAdmin, StoredMessage
from ..mail.message_start import take_off
from ..routing.quota import parse_quota
from .copying.users import Work
from .formats import FORMATS, Source, UnknownFormat, is_expunged, open_source
from .mailbox import messages_of
from .mbox import with_line_feeds, write_mbox
from .options import (
    Failed,
    accounts_of,
    accounts_place,
    administration,
    complete_user,
    delivery,
    listed,
    no_mailbox,
    printable,
    result_of,
    user_meant,
    with_settings,
)

__all__ = ["export", "import_", "quota_in_octets"]

_user_argument = click.argument("user", shell_complete=complete_user)


@click.command(name="import")
@with_settings(store=True, accounts="for --create: who exists; and for quotas")
@click.option(
    "-c", "--create", is_flag=True, help="Make the user's mailbox if it is missing; needs --accounts."
)
@click.option("-F", "--format", "kind", type=click.Choice(FORMATS), help="Found out if not given.")
@click.option("-s", "--skip-known", is_flag=True, help="Leave out what is in the mailbox already.")
@_user_argument
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
def import_(
    settings: Settings,
    create: bool,
    kind: str | None,
    skip_known: bool,
    user: str,
    sources: tuple[Path, ...],
) -> int:
    """Put mail from mbox, Maildir, MH and eml files into a mailbox.

    Each message is delivered like any other: it is whole or not there, and a
    mail program that is fetching is not disturbed. When this was interrupted,
    --skip-known goes on where it ended.

    No quota keeps anything out; with --accounts it is told if the mailbox holds
    more than its quota in the end.

    What its owner has deleted in Thunderbird is left out, also if it is in the
    file still. Links and what is no regular file are left out, and told.
    """
    try:
        for path in sources:
            # One that is missing, or may not be seen, before any is read.
            path.stat()
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror}", param_hint="SOURCES") from None
    try:
        opened = [(path, open_source(path, kind)) for path in sources]
    except UnknownFormat as error:
        raise click.BadParameter(str(error), param_hint="SOURCES") from None
    for path, source in opened:
        if source.folders:
            _tell(f"{path}: the folders within it are left out, name them: {', '.join(source.folders)}")
        if source.left_out:
            _tell(f"{path}: left out, for they are no messages: {', '.join(source.left_out)}")
        if not source.total:
            _tell(f"{path}: there are no messages in it (as {source.kind})")
    admin = administration(settings)
    user = user_meant(settings, admin, user)
    # A mistyped name gets no mailbox.
    accounts = accounts_of(settings)
    make = (create or settings.store.create) and (user in accounts or user in dict(settings.users))
    into = delivery(settings, create=make)
    try:
        result_of(into.check(user))
    except NoSuchMailbox as error:
        if create or (listed(settings) and user not in {**accounts, **dict(settings.users)}):
            raise _no_account(user, settings) from None
        raise no_mailbox(user, error) from None
    known = set()
    if skip_known:
        stored = [_read(admin, user, message) for message in messages_of(admin, user)]
        known = {_digest(data) for data in stored if data is not None}
    total = sum(source.total for _, source in opened)
    imported = skipped = failed = expunged = empty = 0
    with Work(f"Importing for {user}") as work:
        work.progress(total, 0)
        for name, message in _messages(opened):
            work.progress(0, 1)
            if isinstance(message, OSError):
                work.tell(f"{name}: {message.strerror or message}")
                failed += 1
            elif not message.strip():
                empty += 1
            elif is_expunged(message):
                expunged += 1
            elif known and _digest(message) in known:
                skipped += 1
            else:
                _deliver(into, user, message)
                imported += 1
    # Only with --skip-known were they compared.
    found = f", {skipped} known already" if skip_known else ""
    counts = f"{imported} imported{found}, {failed} not readable"
    if expunged:
        counts += f", {expunged} deleted by their owner and left out"
    if empty:
        counts += f", {empty} empty and left out"
    if left_out := sum(len(source.left_out) for _, source in opened):
        counts += f", {left_out} left out that {'is no message' if left_out == 1 else 'are no messages'}"
    click.echo(counts)
    if kept := sum(source.kept_as_text() for _, source in opened):
        _tell(f"kept as text: {kept} line{'s'[: kept != 1]} that looked like the separators of an mbox")
    if (quota := quota_in_octets(user, accounts)) is not None:
        used = admin.usage(user)
        if used > quota:
            _tell(
                f"the mailbox of {user} holds {used:,} octets now, more than its quota of {quota:,}:"
                " an import does not ask for that, and new mail waits until there is room"
            )
    return os.EX_DATAERR if failed else os.EX_OK


def quota_in_octets(user: str, accounts: Mapping[str, Account]) -> int | None:
    """The user's quota in octets; ``None`` without one that can be read."""
    account = accounts.get(user)
    try:
        return parse_quota(account.settings.get("quota", "none")) if account is not None else None
    except ValueError:
        return None


@click.command()
@with_settings(store=True)
@click.option("-F", "--format", "kind", type=click.Choice(["mbox", "eml"]), default="mbox", show_default=True)
@_user_argument
@click.argument("destination", type=click.Path(path_type=Path, allow_dash=True))
def export(settings: Settings, kind: str, user: str, destination: Path) -> None:
    """Write all messages of a mailbox to DESTINATION, which must not exist yet.

    An mbox is one file ("-" is standard output); eml is a folder with a file
    for each message. It has its name when it is whole, and nobody but you may
    read it. Nothing is removed from the mailbox.
    """
    admin = administration(settings)
    mailbox = _Mailbox(admin, user_meant(settings, admin, user))
    if destination == Path("-"):
        _write_mbox(mailbox, sys.stdout.buffer)
    elif os.path.lexists(destination):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(destination))
    elif kind == "eml":
        with _new_folder(destination) as opener:
            for number, _, data in mailbox:
                with open(f"{number:06}.eml", "xb", opener=opener) as file:
                    file.write(data)
    else:
        with new_file(destination, replace=False) as file:
            _write_mbox(mailbox, file)
    gone = f", {mailbox.gone} were removed meanwhile" if mailbox.gone else ""
    click.echo(f"{mailbox.total - mailbox.gone} exported{gone}", err=True)


class _Mailbox:
    """The messages of a user, each with its number and its octets.

    A mail program may be fetching: what it marks as read in the meantime is found again
    where it is now, and what it removes is left out and counted.
    """

    def __init__(self, admin: IStoreAdmin, user: str) -> None:
        self._admin = admin
        self._user = user
        self._messages = messages_of(admin, user)
        self.total = len(self._messages)
        self.gone = 0

    def __iter__(self) -> Iterator[tuple[int, StoredMessage, bytes]]:
        now = {message.uid: message for message in self._messages}
        with Work(f"Exporting {self._user}") as work:
            work.progress(self.total, 0)
            for number, message in enumerate(self._messages, 1):
                work.progress(0, 1)
                data = self._read(now.get(message.uid))
                if data is None and message.uid in now:
                    now = {other.uid: other for other in messages_of(self._admin, self._user)}
                    data = self._read(now.get(message.uid))
                if data is None:
                    self.gone += 1
                else:
                    yield number, message, data

    def _read(self, message: StoredMessage | None) -> bytes | None:
        return None if message is None else _read(self._admin, self._user, message)


def _read(admin: IStoreAdmin, user: str, message: StoredMessage) -> bytes | None:
    try:
        with by_its_name(message.where), admin.read(user, message) as file:
            return file.read()
    except MessageGone:
        return None


def _write_mbox(mailbox: _Mailbox, file: BinaryIO) -> None:
    for _, message, data in mailbox:
        write_mbox(file, data, time.time() if message.arrived is None else message.arrived)


@contextmanager
def _new_folder(destination: Path) -> Iterator[Callable[[str, int], int]]:
    """What opens new files in a folder that has its name when it is whole; mail is private."""
    with by_its_name(destination):
        name = tempfile.mkdtemp(dir=destination.parent, prefix=f".{destination.name}.")
    try:
        # The folder above may be another's, who could put a link in the place of this one.
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield lambda file, flags: os.open(file, flags, 0o600, dir_fd=folder)
        finally:
            os.close(folder)
        with by_its_name(destination):
            os.rename(name, destination)
    except BaseException:
        shutil.rmtree(name, ignore_errors=True)
        raise


def _messages(opened: Sequence[tuple[Path, Source]]) -> Iterator[tuple[str, bytes | OSError]]:
    for path, source in opened:
        for name, message in source.messages():
            yield f"{path}: {name}", message


def _no_account(user: str, settings: Settings) -> Failed:
    if not listed(settings):
        why = (
            f"{user} has no mailbox here, and --create makes one only for an account in the file --accounts;"
            " for an account kept elsewhere make the folder first, with new, cur and tmp in it"
        )
    else:
        where = accounts_place(settings) if settings.accounts is not None else "the file of options"
        why = f"there is no account {user} in {where}, and no mailbox was made"
    return Failed(why, os.EX_NOUSER)


def _tell(text: str) -> None:
    click.echo(printable(text), err=True)


def _deliver(into: IDelivery, user: str, message: bytes) -> None:
    incoming = result_of(into.begin([user]))
    try:
        result_of(incoming.write(message))
        result_of(incoming.commit())
    finally:
        incoming.abort()


def _digest(message: bytes) -> bytes:
    """The same with LF and with CRLF line ends, and with or without a separator before the message."""
    return hashlib.sha256(with_line_feeds(take_off(message)[1])).digest()
