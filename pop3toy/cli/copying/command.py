"""``pop3toy store copy``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import click
from click.core import ParameterSource

from ...auth.accounts.records import AccountsInRecords
from ...config import toml
from ...errors import BadSetting, CannotStart
from ...stores.copying.counts import Counts, summary
from ...stores.copying.mailbox import copy_mailbox
from ...stores.copying.messages import Store
from ...stores.copying.verify import verify_mailbox
from ...stores.registry import Maildirs, Objects, kind_of
from ..options import (
    Failed,
    config_option,
    failure_of,
    printable,
    store_of,
    threads_option,
    worst,
    wrong,
)
from .users import Work, for_each

__all__ = ["copy", "store_at"]

_Command: TypeAlias = Callable[..., object]

#: In place of FROM or TO: the store of the file of options.
_CONFIG: Final = "config"

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
@config_option
@_with_places
def copy(
    source: str,
    target: str,
    users: tuple[str, ...],
    delete: bool,
    verify: bool,
    accounts: bool,
    threads: int,
    config: Path | None,
    **places: str | None,
) -> int:
    """Copy the mail of all users, or of these, from one store to another.

    A store is a path of Maildirs, such as '/srv/mail/{user}' (or maildir:PATH), or an
    object storage, such as s3://mail. The word config is the store of a server whose file
    of options --config names, with all that the file says of it. Messages keep their
    unique-ids and their order, so that no mail program fetches anything twice after the
    move. Each message is looked at when it is there, by the store's checksum or by
    reading it again.

    Servers may use both stores meanwhile: what vanishes is skipped, what comes is
    brought by the next run. After an interruption run the same again: it goes on.
    Two at once bring nothing twice: for each user one of them goes on, and the other says
    that it stops. In Maildirs the first goes on, in object storage the last.

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
    not show them. No quota keeps anything out. When a store fails for ten users in a row
    no more are tried. The exit status is 0 if all is there, 65 if messages could not be
    read or differ, 67 if there is no such user, and 75 if another try may help.

    POP3TOY_STORE_ENDPOINT, POP3TOY_STORE_CREDENTIALS and POP3TOY_STORE_REGION tell how
    object storage is reached, as for other commands; of two, that which POP3TOY_STORE
    names.

    \b
      pop3toy store copy '/srv/mail/{user}' s3://mail --to-endpoint https://s3.example.org
      pop3toy store copy --config old.toml config s3://mail
    """
    if _CONFIG in (source, target):
        if config is None:
            raise click.UsageError("the word config is the store of a file of options: name it by --config")
    elif click.get_current_context().get_parameter_source("config") is ParameterSource.COMMANDLINE:
        raise click.UsageError(
            "--config is of no use here: its store is meant by the word config in place of FROM or TO"
        )
    of_variables = os.environ.get("POP3TOY_STORE")
    if ("://" in source) != ("://" in target):
        of_variables = source if "://" in source else target
    theirs, ours = (
        _settings(place, side, places, config, variables=place == of_variables)
        for side, place in (("from", source), ("to", target))
    )
    if accounts and not (isinstance(theirs, Objects) and isinstance(ours, Objects)):
        raise click.UsageError("--accounts is for two object storages: Maildirs hold no accounts")
    from_, to = _opened(theirs), _opened(ours)
    if from_.address == to.address and _endpoint(theirs) == _endpoint(ours):
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
    return _opened(_settings(place, "from", nowhere, hint=hint, variables=True))


def _endpoint(settings: Maildirs | Objects) -> str | None:
    return settings.endpoint if isinstance(settings, Objects) else None


def _settings(
    place: str,
    side: str,
    places: Mapping[str, str | None],
    config: Path | None = None,
    hint: str | None = None,
    *,
    variables: bool,
) -> Maildirs | Objects:
    """What a store's address and the options say.

    :param config: the file of options whose store may be meant.
    :param hint: what the address is called, if not by its side.
    :param variables: whether those of the environment are about it.
    """
    how = {
        f"store-{name}": places[f"{side}_{name}"]
        or places[f"store_{name}"]
        or (variables and os.environ.get(f"POP3TOY_STORE_{name.upper()}"))
        or None
        for name in _HELP
    }
    said: dict[str, object] = {name: value for name, value in how.items() if value is not None}
    in_file = config if place == _CONFIG else None
    kind, separator, path = place.partition(":")
    try:
        if in_file is not None:
            # They are of the other store, perhaps.
            given = said if "store" in toml.read(str(in_file)) else {}
        elif kind == "maildir" and separator:
            given = {"maildir": path}
        elif "://" in place:
            given = {"store": place} | said
        elif "/" in place:
            given = {"maildir": place}
        else:
            raise BadSetting(
                "store", f" is a path of Maildirs or an address such as s3://BUCKET, and not {place}"
            )
        settings: Maildirs | Objects = store_of(in_file, given)
    except BadSetting as why:
        hint = hint or side.upper()
        if why.option.startswith("store-"):
            option = why.option.removeprefix("store-")
            hint = f"--{side}-{option}" if places[f"{side}_{option}"] else f"--{why.option}"
        raise wrong(hint, why.text) from None
    except CannotStart as why:
        raise Failed(printable(str(why)), os.EX_CONFIG) from None
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
