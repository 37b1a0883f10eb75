"""``pop3toy user``: the users of the accounts file, or those in an object store."""

from __future__ import annotations

import getpass
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import click

from ...auth.accounts import admin
from ...auth.accounts.passwd_file import parse
from ...auth.accounts.schemes import MADE
from ...config.settings import Settings
from ...errors import CannotStart
from ...interfaces import IStoreAdmin
from ...routing.quota import parse_quota
from ...stores.registry import kind_of
from ..options import accounts_place, administration, printable, with_settings
from .app_passwords import app_password
from .listing import as_json, as_lines, held
from .mistakes import Command, canonical_name, mistakes, name_argument, with_accounts
from .renaming import rename as rename_user

__all__ = ["user"]


#: What the accounts file is for.
_ACCOUNTS = "as twistd pop3toy --accounts has it"


def _scheme_option(default: str | None, means: str) -> Callable[[Command], Command]:
    return click.option(
        "-s",
        "--scheme",
        type=click.Choice(sorted(MADE), case_sensitive=False),
        default=default,
        show_default=means,
        help="How the password is kept. PLAIN keeps it readable, which APOP and CRAM-MD5 need.",
    )


_stdin_option = click.option(
    "--stdin", "from_stdin", is_flag=True, help="Read the password from standard input, for scripts."
)


@click.group()
def user() -> None:
    """Users: add, passwd, rename, disable, remove, list and the rest.

    They are kept in the accounts file, one line for each. The server reads it
    again by itself when it changes. With --accounts objects they are kept in
    the object store that --store names, for all servers that share it.
    """


@user.command()
@with_accounts
@_scheme_option("ARGON2ID", "ARGON2ID")
@_stdin_option
@click.option("-q", "--quota", metavar="SIZE", help="How much mail the user may keep: 500M, 2G.")
@click.argument("name")
def add(accounts: admin.Where, scheme: str, from_stdin: bool, quota: str | None, name: str) -> None:
    """Add a user; the password is asked for.

    Makes the accounts file if it is missing. A Maildir is made at the first
    login or delivery, if the server was started with --create. In an object
    store the mailbox is made at once.
    """
    settings = {} if quota is None else {"quota": _quota(quota, "--quota")}
    with mistakes():
        admin.add_user(accounts, name, _password(from_stdin), scheme=scheme, settings=settings)
        others = admin.differing_in_case(accounts, name)
    click.echo(f"User {name} is in {accounts}{f', with the quota {_in_octets(quota)}' if quota else ''}.")
    _warn_of_alike(name, others)


@user.command(name="import")
@with_accounts
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def import_(accounts: admin.Where, file: Path) -> int:
    """Add the users of an accounts FILE, with passwords and settings as they are.

    For moving to accounts in an object store, whose users keep their passwords
    so. Dovecot's passwd-file will do. Who is there already stays as it is.
    """
    with mistakes():
        text = file.read_bytes()
        for name, new in admin.import_users(accounts, text):
            if new:
                click.echo(f"User {name} is in {accounts}.")
            else:
                click.echo(f"User {name} was there already, and stays as it is.", err=True)
    problems = parse(text).problems
    for problem in problems:
        click.echo(f"{file}: {problem}", err=True)
    return os.EX_DATAERR if problems else os.EX_OK


@user.command()
@with_accounts
@_scheme_option(None, "as it is now, or ARGON2ID for what is not made any more")
@_stdin_option
@name_argument
def passwd(accounts: admin.Where, scheme: str | None, from_stdin: bool, name: str) -> None:
    """Give a user a new password; it is asked for."""
    with mistakes():
        # First, so that no password is typed for a user who does not exist.
        name = canonical_name(accounts, name)
        admin.set_password(accounts, name, _password(from_stdin), scheme=scheme)
    click.echo(f"User {name} has a new password.")


@user.command(name="quota")
@with_accounts
@name_argument
@click.argument("size", required=False)
def quota_(accounts: admin.Where, name: str, size: str | None) -> None:
    """Say how much mail a user may keep: 500M, 2G, or none for no limit.

    Without SIZE it is shown. pop3toy mailbox list shows how full mailboxes are.
    """
    with mistakes():
        name = canonical_name(accounts, name)
        if size is not None:
            size = _quota(size, "SIZE")
            admin.set_setting(accounts, name, "quota", size)
            click.echo(f"User {name} has the quota {_in_octets(size)}.")
        else:
            account = admin.by_name(accounts).get(name)
            click.echo(_in_octets("none" if account is None else account.settings.get("quota", "none")))


