"""``pop3toy mailbox compare``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import click

from ...moving.comparing import Comparison
from ...moving.comparing import compare as compare_mailboxes
from ...moving.server import Server, Trouble
from ..copying.users import Work
from ..options import IntRange, failure, printable
from ..remote import password_of
from .servers import account_at, password_for, passwords, reached, server_at, with_servers

__all__ = ["compare"]

#: The exit status where a mail program would notice the move, and where that could not be found out.
DIFFERENT, NOT_COMPARED = 1, 2


@click.command()
@with_servers
@click.option(
    "--new-password-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Whose first line is the password at NEW, if it is another there.",
)
@click.option(
    "--new-users-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The same users' passwords at NEW, if they are others there.",
)
@click.option(
    "--sample",
    type=IntRange(0),
    default=5,
    show_default=True,
    metavar="N",
    help="Of how many messages of each user all octets are compared.",
)
@click.option("--all-bodies", is_flag=True, help="Compare all octets of all messages.")
@click.option("--json", "json_", is_flag=True, help="Print what was found as JSON.")
@click.argument("old", metavar="pop3://[USER@]OLD")
@click.argument("new", metavar="pop3://[USER@]NEW")
def compare(
    old: str,
    new: str,
    sample: int,
    all_bodies: bool,
    json_: bool,
    password_file: Path | None,
    users_file: Path | None,
    new_password_file: Path | None,
    new_users_file: Path | None,
    cafile: Path | None,
    insecure: bool,
    allow_cleartext: bool,
    timeout: float,
) -> int:
    """Look whether mail programs would notice a move from one server to another.

    Number, order, sizes and unique-ids of all messages, and all octets of some, are
    compared by POP3, as mail programs see them: before the switch this says what they
    would download again. Nothing is changed at either server; each user logs in once at
    each, so no mail program should be fetching meanwhile.

    The user and the password are those of both servers, unless something else is said.
    The exit status is 0 if nobody would notice, 1 if somebody would download something
    again, or miss something, and 2 if that could not be found out.

    \b
      pop3toy mailbox compare pop3://ann@old.example.org pop3://new.example.org
      pop3toy mailbox compare --users-file users pop3://old.example.org pop3://new.example.org
    """
    servers = [
        server_at(
            url,
            hint,
            cafile=cafile,
            insecure=insecure,
            allow_cleartext=allow_cleartext,
            timeout=timeout,
        )
        for url, hint in ((old, "OLD"), (new, "NEW"))
    ]
    theirs, ours = servers
    if (theirs.user is None) == (users_file is None):
        raise click.UsageError("who logs in? pop3://USER@OLD says it, or --users-file for several users")
    if users_file is not None and (ours.user or password_file or new_password_file):
        raise click.UsageError("with --users-file that says who logs in, and the passwords")
    if new_users_file is not None and users_file is None:
        raise click.UsageError("--new-users-file goes with --users-file")
    given, given_new = passwords(users_file), passwords(new_users_file)
    for server in servers:
        reached(server)
    found = []
    with Work("Comparing") as work:
        for user in given or [theirs.user or ""]:
            secret = password_for(user, theirs, password_file, given)
            new_secret = secret
            if new_password_file is not None:
                new_secret = password_of(new_password_file)
            elif given_new:
                new_secret = password_for(user, ours, None, given_new)
            found.append(
                _compared(theirs, ours, user, (secret, new_secret), None if all_bodies else sample, work)
            )
    if json_:
        click.echo(json.dumps([one.as_json() for one in found], indent=2))
    else:
        click.echo("\n\n".join("\n".join(_report(one)) for one in found))
        if len(found) > 1:
            click.echo(f"\n{len(found)} users: {sum(one.same for one in found)} would notice nothing")
    if any(not one.same and not one.error for one in found):
        return DIFFERENT
    return NOT_COMPARED if any(one.error for one in found) else os.EX_OK


def _compared(
    theirs: Server, ours: Server, user: str, secrets: tuple[str, str], sample: int | None, work: Work
) -> Comparison:
    def tell(sentence: str) -> None:
        work.tell(f"{user}: {sentence}")

    try:
        return compare_mailboxes(
            user,
            account_at(theirs, user, secrets[0], tell).log_in,
            account_at(ours, ours.user or user, secrets[1], tell).log_in,
            sample=sample,
            progress=work.progress,
        )
    except Trouble as trouble:
        return Comparison(user, error=trouble.detail)
    except Exception as error:
        # Of one user: the others are compared.
        return Comparison(user, error=failure(error)[0])


def _report(found: Comparison) -> Iterator[str]:
    """The lines about one user."""
    if found.error:
        yield f"{printable(found.user)}: not compared: {printable(found.error)}"
        return
    yield f"{printable(found.user) + ' ':20}{'OLD':>15} {'NEW':>15}"
    yield f"  {'messages':18}{found.old.messages:>15,} {found.new.messages:>15,}"
    yield f"  {'octets':18}{found.old.octets:>15,} {found.new.octets:>15,}"
    yield f"  {'unique-ids':18}{found.common:>15,} at both"
    for count, place, uids in (
        (found.missing + found.again, "at OLD alone", found.missing_uids),
        (found.unknown, "at NEW alone", found.unknown_uids),
    ):
        if count:
            yield f"  {'':18}{_counted(count, place, uids)}"
    if found.common:
        moved = f"{found.moved:>15,} elsewhere" if found.moved else f"{'the same':>15}"
        yield f"  {'order':18}{moved}"
        differ = _counted(found.other_size, "differ", found.other_size_uids)
        yield f"  {'sizes':18}{differ if found.other_size else 'the same'.rjust(15)}"
    if found.bodies:
        yield f"  {'contents':18}{found.bodies:>15,} compared{'' if found.other_body else ', all the same'}"
    if found.other_body:
        of_header = f", {found.other_header_only:,} in the header alone" if found.other_header_only else ""
        yield f"  {'':18}{_counted(found.other_body, 'differ', found.other_body_uids)}{of_header}"
    for name, side in (("OLD", found.old), ("NEW", found.new)):
        for fault in side.faults:
            yield f"  {name}: {printable(fault)}"
    yield from (f"  {sentence}" for sentence in _verdict(found))


def _counted(count: int, what: str, uids: list[str]) -> str:
    return f"{count:>15,} {what} ({', '.join(uids)}{', ...' if count > len(uids) else ''})"


def _verdict(found: Comparison) -> Iterator[str]:
    if found.again or (found.unknown and found.missing):
        yield (
            f"Clients that leave mail on the server would download {_messages(found.unknown)} again"
            f" ({found.unknown_octets:,} octets)."
        )
    elif found.unknown:
        yield f"{_messages(found.unknown)} at NEW alone: new mail, which clients fetch once."
    if found.missing:
        yield f"{_messages(found.missing)} not at NEW: who has not fetched them loses them."
    if found.moved:
        yield "Clients that know messages by their order (Outlook, Gmail) may download them again."
    if found.other_body:
        yield f"{_messages(found.other_body)} not the same at NEW."
    if found.same and not found.unknown:
        yield "Clients would download nothing again."


def _messages(count: int) -> str:
    return f"{count:,} message{'s'[: count != 1]}"
