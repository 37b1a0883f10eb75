"""``pop3toy mailbox undo``."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Final, cast

import click

from ...config.settings import Settings
from ...errors import InUse, NoSuchMailbox
from ...interfaces import IRemovedMessages, IStoreAdmin, RemovedMessage
from ...stores.expiring import DAY
from ..mailbox import header_of
from ..options import (
    Failed,
    accounts_of,
    administration,
    complete_user,
    no_mailbox,
    printable,
    user_meant,
    with_settings,
)
from ..transfer import quota_in_octets

__all__ = ["undo"]

_SHOWN: Final = "%Y-%m-%d %H:%M:%S"
_FORMATS: Final = ("%Y-%m-%d", "%Y-%m-%d %H:%M", _SHOWN)
_AGE: Final = re.compile(r"([0-9]{1,6})([mhd])", re.ASCII)
_SECONDS: Final = {"m": 60.0, "h": 3600.0, "d": DAY}


def _when(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """Seconds since the epoch, of local time or of an age."""
    if text is None:
        return None
    if age := _AGE.fullmatch(text):
        return time.time() - int(age[1]) * _SECONDS[age[2]]
    for form in _FORMATS:
        try:
            return datetime.strptime(text.replace("T", " "), form).astimezone().timestamp()
        except (ValueError, OverflowError, OSError):
            continue
    raise click.BadParameter(f"{text} is no time: 2026-11-30, '2026-11-30 14:00', or an age as 90m, 2h, 3d")


@click.command()
@with_settings(store=True, accounts="for quotas: whether the mailbox holds more then")
@click.option("-l", "--list", "list_", is_flag=True, help="Show what can be put back.")
@click.option("--last", is_flag=True, help="What the last session has deleted that deleted something.")
@click.option(
    "--since",
    metavar="WHEN",
    callback=_when,
    help="What was deleted since: 2026-11-30, '2026-11-30 14:00', or an age as 90m, 2h, 3d.",
)
@click.option("--all", "everything", is_flag=True, help="All that can be put back.")
@click.option("-y", "--yes", is_flag=True, help="Put it back; without it messages are only shown.")
@click.argument("user", shell_complete=complete_user)
@click.argument("uids", metavar="[UNIQUE-ID]...", nargs=-1)
def undo(
    settings: Settings,
    list_: bool,
    last: bool,
    since: float | None,
    everything: bool,
    yes: bool,
    user: str,
    uids: tuple[str, ...],
) -> int:
    """Put messages back that POP3 has deleted from the Maildir of USER.

    With --undo-days the server keeps them for so many days, and they can be put
    back until then, all or some. They have the unique-ids, flags and places that
    they had: a mail program that leaves mail on the server fetches them once
    again if it was there since they were deleted, and not if it knows them still.

    Without --yes nothing is changed and it is shown what would be put back. With
    it the mailbox is locked as by a session, and refused while a session has it
    open (exit status 75). No quota keeps mail out; with --accounts it is told if
    the mailbox holds more than its quota then. Nothing is overwritten: a message
    whose name or unique-id is in the mailbox again stays where it is kept, and is
    told (exit status 65).

    \b
      pop3toy mailbox undo ann --list
      pop3toy mailbox undo ann --last --yes
      pop3toy mailbox undo ann --since 2h --yes
    """
    chosen = sum((last, since is not None, everything, bool(uids)))
    if chosen > 1 or (list_ and yes):
        raise click.UsageError("one of UNIQUE-IDs, --last, --since and --all; --list goes without --yes")
    if not chosen and not list_:
        raise click.UsageError("say which: UNIQUE-IDs, --last, --since or --all; --list shows what there is")
    admin = administration(settings)
    if not IRemovedMessages.providedBy(admin):
        raise click.UsageError("this is for Maildirs: object storage keeps nothing that was deleted")
    removed = cast(IRemovedMessages, admin)
    user = user_meant(settings, admin, user)
    unusable: list[str] = []
    try:
        found = _chosen(removed.removed(user, unusable.append), last, since, uids)
        for why in unusable:
            click.echo(printable(f"{user}: {why}"), err=True)
        if not found:
            click.echo(f"Nothing like that is kept of {printable(user)}", err=True)
            return os.EX_DATAERR if unusable else os.EX_OK
        left = removed.put_back(user, found, look=not yes)
    except NoSuchMailbox as error:
        raise no_mailbox(user, error) from None
    except InUse as error:
        raise Failed(f"[{error.code}] {user}: {error.text}; nothing was put back", os.EX_TEMPFAIL) from None
    for one, why in zip(found, left, strict=True):
        if not yes or why:
            _show(admin, user, one, why)
    back = [one.message for one, why in zip(found, left, strict=True) if not why]
    octets = sum(message.octets for message in back)
    click.echo(
        f"{printable(user)}: {len(back)} of {len(found)} message{'s'[: len(found) != 1]} ({octets:,} octets)"
        f" {'put back' if yes else 'can be put back'}"
    )
    if not yes and not list_:
        click.echo("Nothing was put back: --yes does it", err=True)
    elif yes and back:
        _warn(settings, admin, user, [message.arrived for message in back])
    return os.EX_DATAERR if any(left) or unusable else os.EX_OK


def _chosen(
    kept: Sequence[RemovedMessage], last: bool, since: float | None, uids: Sequence[str]
) -> list[RemovedMessage]:
    """Those that are meant; all if nothing is said of them."""
    if last:
        return [one for one in kept if one.removed == kept[-1].removed]
    if since is not None:
        return [one for one in kept if one.removed >= since]
    if not uids:
        return list(kept)
    # Of several the one that was removed last.
    by_uid = {one.message.uid.decode("ascii"): one for one in kept}
    if missing := [uid for uid in uids if uid not in by_uid]:
        raise click.BadParameter(
            f"there is no deleted message {printable(missing[0])}; --list shows them", param_hint="UNIQUE-ID"
        )
    return [by_uid[uid] for uid in dict.fromkeys(uids)]


def _show(admin: IStoreAdmin, user: str, one: RemovedMessage, why: str) -> None:
    message = one.message
    when = datetime.fromtimestamp(one.removed).strftime(_SHOWN)
    header = header_of(admin, user, message)
    click.echo(f"{when} {message.octets:10} {message.uid.decode('ascii')}")
    click.echo(f"{'':16} {header.get('From', '')}: {header.get('Subject', '')}")
    if why:
        click.echo(f"{'':16} stays where it is: {printable(why)}")


def _warn(settings: Settings, admin: IStoreAdmin, user: str, arrived: Sequence[float | None]) -> None:
    """Tell what becomes of a mailbox with so much in it again."""
    quota = quota_in_octets(user, accounts_of(settings))
    if quota is not None and (used := admin.usage(user)) > quota:
        click.echo(
            f"The mailbox of {printable(user)} holds {used:,} octets now, more than its quota of {quota:,}:"
            " new mail waits until there is room",
            err=True,
        )
    days = settings.expire_days
    old = sum(came is not None and time.time() - came > days * DAY for came in arrived) if days else 0
    if old:
        click.echo(
            f"{old} of them came more than {days} days ago: the server removes them again (expire-days), for"
            " good; export them, or raise it",
            err=True,
        )
