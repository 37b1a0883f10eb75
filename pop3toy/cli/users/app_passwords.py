"""``pop3toy user app-password``: further secrets of a user."""

from __future__ import annotations

import json

import click

from ...auth.accounts import admin
from ...auth.app_passwords import admin as app_passwords
from .mistakes import canonical_name, mistakes, name_argument, with_accounts

__all__ = ["app_password"]


@click.group(name="app-password")
def app_password() -> None:
    """App passwords: one for each program or device of a user.

    Each works as the user's password does, at POP3 and submission, and can be
    taken back alone. It is made here, of 128 random bits, and shown once.
    """


@app_password.command()
@with_accounts
@name_argument
@click.argument("app")
def add(accounts: admin.Where, name: str, app: str) -> None:
    """Make an app password of user NAME, called APP: phone, work-pc.

    It is the only thing on standard output.
    """
    with mistakes():
        name = canonical_name(accounts, name)
        secret = app_passwords.add(accounts, name, app)
    click.echo(secret)
    click.echo(f"That is {name}'s app password {app}. It is shown only now, and kept nowhere.", err=True)


@app_password.command(name="list")
@with_accounts
@name_argument
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def list_(accounts: admin.Where, name: str, as_json: bool) -> None:
    """List the app passwords of user NAME: when each was made and used last.

    The day of the last use is in UTC.
    """
    with mistakes():
        found = app_passwords.known(accounts, canonical_name(accounts, name))
    if as_json:
        click.echo(json.dumps([{key: text or None for key, text in one._asdict().items()} for one in found]))
        return
    width = max((len(one.name) for one in found), default=0)
    for one in found:
        made = f"made {one.made}" if one.made else "cannot be read, and lets nobody in"
        click.echo(f"{one.name:{width}}  {made}  {f'used {one.used}' if one.used else 'never used'}")


@app_password.command()
@with_accounts
@name_argument
@click.argument("app")
def revoke(accounts: admin.Where, name: str, app: str) -> None:
    """Take the app password APP of user NAME back.

    It lets nobody in from now on; a session that is open goes on to its end.
    """
    with mistakes():
        name = canonical_name(accounts, name)
        app_passwords.revoke(accounts, name, app)
    click.echo(f"User {name} has no app password {app} any more.")


@app_password.command()
@with_accounts
@name_argument
@click.argument("answer", type=click.Choice(["yes", "no"]))
def only(accounts: admin.Where, name: str, answer: str) -> None:
    """Say whether mail programs of user NAME need an app password.

    With yes the main password is not taken for mail any more; it is for the
    page where users change it (--password-port).
    """
    with mistakes():
        name = canonical_name(accounts, name)
        app_passwords.set_only(accounts, name, answer == "yes")
    click.echo(
        f"User {name} gets mail with app passwords {'only' if answer == 'yes' else 'and the main password'}."
    )
