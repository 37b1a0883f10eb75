"""``pop3toy mailbox expire``."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import cast

import click
from twisted.internet.defer import Deferred

from ...config.settings import Settings
from ...errors import InUse
from ...interfaces import IMailStore, IRemovedMessages, StoredMessage
from ...stores.expiring import DAY, Rule, expired, forgotten, remove_expired
from ...stores.registry import kind_of
from ..mailbox import messages_of, users_of
from ..options import (
    FloatRange,
    IntRange,
    administration,
    complete_user,
    failure_of,
    maildrops,
    printable,
    result_of,
    user_meant,
    with_settings,
    worst,
)

__all__ = ["expire"]


@click.command()
@with_settings(store=True)
@click.option(
    "--older-than",
    type=FloatRange(min=0),
    metavar="DAYS",
    help="Messages that came more than so many days ago.",
)
@click.option("--keep", type=IntRange(min=0), metavar="COUNT", help="All but the newest COUNT.")
@click.option("--seen", is_flag=True, help="Messages marked as seen (flag S of a Maildir).")
@click.option(
    "--undo-days",
    type=IntRange(0, 3650),
    metavar="DAYS",
    help="Besides, for good, what POP3 has deleted more than so many days ago and is kept for mailbox undo;"
    " if not given, as undo-days in the file of options says.",
)
@click.option("--all", "everybody", is_flag=True, help="In all mailboxes.")
@click.option("-y", "--yes", is_flag=True, help="Remove them; without it they are only told.")
@click.argument("user", required=False, shell_complete=complete_user)
def expire(
    settings: Settings,
    older_than: float | None,
    keep: int | None,
    seen: bool,
    undo_days: int | None,
    everybody: bool,
    yes: bool,
    user: str | None,
) -> int:
    """Remove old messages of USER, or of all with --all.

    Of several conditions all have to hold: --older-than 30 --keep 100 leaves
    the newest 100, however old. A message of which it is not known when it came
    counts as new.

    Nothing is removed without --yes. With it each mailbox is locked as by a
    session, and one that a session has open is left alone (exit status 75).
    What is removed here is not kept for mailbox undo.

    POP3 itself marks nothing as seen: what was fetched and left on the server
    has no mark unless another program has set it. --seen is for mailboxes that
    are read by IMAP or on the host as well.
    """
    if (user is None) != everybody:
        raise click.UsageError("name one USER, or give --all")
    by_rule = older_than is not None or keep is not None or seen
    if not by_rule and undo_days is None:
        raise click.UsageError("say which messages: --older-than, --keep, --seen or --undo-days")
    if seen and kind_of(settings.store).key != "maildir":
        raise click.UsageError("--seen is for Maildirs: object storage keeps no flags")
    admin = administration(settings)
    if undo_days is not None and not IRemovedMessages.providedBy(admin):
        raise click.UsageError("--undo-days is for Maildirs: object storage keeps nothing that was deleted")
    store = maildrops(settings)
    now = time.time()
    # Not said at all is no reason to take what a server may keep that reads another file.
    days = getattr(settings.store, "undo_days", None) if undo_days is None else undo_days
    before = forgotten(days, now) if days is not None and IRemovedMessages.providedBy(admin) else None
    status = os.EX_OK
    for name in users_of(admin, settings) if user is None else [user_meant(settings, admin, user)]:
        try:
            if by_rule:
                messages = messages_of(admin, name)
                among = {message.uid for message in messages if _is_seen(message.where)} if seen else None
                rule = Rule(None if older_than is None else older_than * DAY, keep or 0, among)
                count, octets = _expire(name, messages, rule, store if yes else None, now)
                what = f"{count} of {len(messages)} message{'s'[: len(messages) != 1]} ({octets:,} octets)"
                click.echo(f"{printable(name)}: {what} {'removed' if yes else 'would be removed'}")
            if before is not None:
                left: list[str] = []
                count, octets = _forget(name, cast(IRemovedMessages, admin), before, left, yes=yes)
                for why in left:
                    click.echo(printable(f"{name}: {why}"), err=True)
                status = worst((status, os.EX_DATAERR if left else os.EX_OK))
                what = f"{count} deleted message{'s'[: count != 1]} ({octets:,} octets)"
                if count or not by_rule:
                    done = "removed" if yes else "would be removed"
                    click.echo(f"{printable(name)}: {what} {done} for good")
        except InUse as error:
            click.echo(printable(f"{name}: [{error.code}] {error.text}; nothing was removed"), err=True)
            status = worst((status, os.EX_TEMPFAIL))
        except Exception as error:
            if user is not None:
                raise
            line, failed = failure_of(name, error, os.EX_DATAERR)
            click.echo(printable(line), err=True)
            status = worst((status, failed))
    if not yes:
        click.echo("Nothing was removed: --yes does it", err=True)
    return status


def _expire(
    user: str, messages: Sequence[StoredMessage], rule: Rule, store: IMailStore | None, now: float
) -> tuple[int, int]:
    """Remove what the rule says, or without a store only count it: how many, and their octets."""
    gone = expired(messages, rule, now)
    if store is not None and gone:
        return result_of(Deferred.fromCoroutine(remove_expired(store, user, rule, now)))
    return len(gone), sum(message.octets for message in gone)


def _forget(
    user: str, admin: IRemovedMessages, before: float, left: list[str], *, yes: bool
) -> tuple[int, int]:
    """Remove what was kept long enough, or only count it.

    :param left: gets a sentence for each thing that stays since it cannot be used.
    """
    if yes:
        found: tuple[int, int] = admin.forget(user, before, left.append)
        return found
    due = [message for message, removed in admin.removed(user, left.append) if removed <= before]
    return len(due), sum(message.octets for message in due)


def _is_seen(where: str) -> bool:
    """Whether the name of a message in a Maildir, such as ``cur/NAME:2,S``, has the flag."""
    return "S" in where.rpartition(":2,")[2] if ":2," in where else False