@user.command()
@with_settings(accounts=_ACCOUNTS, must_have_accounts=True, may_have_store=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@name_argument
def remove(settings: Settings, yes: bool, name: str) -> None:
    """Remove a user. The mail stays where it is; del is the same command.

    pop3toy mailbox remove takes the mail away.
    """
    accounts = accounts_place(settings)
    with mistakes():
        name = canonical_name(accounts, name)
        if not yes:
            click.confirm(f"Remove user {name}?", abort=True)
        admin.delete_user(accounts, name)
    mail = f"; the mail is not: pop3toy mailbox remove {name} takes it away"
    # Where mail cannot be looked at there may be some.
    with suppress(CannotStart):
        mailboxes = _mailboxes(settings)
        if mailboxes is not None and held([name], mailboxes)[name] is None:
            mail = ", and had no mailbox"
    click.echo(f"User {name} is gone{mail}.")


user.add_command(remove, "del")
user.add_command(app_password)


@user.command()
@with_accounts
@name_argument
def disable(accounts: admin.Where, name: str) -> None:
    """Let a user log in no more. Mail still comes, and the mailbox stays.

    A session that is open goes on to its end: see pop3toy close.
    """
    with mistakes():
        name = canonical_name(accounts, name)
        admin.set_setting(accounts, name, "nologin", "y")
    click.echo(f"User {name} cannot log in any more; mail still comes.")


@user.command()
@with_accounts
@name_argument
def enable(accounts: admin.Where, name: str) -> None:
    """Let a user log in again who was disabled."""
    with mistakes():
        name = canonical_name(accounts, name)
        admin.remove_setting(accounts, name, "nologin")
    click.echo(f"User {name} can log in.")


@user.command()
@with_settings(accounts=_ACCOUNTS, must_have_accounts=True, may_have_store=True)
@click.option("--no-mailbox", is_flag=True, help="Rename the account alone; the mail stays where it is.")
@name_argument
@click.argument("new")
def rename(settings: Settings, no_mailbox: bool, name: str, new: str) -> None:
    """Call user NAME NEW from now on, with the mailbox and all settings.

    The mailbox is found as the server finds it, by --maildir or --store. It is
    refused with exit status 75 while a session has the mailbox open. What a
    crash has cut short, the same command ends.
    """
    mailboxes = None if no_mailbox else _mailboxes(settings)
    if mailboxes is None and not no_mailbox:
        raise click.UsageError("say where the mail is, as --maildir does, or --no-mailbox")
    accounts = accounts_place(settings)
    with mistakes():
        moved = rename_user(accounts, mailboxes, name, new)
        others = admin.differing_in_case(accounts, new)
    click.echo(f"User {name} is {new} now{', with the mailbox' if moved else ''}.")
    if settings.aliases is not None:
        click.echo(f"Aliases in {settings.aliases} that name {name} have to be changed by hand.", err=True)
    _warn_of_alike(new, others)


@user.command(name="list")
@with_settings(accounts=_ACCOUNTS, must_have_accounts=True, may_have_store=True)
@click.option("--json", "json", is_flag=True, help="As JSON, for programs.")
def list_(settings: Settings, json: bool) -> int:
    """List the users, and the lines that are not understood.

    With --maildir or --store it is told how full each mailbox is, in octets as
    quotas count them. The exit status is 65 if a line or a mailbox cannot be read.
    """
    accounts, mailboxes = accounts_place(settings), _mailboxes(settings)
    with mistakes():
        found = admin.list_users(accounts)
        users = [account for _, account in sorted(found.by_name.items())]
        octets = None if mailboxes is None else held([account.name for account in users], mailboxes)
        if json:
            click.echo(as_json(accounts, users, octets))
        else:
            for line in as_lines(users, octets):
                click.echo(line)
    problems = [f"{accounts}: {problem}" for problem in found.problems]
    problems += [f"{name}: {why}" for name, why in (octets or {}).items() if isinstance(why, str)]
    for problem in problems:
        click.echo(printable(problem), err=True)
    return os.EX_DATAERR if problems else os.EX_OK


def _mailboxes(settings: Settings) -> IStoreAdmin | None:
    """What administers the store, where the settings name one."""
    if kind_of(settings.store).admin is None or not settings.store.for_each_user:
        return None
    return administration(settings)


def _quota(text: str, where: str) -> str:
    """A quota as the accounts file has it, without blanks."""
    try:
        parse_quota(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=where) from None
    return "".join(text.split())


def _in_octets(quota: str) -> str:
    """A quota with what it comes to."""
    try:
        octets = parse_quota(quota)
    except ValueError as error:
        return f"{quota} ({error})"
    return quota if octets is None else f"{quota} ({f'{octets:,} octets' if octets else 'no mail fits'})"


def _password(from_stdin: bool) -> str:
    """The password, read or asked for.

    :raises ValueError: if that cannot be.
    """
    if from_stdin:
        try:
            return sys.stdin.buffer.readline().removesuffix(b"\n").decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError("the password is not UTF-8") from None
    with warnings.catch_warnings():
        # Python would ask all the same, and show what is typed.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            answer: str = click.prompt("Password", hide_input=True, confirmation_prompt="The same again")
        except getpass.GetPassWarning:
            raise ValueError("there is no terminal to ask for the password; --stdin reads it") from None
    return answer


def _warn_of_alike(name: str, others: list[str]) -> None:
    """Tell of users whose names differ in case alone."""
    if others:
        click.echo(
            f"Warning: {' and '.join([*others, name])} differ in case alone. From now on each of them logs in"
            " and gets mail by the name as it is written here, and other spellings are nobody's.",
            err=True,
        )
