"""``pop3toy mailbox fetch``."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from ...config.settings import Settings
from ...errors import NoSuchMailbox
from ...moving.fetching import RemoteMailbox
from ...moving.server import Server
from ...stores.copying.counts import Counts, summary
from ...stores.copying.journal import Journal
from ...stores.copying.mailbox import copy_mailbox
from ...stores.copying.messages import Store
from ...stores.registry import kind_of
from ..copying.users import Work, for_each
from ..options import (
    Failed,
    accounts_of,
    administration,
    printable,
    threads_option,
    user_meant,
    with_settings,
    worst,
)
from .servers import account_at, password_for, passwords, reached, server_at, with_servers

__all__ = ["fetch"]


@click.command()
@with_settings(store=True, accounts="for who exists: without --create others get no mailbox")
@with_servers
@click.option("--all", "all_", is_flag=True, help="For all users of --users-file.")
@click.option("-c", "--create", is_flag=True, help="Make mailboxes that are missing, without --accounts too.")
@threads_option(2)
@click.argument("words", metavar="[USER] pop3://[LOGIN@]HOST[:PORT]", nargs=-1, required=True)
def fetch(
    settings: Settings,
    all_: bool,
    create: bool,
    threads: int,
    words: tuple[str, ...],
    password_file: Path | None,
    users_file: Path | None,
    cafile: Path | None,
    insecure: bool,
    allow_cleartext: bool,
    timeout: float,
) -> int:
    """Bring a mailbox over from another server, by POP3.

    Messages keep their unique-ids and their order, so that mail programs that leave mail
    on the server fetch nothing twice after the move. Nothing is deleted there. Both
    servers may be in use meanwhile: what comes there later is brought by the next run,
    and what a user has deleted here does not come again.

    The connection is encrypted (STLS; pop3s:// for TLS from the start) and the
    certificate is checked. LOGIN is the user's name there, if it is another; with --all
    it is the name in the file, of which a domain is left out here if that is needed.

    Interrupted or killed, run it again: it goes on where it was. The exit status is 0 if
    all is here, 65 if messages could not be brought, 69 if the server cannot be reached,
    77 if its certificate is not to be trusted, and 75 if another try may help.

    \b
      pop3toy mailbox fetch -m '/srv/mail/{user}' ann pop3://mail.example.org
      pop3toy mailbox fetch --all --users-file users pop3://mail.example.org
    """
    if len(words) != (1 if all_ else 2):
        raise click.UsageError(
            "--all goes with an address alone" if all_ else "A user and an address are wanted, or --all."
        )
    if all_ and users_file is None:
        raise click.UsageError("--all needs --users-file: nobody else knows the users' passwords")
    if password_file is not None and users_file is not None:
        raise click.UsageError("--password-file and --users-file exclude each other")
    server = server_at(
        words[-1],
        "pop3://HOST",
        cafile=cafile,
        insecure=insecure,
        allow_cleartext=allow_cleartext,
        timeout=timeout,
    )
    if all_ and server.user is not None:
        raise click.UsageError("with --all the file says who logs in, not the address")
    copied = kind_of(settings.store).copied
    if copied is None:
        raise click.UsageError("mail cannot be fetched into this store")
    target = copied(settings.store)
    if all_ and not settings.store.for_each_user:
        raise click.UsageError("all users share one mailbox: name the one user whose mail it is")
    given = passwords(users_file)
    logins = _logins(settings, list(given) if all_ else [words[0]], server, create=create)
    reached(server)
    secrets = {user: password_for(name, server, password_file, given) for user, name in logins.items()}
    counts = Counts()
    with Work("Fetching") as work:
        failed = for_each(
            list(logins),
            work,
            lambda user: _fetch(user, logins[user], secrets[user], server, target, work),
            threads=threads,
            counts=counts,
        )
    click.echo(summary(len(logins) - len(failed), counts, done="fetched", taken="were deleted here since"))
    return worst([*failed.values(), os.EX_DATAERR if counts.failed else os.EX_OK])


def _logins(settings: Settings, names: list[str], server: Server, *, create: bool) -> dict[str, str]:
    """Whose mailbox is brought, and as whom somebody logs in for it there.

    :raises Failed: if a user is unknown, or two names mean the same.
    """
    admin = administration(settings)
    accounts = accounts_of(settings)
    found: dict[str, str] = {}
    for name in names:
        user = user_meant(settings, admin, name)
        if not (create or user in accounts or admin.exists(user)):
            raise Failed(f"{printable(name)} is no user here; --create makes a mailbox", os.EX_NOUSER)
        if user in found:
            raise Failed(f"{printable(name)} and {printable(found[user])} are one user here", os.EX_CONFIG)
        found[user] = server.user or name
    return found


def _fetch(user: str, name: str, password: str, server: Server, target: Store, work: Work) -> Counts:
    address = f"pop3://{name}@{server}"

    def known() -> set[bytes]:
        try:
            with target.mailbox(user) as ours:
                journal = Journal(ours.journal(address))
                return {message.uid for message in ours.list()} | journal.done | journal.same
        except NoSuchMailbox:
            return set()

    def tell(sentence: str) -> None:
        work.tell(f"{user}: {sentence}")

    account = account_at(server, name, password, tell, work.stopped)
    return copy_mailbox(
        user,
        RemoteMailbox(address, user, account, known=known, now=time.time),
        target,
        tell=tell,
        progress=work.progress,
        stop=work.stopped,
    )
