"""``pop3toy store copy``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import click

from ...auth.accounts.records import AccountsInRecords
from ...errors import BadSetting, CannotStart
from ...stores.copying.counts import Counts, summary
from ...stores.copying.mailbox import copy_mailbox
from ...stores.copying.messages import Store
from ...stores.copying.verify import verify_mailbox
from ...stores.registry import Maildirs, Objects, kind_of
from ..options import Failed, failure_of, printable, threads_option, worst, wrong
from .users import Work, for_each

__all__ = ["copy", "store_at"]

_Command: TypeAlias = Callable[..., object]

_HELP = {
    "endpoint": ("URL", "Where it is, unless it is the cloud's own"),
    "credentials": ("FILE", "A file with credentials, in place of the environment"),
    "region": ("NAME", "Its region"),
}


def _with_places(command: _Command) -> _Command:
    """The options that say how object storage is reached: for both stores, and for each."""
    for option, (metavar, sentence) in reversed(_HELP.items()):
        for side, of in (
            ("to", "TO's alone"),
            ("from", "FROM's alone"),
            ("store", "for whichever of both is object storage"),
        ):
            help_ = f"{sentence}; {of}."
            command = click.option(f"--{side}-{option}", metavar=metavar, help=help_)(command)
    return command


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.argument("users", metavar="[USER]...", nargs=-1)
@click.option("--delete", is_flag=True, help="Remove from TO what was copied and is gone from FROM.")
@click.option("--verify", is_flag=True, help="In the end compare all messages, octet for octet.")
@click.option(
    "--accounts", is_flag=True, help="Copy the accounts as well, which both stores keep with the mail."
)
@threads_option(4)
@_with_places
def copy(
    source: str,
    target: str,
    users: tuple[str, ...],
    delete: bool,
    verify: bool,
    accounts: bool,
    threads: int,
    **places: str | None,
) -> int:
    """Copy the mail of all users, or of these, from one store to another.

    A store is a path of Maildirs, such as '/srv/mail/{user}' (or maildir:PATH), or an
    object storage, such as s3://mail. Messages keep their unique-ids and their order, so
    that no mail program fetches anything twice after the move. Each message is looked at
    when it is there, by the store's checksum or by reading it again.

    Servers may use both stores meanwhile: what vanishes is skipped, what comes is
    brought by the next run. After an interruption run the same again: it goes on.
    Let one run at a time copy a user's mail into a store.

    \b
    To move without losing or repeating anything:
      1. pop3toy store copy FROM TO            while all goes on; it takes its time
      2. the same with --delete                again and again, until it is quick
      3. stop the servers, or let them drain; mail waits with the MTA meanwhile
      4. pop3toy store copy --delete --verify FROM TO
      5. start the servers with TO

    And back: the same with FROM and TO exchanged. What users have removed from TO since
    it was copied does not come again, and --delete removes only what copying brought,
    either way; other mail in TO is never touched. Use --delete while no client uses TO.

    From Maildir to Maildir marks such as "seen" are kept, else they are lost: POP3 does
    not show them. No quota keeps anything out. The exit status is 0 if all is there, 65
    if messages could not be read or differ, 67 if there is no such user, and 75 if
    another try may help.

    \b
      pop3toy store copy '/srv/mail/{user}' s3://mail --to-endpoint https://s3.example.org
    """
    theirs, ours = (_settings(place, side, places) for side, place in (("from", source), ("to", target)))
    if accounts and not (isinstance(theirs, Objects) and isinstance(ours, Objects)):
        raise click.UsageError("--accounts is for two object storages: Maildirs hold no accounts")
    from_, to = _opened(theirs), _opened(ours)
    if from_.address == to.address and places["from_endpoint"] == places["to_endpoint"]:
        raise click.UsageError("FROM and TO are the same")
    if not (theirs.for_each_user and ours.for_each_user) and len(users) != 1:
        raise click.UsageError(
            "all users share one Maildir: name the one user whose mail it is, or put {user}"
        )
    failed: dict[str, int] = {}
    counts = Counts()
    if accounts and isinstance(theirs, Objects) and isinstance(ours, Objects):
        copied = _copy_accounts(theirs, ours, users, failed)
        click.echo(f"{copied} account{'s'[: copied != 1]} copied")
    names = [name for name in dict.fromkeys(users or from_.users()) if name not in failed]
    with Work("Copying") as work:
        failed |= for_each(
            names,
            work,
            lambda user: copy_mailbox(
                user,
                from_,
                to,
                delete=delete,
                tell=lambda sentence: work.tell(f"{user}: {sentence}"),
                progress=work.progress,
                stop=work.stopped,
            ),
            threads=threads,
            counts=counts,
        )
    click.echo(
        summary(len(names) - len(failed), counts, done="copied", taken="were removed from TO by their owners")
    )
    if verify:
        with Work("Comparing") as work:
            compared = Counts()
            failed |= for_each(
                [name for name in names if name not in failed],
                work,
                lambda user: verify_mailbox(
                    user,
                    from_,
                    to,
                    tell=lambda sentence: work.tell(f"{user}: {sentence}"),
                    progress=work.progress,
                    stop=work.stopped,
                ),
                threads=threads,
                counts=compared,
            )
        counts.failed += compared.failed
        found = f"{compared.failed} are not as they should be" if compared.failed else "all are the same"
        click.echo(f"{compared.compared} compared: {found}")
    return worst([*failed.values(), os.EX_DATAERR if counts.failed else os.EX_OK])


def store_at(place: str, hint: str) -> Store:
    """A store given by its address alone; object storage is reached as the environment says.

    :param hint: the option that it is the value of.
    """
    nowhere = {f"{side}_{name}": None for side in ("from", "store") for name in _HELP}
    return _opened(_settings(place, "from", nowhere, hint))


def _settings(
    place: str, side: str, places: Mapping[str, str | None], hint: str | None = None
) -> Maildirs | Objects:
    """What a store's address and the options say.

    :param hint: what the address is called, if not by its side.
    """
    how = {name: places[f"{side}_{name}"] or places[f"store_{name}"] for name in _HELP}
    kind, separator, path = place.partition(":")
    settings: Maildirs | Objects
    try:
        if kind == "maildir" and separator:
            settings = Maildirs(path)
        elif "://" not in place:
            if "/" not in place:
                raise BadSetting(
                    "store", f" is a path of Maildirs or an address such as s3://BUCKET, and not {place}"
                )
            settings = Maildirs(place)
        else:
            settings = Objects(
                url=place, endpoint=how["endpoint"], credentials=how["credentials"], region=how["region"]
            )
        if why_not := kind_of(settings).one_process(settings):
            raise BadSetting("store", f": {why_not}")
        kind_of(settings).check(settings)
    except BadSetting as why:
        hint = hint or side.upper()
        if why.option.startswith("store-"):
            option = why.option.removeprefix("store-")
            hint = f"--{side}-{option}" if places[f"{side}_{option}"] else f"--{why.option}"
        raise wrong(hint, why.text) from None
    except CannotStart as why:
        raise Failed(printable(str(why)), os.EX_UNAVAILABLE) from None
    return settings


def _opened(settings: Maildirs | Objects) -> Store:
    copied = kind_of(settings).copied
    assert copied is not None, "each of these can be copied"
    return copied(settings)


def _copy_accounts(theirs: Objects, ours: Objects, users: Sequence[str], failed: dict[str, int]) -> int:
    """Copy the lines of all users who have an account, or of these: how many.

    :param failed: gets the exit status of each user for whom it failed, which a sentence has told.
    """
    accounts = kind_of(theirs).accounts
    assert accounts is not None, "object storage has them"
    into = AccountsInRecords(accounts(ours, None))
    copied = 0
    for record in accounts(theirs, None).all():
        if record.account and (not users or record.login in users):
            try:
                into.edit(record.login, _replacing(record.account))
                copied += 1
            except Exception as error:
                line, failed[record.login] = failure_of(record.login, error, os.EX_TEMPFAIL)
                click.echo(printable(line), err=True)
    return copied


def _replacing(line: str) -> Callable[[bytes], bytes]:
    """Puts a line in the place of all others but the first, which belongs to every file of accounts."""
    return lambda text: b"%b\n%b\n" % (text.partition(b"\n")[0], line.encode("utf-8"))
