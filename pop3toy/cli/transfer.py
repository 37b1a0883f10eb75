"""``pop3toy mailbox import`` and ``export``: mail comes in from files, and goes out to files."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import click

from ..errors import NoSuchMailbox
from ..stores.maildir_delivery import MaildirDelivery
from .deliver import maildir_delivery
from .formats import FORMATS, Source, UnknownFormat, open_source, write_mbox
from .mailbox import StoredMessage, stored_messages
from .options import complete_user, maildir_option, maildir_paths, no_mailbox, put, result_of

__all__ = ["export", "import_"]

_user_argument = click.argument("user", shell_complete=complete_user)


@click.command(name="import")
@maildir_option
@click.option("-c", "--create", is_flag=True, help="Make the user's Maildir if it is missing.")
@click.option("-F", "--format", "kind", type=click.Choice(FORMATS), help="Found out if not given.")
@click.option("-s", "--skip-known", is_flag=True, help="Leave out what is in the mailbox already.")
@_user_argument
@click.argument("sources", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def import_(
    pattern: str, create: bool, kind: str | None, skip_known: bool, user: str, sources: tuple[Path, ...]
) -> int:
    """Put mail from mbox, Maildir, MH and eml files into a mailbox.

    Each message is delivered like any other: it is whole or not there, and a
    mail program that is fetching is not disturbed. When this was interrupted,
    --skip-known goes on where it ended.
    """
    try:
        opened = [(path, open_source(path, kind)) for path in sources]
    except UnknownFormat as error:
        raise click.BadParameter(str(error), param_hint="SOURCES") from None
    delivery = maildir_delivery(pattern, create=create)
    try:
        result_of(delivery.begin(user)).abort()
    except NoSuchMailbox as error:
        raise no_mailbox(user, error) from None
    known = set()
    if skip_known:
        known = {_digest(one.path.read_bytes()) for one in stored_messages(maildir_paths(pattern), user)}
    total = sum(source.total for _, source in opened)
    imported = skipped = failed = 0
    with click.progressbar(length=total, label=f"Importing for {user}", file=sys.stderr) as bar:
        for name, message in _messages(opened):
            bar.update(1)
            if isinstance(message, OSError):
                click.echo(f"\n{name}: {message.strerror or message}", err=True)
                failed += 1
            elif known and _digest(message) in known:
                skipped += 1
            else:
                _deliver(delivery, user, message)
                imported += 1
    click.echo(f"{imported} imported, {skipped} known already, {failed} not readable")
    return os.EX_DATAERR if failed else os.EX_OK


@click.command()
@maildir_option
@click.option("-F", "--format", "kind", type=click.Choice(["mbox", "eml"]), default="mbox", show_default=True)
@_user_argument
@click.argument("destination", type=click.Path(path_type=Path, allow_dash=True))
def export(pattern: str, kind: str, user: str, destination: Path) -> None:
    """Write all messages of a mailbox to DESTINATION, which must not exist yet.

    An mbox is one file ("-" is standard output); eml is a folder with a file
    for each message. Nothing is removed from the mailbox.
    """
    messages = stored_messages(maildir_paths(pattern), user)
    if kind == "eml":
        destination.mkdir()
        for message in _with_progress(messages, user):
            (destination / f"{message.number:06}.eml").write_bytes(message.path.read_bytes())
    else:
        to_stdout = destination == Path("-")
        with nullcontext(sys.stdout.buffer) if to_stdout else destination.open("xb") as file:
            for message in _with_progress(messages, user):
                write_mbox(file, message.path.read_bytes(), message.path.stat().st_mtime)
    click.echo(f"{len(messages)} exported", err=True)


def _messages(opened: Sequence[tuple[Path, Source]]) -> Iterator[tuple[str, bytes | OSError]]:
    for path, source in opened:
        for name, message in source.messages():
            yield f"{path}: {name}", message


def _deliver(delivery: MaildirDelivery, user: str, message: bytes) -> None:
    incoming = result_of(delivery.begin(user))
    try:
        put(incoming, message)
        result_of(incoming.commit())
    finally:
        incoming.abort()


def _with_progress(messages: Sequence[StoredMessage], user: str) -> Iterator[StoredMessage]:
    with click.progressbar(messages, label=f"Exporting {user}", file=sys.stderr) as bar:
        yield from bar


def _digest(message: bytes) -> bytes:
    """The same for a message with LF and with CRLF line ends."""
    return hashlib.sha256(message.replace(b"\r\n", b"\n")).digest()
