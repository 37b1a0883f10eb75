"""``pop3toy mailbox adopt`` and ``accept``: the unique-ids that clients know are kept, or given up."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click

from ...config.settings import Settings
from ...errors import NoSuchMailbox, StoreTrouble
from ...moving.dovecot import NotRead
from ...moving.matching import Known, Match, match, sort_out
from ...stores.copying.adopting import AdoptedMaildir, AdoptingMaildirs
from ...stores.copying.counts import Stopped, counted
from ...stores.registry import kind_of
from ..copying.users import Work, each_done
from ..options import (
    Failed,
    IntRange,
    administration,
    complete_user,
    failure_of,
    no_mailbox,
    printable,
    threads_option,
    user_meant,
    with_settings,
    worst,
)
from .opening import KINDS, Opener, Words, opener
from .servers import with_servers
from .sources import read_contents

__all__ = ["accept", "adopt"]

#: Lines of each kind that are shown of a mailbox, unless all are wanted.
_SHOWN = 5


_FROM = "|".join((*KINDS, "pop3://[LOGIN@]HOST"))


class _Ways(NamedTuple):
    """How it is done."""

    skip_doubtful: bool
    yes: bool
    verbose: bool


@click.command()
@with_settings(store=True)
@with_servers
@click.option(
    "--from",
    "kind",
    metavar=_FROM,
    help="Which server clients know the mail from; it has to be said.",
)
@click.option(
    "--source",
    metavar="PATH",
    help="Where that server's files are, if not in the Maildir; with {user} in it. For dovecot its folder"
    " CONTROL or an old Maildir, for cyrus its spool or the folder of the inbox, for pop3toy another store.",
)
@click.option(
    "--uidl-format", metavar="FORMAT", help="pop3_uidl_format, if not %08Xu%08Xv; or cyrus's uidl_format."
)
@click.option(
    "--dovecot-config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="What doveconf prints, or dovecot.conf: for pop3_uidl_format and others.",
)
@click.option(
    "--reuse-xuidl/--no-reuse-xuidl",
    default=None,
    help="Whether Dovecot had pop3_reuse_xuidl = yes: headers X-UIDL were unique-ids.",
)
@click.option("--uidvalidity", type=IntRange(1, 2**32 - 1), help="Of cyrus, if cyrus.index does not tell.")
@click.option("--all", "all_", is_flag=True, help="For all users who have a Maildir.")
@threads_option(4)
@click.option(
    "--skip-doubtful",
    is_flag=True,
    help="Go on without messages whose unique-id is none, or another's; clients will fetch these again.",
)
@click.option("-y", "--yes", is_flag=True, help="Write it; else it is only shown.")
@click.option("-v", "--verbose", is_flag=True, help="Name all messages that are not the same.")
@click.argument("user", required=False, shell_complete=complete_user)
def adopt(
    settings: Settings,
    user: str | None,
    all_: bool,
    threads: int,
    skip_doubtful: bool,
    yes: bool,
    verbose: bool,
    kind: str | None,
    source: str | None,
    uidl_format: str | None,
    dovecot_config: Path | None,
    reuse_xuidl: bool | None,
    uidvalidity: int | None,
    **remote: object,
) -> int:
    """Give the messages of a Maildir the unique-ids that clients know from another server.

    So mail programs that leave mail on the server fetch nothing twice after the move, and
    see it in the order that they know. Without --yes nothing is changed and it is shown
    what would be.

    A message is recognised by the name of its file; if names say nothing, by octets and a
    hash of headers and body, for which both are read. Mail that the other server does not
    know keeps the unique-id that it has here. Nothing is changed where something is
    doubtful: two messages with one unique-id, a file that is not understood, no message
    that is the same, a session or Dovecot at it.

    Do it when the old server has stopped and before clients come to this one. It may be
    run again at any time. The exit status is 0 if all is well, 65 if something was
    doubtful, 67 if there is no such mailbox, and 75 if another try may help.

    \b
      pop3toy mailbox adopt ann --from dovecot -m '/srv/mail/{user}'
      pop3toy mailbox adopt --all --from courier -m '/srv/mail/{user}' --yes
      pop3toy mailbox adopt ann --from pop3://old.example.org -m '/srv/mail/{user}'
      pop3toy mailbox adopt ann --from cyrus --source /var/spool/cyrus/mail -m '/srv/mail/{user}'
    """
    if kind is None:
        raise click.UsageError(f"Which server do clients know the mail from? --from {_FROM}")
    if all_ == (user is not None):
        raise click.UsageError("A user is wanted, or --all.")
    store = settings.store
    adopting = kind_of(store).adopting
    if adopting is None:
        raise click.UsageError(
            "this is for Maildirs: in object storage messages are stored by their unique-ids; bring them by"
            " pop3toy store copy or pop3toy mailbox fetch, which keep them"
        )
    if all_ and not store.for_each_user:
        raise click.UsageError("all users share one Maildir: name the one user whose mail it is")
    admin = administration(settings)
    words = Words(kind, source, uidl_format, dovecot_config, uidvalidity, reuse_xuidl)
    users = list(admin.users()) if user is None else [user_meant(settings, admin, user)]
    opened = opener(words, users, remote, asked=user)
    maildirs = adopting(store)
    statuses: dict[str, int] = {}
    waiting: dict[str, tuple[list[str], int]] = {}
    left = iter(users)
    next_ = next(left, None)
    with Work("Reading") as work:
        do = partial(_outcome, maildirs, opened, work, _Ways(skip_doubtful, yes, verbose))
        for name, done in each_done(users, work, do, threads=threads):
            waiting[name] = done.result()
            # Told in the order of users, so that two reports can be compared.
            while next_ in waiting:
                said, status = waiting.pop(next_)
                for line in said:
                    work.tell(line, err=status != os.EX_OK)
                if status:
                    statuses[next_] = status
                next_ = next(left, None)
    if not yes and len(statuses) < len(users):
        click.echo("Nothing was changed; --yes writes it.")
    return worst(statuses.values())


def _outcome(
    maildirs: AdoptingMaildirs, opened: Opener, work: Work, ways: _Ways, user: str
) -> tuple[list[str], int]:
    """What came of it for one user: what to say, and the exit status."""
    try:
        return _adopt(user, maildirs, opened, work, ways)
    except NoSuchMailbox as error:
        return [f"{user}: {error.detail or error.text}"], os.EX_NOUSER
    except Stopped:
        return [], os.EX_TEMPFAIL
    except NotRead as error:
        return [f"{user}: {error}; nothing was changed"], os.EX_DATAERR
    except Exception as error:
        # A bug, or an odd mailbox, of one user is no reason to leave out the others.
        line, status = failure_of(user, error, os.EX_TEMPFAIL)
        return [line if status == os.EX_SOFTWARE else f"{line}; nothing was changed"], status


def _adopt(
    user: str, maildirs: AdoptingMaildirs, opened: Opener, work: Work, ways: _Ways
) -> tuple[list[str], int]:
    """Do it for one user, or look what would be done: what to say, and the exit status."""
    with maildirs.maildir(user, lock=ways.yes) as maildir, opened(user, maildir, ways.yes) as source:
        known = source.listed()
        good, left_out = sort_out(known)
        advice = "; --skip-doubtful leaves such messages out" if left_out and not ways.skip_doubtful else ""
        known, left_out = (good, left_out) if ways.skip_doubtful else (known, [])
        found = match(known, maildir.names)
        if found.missing and found.unknown and not found.doubts:
            contents = read_contents(
                source, maildir, found.missing, found.unknown, work.progress, work.stopped, time.monotonic
            )
            if work.stopped():
                raise Stopped
            found = match(known, maildir.names, *contents)
        uids, doubts = _wanted(maildir, known, found)
        by_contents = len(found.uids) - found.by_name
        are = "is" if len(found.uids) == 1 else "are"
        same = f"{len(found.uids)} {are} the same ({found.by_name} by name, {by_contents} by contents)"
        lines = [f"{user}: {counted(len(maildir.names))} here, {len(known)} that {source.what} lists; {same}"]
        for what, all_ in (
            ("left out", left_out),
            ("not here", [one.uid.decode("ascii", "backslashreplace") for one in found.missing]),
            (f"not known to {source.what}" if left_out else f"new since {source.what}", found.unknown),
            ("doubtful", doubts),
        ):
            lines += _some(what, all_, ways.verbose)
        if doubts:
            return [*lines, f"  nothing was changed{advice}"], os.EX_DATAERR
        if maildir.is_so(uids):
            if ways.yes:
                maildir.forget_read()
            return [*lines, "  all have their unique-ids and their order already"], os.EX_OK
        if ways.yes:
            maildir.write(uids)
            lines.append(f"  {counted(len(found.uids))} got the unique-ids that clients know")
        return lines, os.EX_OK


def _wanted(
    maildir: AdoptedMaildir, known: Sequence[Known], found: Match
) -> tuple[Mapping[str, bytes], list[str]]:
    """The unique-ids that are to be written, and why they cannot be."""
    doubts = list(found.doubts)
    if known and maildir.names and not found.uids:
        doubts.append("no message is the same as one there; is it the right place?")
    doubts += [f"two messages here have the name {one}" for one in maildir.duplicates if one in found.uids]
    doubts += [f"the name of {name!r} has a line end in it; rename it" for name in found.uids if "\n" in name]
    uids = dict(found.uids)
    # What clients know must not be the name of anything else: they would never fetch that.
    taken = {one.uid.lower() for one in known}
    for name in found.unknown:
        if (uid := maildir.another(name, taken)) is not None:
            uids[name] = uid
    others: dict[bytes, str] = {}
    for name, uid in maildir.adopted(uids).items():
        if (other := others.setdefault(uid.lower(), name)) != name:
            doubts.append(f"{uid.decode('ascii')} would be the unique-id of {other} and of {name}")
    return uids, doubts


def _some(what: str, all_: Sequence[str], verbose: bool) -> Iterator[str]:
    for one in all_ if verbose else all_[:_SHOWN]:
        yield f"  {what}: {one}"
    if not verbose and len(all_) > _SHOWN:
        yield f"  {what}: {len(all_) - _SHOWN} more (-v shows them)"


@click.command()
@with_settings(store=True)
@click.argument("user", shell_complete=complete_user)
def accept(settings: Settings, user: str) -> None:
    """Let USER in though the unique-ids of the mailbox are others than in the last session.

    The server refuses a mailbox of ten messages or more of which more than half have other
    unique-ids than in the last session, and the same contents: mail programs that leave
    mail on the server would fetch them all again. If they come from another server,
    pop3toy mailbox adopt gives them those that clients know; this gives them up.
    """
    adopting = kind_of(settings.store).adopting
    if adopting is None:
        raise click.UsageError("this is for Maildirs: in object storage unique-ids do not change")
    admin = administration(settings)
    user = user_meant(settings, admin, user)
    try:
        known = adopting(settings.store).accept(user)
    except NoSuchMailbox as error:
        raise no_mailbox(user, error) from None
    except StoreTrouble as error:
        raise Failed(printable(f"{user}: {error.detail or error.text}"), os.EX_TEMPFAIL) from None
    if known:
        click.echo(f"{printable(user)} is let in with the unique-ids that the messages have now.")
    else:
        click.echo(f"Nothing is known of a last session of {printable(user)}; nothing was changed.")
