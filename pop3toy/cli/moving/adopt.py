"""``pop3toy mailbox adopt`` and ``accept``: the unique-ids that clients know are kept, or given up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

import click

from ...config.settings import Settings
from ...errors import NoSuchMailbox, Refusal, StoreTrouble
from ...moving import cyrus, dovecot
from ...moving.dovecot import NotRead
from ...moving.matching import Known, Match, match
from ...stores.copying.adopting import AdoptedMaildir, AdoptingMaildirs
from ...stores.copying.counts import Stopped
from ...stores.registry import kind_of
from ..copying.command import store_at
from ..copying.users import Work
from ..options import Failed, administration, complete_user, no_mailbox, printable, user_meant, with_settings
from .cyrus_spool import Cyrus, Spool
from .servers import login, password_for, passwords, reached, server_at, with_servers
from .sources import (
    Courier,
    Dovecot,
    Remote,
    Source,
    dovecot_kept_out,
    folder,
    other_store,
    read_contents,
)  # fmt: skip

__all__ = ["accept", "adopt"]

#: Opens what is known of a user's mailbox elsewhere; the last tells whether something will be changed here.
_Opener: TypeAlias = Callable[[str, AdoptedMaildir, bool], AbstractContextManager[Source]]

#: Lines of each kind that are shown of a mailbox, unless all are wanted.
_SHOWN = 5
_KINDS = ("dovecot", "courier", "cyrus", "pop3toy")


class _Words(NamedTuple):
    """What the command line says of the other server."""

    kind: str
    source: str | None
    uidl_format: str | None
    dovecot_config: Path | None
    uidvalidity: int | None


@click.command()
@with_settings(store=True)
@with_servers
@click.option(
    "--from",
    "kind",
    required=True,
    metavar="|".join((*_KINDS, "pop3://[LOGIN@]HOST")),
    help="Which server clients know the mail from.",
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
    "--uidvalidity", type=click.IntRange(1, 2**32 - 1), help="Of cyrus, if cyrus.index does not tell."
)
@click.option("--all", "all_", is_flag=True, help="For all users who have a Maildir.")
@click.option("-y", "--yes", is_flag=True, help="Write it; else it is only shown.")
@click.option("-v", "--verbose", is_flag=True, help="Name all messages that are not the same.")
@click.argument("user", required=False, shell_complete=complete_user)
def adopt(
    settings: Settings,
    user: str | None,
    all_: bool,
    yes: bool,
    verbose: bool,
    kind: str,
    source: str | None,
    uidl_format: str | None,
    dovecot_config: Path | None,
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
    words = _Words(kind, source, uidl_format, dovecot_config, uidvalidity)
    users = list(admin.users()) if user is None else [user_meant(settings, admin, user)]
    opened = _opener(words, users, remote, asked=user)
    maildirs = adopting(store)
    statuses: dict[str, int] = {}
    with Work("Reading") as work:
        for name in users:
            try:
                said, status = _adopt(name, maildirs, opened, work, yes=yes, verbose=verbose)
            except NoSuchMailbox as error:
                said, status = [f"{name}: {error.detail or error.text}"], os.EX_NOUSER
            except (Refusal, OSError) as error:
                why = (error.detail or error.text) if isinstance(error, Refusal) else str(error)
                said, status = [f"{name}: {why}; nothing was changed"], os.EX_TEMPFAIL
            except NotRead as error:
                said, status = [f"{name}: {error}; nothing was changed"], os.EX_DATAERR
            for line in said:
                click.echo(printable(line), err=status != os.EX_OK)
            if status:
                statuses[name] = status
    if not yes and len(statuses) < len(users):
        click.echo("Nothing was changed; --yes writes it.")
    found = set(statuses.values())
    return next((one for one in (os.EX_TEMPFAIL, os.EX_DATAERR, os.EX_NOUSER) if one in found), os.EX_OK)


def _adopt(
    user: str, maildirs: AdoptingMaildirs, opened: _Opener, work: Work, *, yes: bool, verbose: bool
) -> tuple[list[str], int]:
    """Do it for one user, or look what would be done: what to say, and the exit status."""
    with maildirs.maildir(user, lock=yes) as maildir, opened(user, maildir, yes) as source:
        known = source.listed()
        found = match(known, maildir.names)
        if found.missing and found.unknown and not found.doubts:
            contents = read_contents(
                source, maildir, found.missing, found.unknown, work.progress, work.stopped
            )
            if work.stopped():
                raise Stopped
            found = match(known, maildir.names, *contents)
        uids, doubts = _wanted(maildir, known, found)
        by_contents = len(found.uids) - found.by_name
        same = f"{len(found.uids)} are the same ({found.by_name} by name, {by_contents} by contents)"
        lines = [f"{user}: {len(maildir.names)} messages here, {len(known)} that {source.what} lists; {same}"]
        lines += _some(
            "not here", [one.uid.decode("ascii", "backslashreplace") for one in found.missing], verbose
        )
        lines += _some(f"new since {source.what}", found.unknown, verbose)
        if doubts:
            return [*lines, *_some("doubtful", doubts, verbose), "  nothing was changed"], os.EX_DATAERR
        if maildir.is_so(uids):
            return [*lines, "  all have their unique-ids and their order already"], os.EX_OK
        if yes:
            maildir.write(uids)
            lines.append(f"  {len(found.uids)} have the unique-ids that clients know now")
        return lines, os.EX_OK


def _wanted(
    maildir: AdoptedMaildir, known: Sequence[Known], found: Match
) -> tuple[Mapping[str, bytes], list[str]]:
    """The unique-ids that are to be written, and why they cannot be."""
    doubts = list(found.doubts)
    if known and maildir.names and not found.uids:
        doubts.append("no message is the same as one there; is it the right place?")
    doubts += [f"two messages here have the name {one}" for one in maildir.duplicates if one in found.uids]
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


def _opener(
    words: _Words, users: Sequence[str], remote: Mapping[str, object], *, asked: str | None
) -> _Opener:
    """What opens the source of a user: ``opener(user, maildir, yes)``, a context manager."""
    for given, name, kinds in (
        (words.uidl_format, "--uidl-format", ("dovecot", "cyrus")),
        (words.dovecot_config, "--dovecot-config", ("dovecot",)),
        (words.uidvalidity, "--uidvalidity", ("cyrus",)),
        (words.source, "--source", _KINDS),
    ):
        if given is not None and words.kind not in kinds:
            raise click.UsageError(f"{name} goes with --from {' or '.join(kinds)}")
    if (
        words.source is not None
        and words.kind not in ("pop3toy", "cyrus")
        and len(users) > 1
        and "{user}" not in words.source
    ):
        raise click.BadParameter("each user has a folder of its own: put {user}", param_hint="--source")
    if words.kind == "dovecot":
        return _dovecot(words)
    if words.kind == "courier":
        return _courier(words)
    if words.kind == "cyrus":
        return _cyrus(words, several=len(users) > 1)
    if words.kind == "pop3toy":
        return _other_store(words)
    if "://" not in words.kind:
        raise click.BadParameter(f"is one of {', '.join(_KINDS)} or pop3://HOST", param_hint="--from")
    return _remote(words.kind, users, asked, remote)


def _place(words: _Words, user: str) -> str | None:
    if words.source is None:
        return None
    if user in (".", "..") or "/" in user:
        raise StoreTrouble(detail="this name cannot be a folder's")
    return os.path.expanduser(words.source).replace("{user}", user)


def _dovecot(words: _Words) -> _Opener:
    settings = dovecot.Settings()
    if words.dovecot_config is not None:
        text = words.dovecot_config.read_text(encoding="utf-8", errors="replace")
        settings = dovecot.settings_of(text)
    if words.uidl_format is not None:
        settings = settings._replace(format=words.uidl_format)
    try:
        dovecot.Format(settings.format)
    except NotRead as error:
        raise click.BadParameter(str(error), param_hint="--uidl-format") from None
    if settings.warning:
        click.echo(f"Not known here: {settings.warning}", err=True)

    @contextmanager
    def opened(user: str, maildir: AdoptedMaildir, yes: bool) -> Iterator[Source]:
        # In a folder CONTROL that of the inbox is .INBOX.
        with (
            folder(_place(words, user), maildir, inner=".INBOX") as place,
            dovecot_kept_out((place, maildir.fd), time.time, take=yes),
        ):
            yield Dovecot(place, settings)

    return opened


def _courier(words: _Words) -> _Opener:
    @contextmanager
    def opened(user: str, maildir: AdoptedMaildir, yes: bool) -> Iterator[Source]:
        with folder(_place(words, user), maildir) as place:
            yield Courier(place)

    return opened


def _cyrus(words: _Words, *, several: bool) -> _Opener:
    form = words.uidl_format or "cyrus"
    if form not in cyrus.FORMATS:
        raise click.BadParameter(f"of cyrus is one of {', '.join(cyrus.FORMATS)}", param_hint="--uidl-format")
    if words.source is None:
        raise click.UsageError(
            "--from cyrus needs --source: its spool (partition-default), or the folder of the inbox"
        )
    spool = Spool(words.source)
    if several and spool.is_inbox:
        raise click.BadParameter("this is one inbox: give the spool, or put {user}", param_hint="--source")

    @contextmanager
    def opened(user: str, maildir: AdoptedMaildir, yes: bool) -> Iterator[Source]:
        with folder(spool.inbox(user), maildir) as place:
            yield Cyrus(place, form, words.uidvalidity)

    return opened


def _other_store(words: _Words) -> _Opener:
    if words.source is None:
        raise click.UsageError(
            "--from pop3toy needs --source: the other store, such as '/old/{user}' or s3://mail"
        )
    store = store_at(words.source, "--source")

    @contextmanager
    def opened(user: str, maildir: AdoptedMaildir, yes: bool) -> Iterator[Source]:
        with other_store(store, user) as source:
            yield source

    return opened


def _remote(url: str, users: Sequence[str], asked: str | None, options: Mapping[str, object]) -> _Opener:
    password_file, users_file = options["password_file"], options["users_file"]
    server = server_at(
        url,
        "--from",
        cafile=options["cafile"],  # type: ignore[arg-type]
        insecure=bool(options["insecure"]),
        allow_cleartext=bool(options["allow_cleartext"]),
        timeout=float(str(options["timeout"])),
    )
    if asked is None and users_file is None:
        raise click.UsageError("--all needs --users-file: nobody else knows the users' passwords")
    given = passwords(users_file)  # type: ignore[arg-type]
    reached(server)
    asked_for: dict[str, str] = {}
    if asked is not None:
        name = server.user or asked
        asked_for[users[0]] = password_for(name, server, password_file, given)  # type: ignore[arg-type]

    @contextmanager
    def opened(user: str, maildir: AdoptedMaildir, yes: bool) -> Iterator[Source]:
        name = server.user or user
        password = asked_for.get(user) or given.get(user)
        if password is None:
            raise NoSuchMailbox(detail="is not in the file of users")
        with login(server, name, password)() as client:
            yield Remote(client, str(server))
            client.quit()

    return opened


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
