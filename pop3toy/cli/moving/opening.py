"""What the command line says of another server, and what opens it for each user."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import click

from ...errors import NoSuchMailbox, StoreTrouble
from ...moving import cyrus, dovecot
from ...moving.dovecot import NotRead
from ...stores.copying.adopting import AdoptedMaildir
from ..copying.command import store_at
from ..options import printable
from .cyrus_spool import Cyrus, Spool
from .servers import login, password_for, passwords, reached, server_at
from .sources import (
    Courier,
    Dovecot,
    Remote,
    Source,
    dovecot_kept_out,
    folder,
    other_store,
)

__all__ = ["KINDS", "Opener", "Words", "opener"]

#: Opens what is known of a user's mailbox elsewhere; the last tells whether something will be changed here.
Opener: TypeAlias = Callable[[str, AdoptedMaildir, bool], AbstractContextManager[Source]]

#: Servers that have files which are read here.
KINDS: Final = ("dovecot", "courier", "cyrus", "pop3toy")


class Words(NamedTuple):
    """What the command line says of the other server."""

    kind: str
    source: str | None
    uidl_format: str | None
    dovecot_config: Path | None
    uidvalidity: int | None
    reuse_xuidl: bool | None


def opener(words: Words, users: Sequence[str], remote: Mapping[str, object], *, asked: str | None) -> Opener:
    """What opens the source of a user: ``opener(user, maildir, yes)``, a context manager."""
    if "://" not in words.kind:
        words = words._replace(kind=words.kind.lower())
        if words.kind not in KINDS:
            alike = get_close_matches(words.kind, KINDS, 1)
            meant = f"; is it {alike[0]}?" if alike else ""
            raise click.BadParameter(
                f"{printable(words.kind)!r} is none of {', '.join(KINDS)} and pop3://HOST{meant}",
                param_hint="--from",
            )
    for given, name, kinds in (
        (words.uidl_format, "--uidl-format", ("dovecot", "cyrus")),
        (words.dovecot_config, "--dovecot-config", ("dovecot",)),
        (words.uidvalidity, "--uidvalidity", ("cyrus",)),
        (words.reuse_xuidl, "--reuse-xuidl", ("dovecot",)),
        (words.source, "--source", KINDS),
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
    return _remote(words.kind, users, asked, remote)


def _place(words: Words, user: str) -> str | None:
    if words.source is None:
        return None
    if user in (".", "..") or "/" in user:
        raise StoreTrouble(detail="this name cannot be a folder's")
    return os.path.expanduser(words.source).replace("{user}", user)


def _dovecot(words: Words) -> Opener:
    settings = dovecot.Settings()
    if words.dovecot_config is not None:
        text = words.dovecot_config.read_text(encoding="utf-8", errors="replace")
        try:
            settings = dovecot.settings_of(text)
        except NotRead as error:
            raise click.BadParameter(str(error), param_hint="--dovecot-config") from None
    if words.uidl_format is not None:
        settings = settings._replace(format=words.uidl_format)
    if words.reuse_xuidl is not None:
        settings = settings._replace(reuse_xuidl=words.reuse_xuidl)
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
            yield Dovecot(place, settings, maildir)

    return opened


def _courier(words: Words) -> Opener:
    @contextmanager
    def opened(user: str, maildir: AdoptedMaildir, yes: bool) -> Iterator[Source]:
        with folder(_place(words, user), maildir) as place:
            yield Courier(place)

    return opened


def _cyrus(words: Words, *, several: bool) -> Opener:
    form = words.uidl_format or "cyrus"
    if form not in cyrus.FORMATS:
        raise click.UsageError(f"--uidl-format of cyrus is one of {', '.join(cyrus.FORMATS)}")
    if words.source is None:
        raise click.UsageError(
            "--from cyrus needs --source: its spool (partition-default), or the folder of the inbox"
        )
    spool = Spool(words.source)
    if several and spool.is_inbox:
        raise click.BadParameter("this is one inbox: give the spool, or put {user}", param_hint="--source")

    @contextmanager
    def opened(user: str, maildir: AdoptedMaildir, yes: bool) -> Iterator[Source]:
        path = spool.inbox(user)
        with folder(path, maildir) as place:
            yield Cyrus(place, form, words.uidvalidity, path)

    return opened


def _other_store(words: Words) -> Opener:
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


def _remote(url: str, users: Sequence[str], asked: str | None, options: Mapping[str, object]) -> Opener:
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
            yield Remote(client, name)
            client.quit()

    return opened
