"""Options that several commands have, and how they use the server's parts without a reactor.

A command finds accounts and mail as the server does: by options, and by the same file.  The command line
and the environment go before the file.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast, overload

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..auth.accounts.admin import Where, by_name, canonical_name, list_users
from ..auth.accounts.passwd_file import Account
from ..auth.accounts.records import AccountsInRecords
from ..auth.names import NameIndex
from ..config import toml
from ..config.settings import Settings
from ..config.table import merged, settings_of
from ..config.values import OBJECTS
from ..errors import BadSetting, CannotStart, NoSuchMailbox, Refusal, StoreTrouble
from ..interfaces import IDelivery, IMailStore, IStoreAdmin, MaybeDeferred, is_deferred
from ..net.threads import NoThreads
from ..option import options_of
from ..printable import printable as escaped
from ..routing.quota import HasSettings, quota_of
from ..stores.registry import STORES, OpenStore, StoreContext, kind_of

__all__ = [
    "Failed",
    "FloatRange",
    "IntRange",
    "accounts_of",
    "accounts_place",
    "administration",
    "complete_user",
    "config_option",
    "config_option_of_all",
    "delivery",
    "failure",
    "failure_of",
    "listed",
    "maildrops",
    "names_for",
    "no_mailbox",
    "printable",
    "result_of",
    "store_of",
    "threads_option",
    "user_meant",
    "with_settings",
    "worst",
    "wrong",
]

_T = TypeVar("_T")
_Command: TypeAlias = Callable[..., object]
_Decorator: TypeAlias = Callable[[_Command], _Command]


class _InWords:
    """A number in a range, of which it is said in words what is wrong with one."""

    min: Any
    max: Any

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """See :class:`click.ParamType`."""
        try:
            number = super().convert(value, parameter, context)  # type: ignore[misc]
            if math.isfinite(number):
                return number
        except click.BadParameter:
            pass
        kind = "whole number" if isinstance(self, click.IntRange) else "number"
        least = f"{self.min or 0:g}"
        extent = f"of {least} or more" if self.max is None else f"from {least} to {self.max:.0f}"
        raise click.BadParameter(f"{value!r} is no {kind} {extent}", ctx=context, param=parameter)


class IntRange(_InWords, click.IntRange):
    """See :class:`click.IntRange`."""


class FloatRange(_InWords, click.FloatRange):
    """See :class:`click.FloatRange`."""


def threads_option(default: int) -> _Decorator:
    """``--threads`` of commands that work for many users."""
    return click.option(
        "--threads",
        type=IntRange(1, 64),
        default=default,
        show_default=True,
        help="For how many users at the same time.",
    )


def _before_the_command(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """``--config`` may also stand before the command's name; there it goes before the environment."""
    if context.get_parameter_source("config") is ParameterSource.COMMANDLINE:
        return path
    return context.find_root().params.get("config") or path


_config = partial(
    click.option,
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file of options, as twistd pop3toy --config has it: where accounts and mail are.",
)
config_option = _config(envvar="POP3TOY_CONFIG", show_envvar=True, callback=_before_the_command)
#: The same before the commands' names.
config_option_of_all = _config()

#: The kinds of store that can be administered, and the options that say where each is.
_KINDS = [kind for kind in STORES if kind.admin]
_STORES = [
    one
    for kind in _KINDS
    for one in options_of(kind.settings)
    if one.name == kind.key or one.name in kind.found_by
]
#: Those of the kinds that keep accounts beside the mail.
_STORES_WITH_ACCOUNTS = [
    one for one in _STORES if any(one in options_of(kind.settings) for kind in _KINDS if kind.accounts)
]


def with_settings(
    *,
    store: bool = False,
    accounts: str | None = None,
    must_have_accounts: bool = False,
    may_have_store: bool = False,
    status: int | None = None,
) -> _Decorator:
    """Give a command ``settings``, made of its options and of the file.

    :param store: whether it works on mailboxes, and hence needs a store that outlives the server.
    :param accounts: what the accounts file is for; ``None`` if the command has no use for it.
    :param must_have_accounts: whether the command cannot work without one; it may be in a store.
    :param may_have_store: whether it does more where it is said where the mail is.
    :param status: the exit status for settings that are wrong; if not given, that of a mistake on the
        command line, or in a file.
    """
    options: list[_Decorator] = [config_option]
    names: list[str] = []
    if accounts is not None:
        names.append("accounts")
        options.append(
            click.option(
                "-a",
                "--accounts",
                envvar="POP3TOY_ACCOUNTS",
                # As text: ./objects is a file, and objects is the store.
                type=click.Path(dir_okay=not must_have_accounts),
                metavar="FILE",
                show_envvar=True,
                help=f"The accounts file, {accounts}; with --store the word objects for accounts kept there.",
            )
        )
    for one in _STORES if store or may_have_store else _STORES_WITH_ACCOUNTS if must_have_accounts else ():
        names.append(one.name)
        options.append(
            click.option(
                *([f"-{one.short}"] if one.short else []),
                f"--{one.name}",
                envvar=_variable(one.name),
                metavar=one.kind.metavar,
                show_envvar=True,
                help=one.help,
            )
        )
    needed = [(f"[{one.table}]", one.name) for one in _STORES if one.name in {kind.key for kind in _KINDS}]

    def decorate(command: _Command) -> _Command:
        @wraps(command)
        def run(config: Path | None, **words: object) -> object:
            context = click.get_current_context()
            given: dict[str, object] = {}
            by_variables: dict[str, object] = {}
            for name in names:
                value = words.pop(name.replace("-", "_"))
                source = context.get_parameter_source(name.replace("-", "_"))
                if value is not None:
                    (by_variables if source is ParameterSource.ENVIRONMENT else given)[name] = str(value)
            # A store that an option chooses takes the place of the variables' too.
            on_line, given = given, merged(by_variables, given)
            in_file: dict[str, object] = {}
            try:
                if config is not None:
                    in_file = toml.read(str(config))
                settings = settings_of(merged(in_file, given))
                if store and kind_of(settings.store).admin is None:
                    raise _missing(config, needed)
                uses_store = store or settings.accounts_in_store
                if uses_store and (why_not := kind_of(settings.store).one_process(settings.store)):
                    # Mail would be gone when the command ends.
                    raise BadSetting(kind_of(settings.store).key, f": {why_not}")
                if must_have_accounts and settings.accounts is None:
                    raise _missing(config, [("[accounts]", "accounts")])
                return command(settings=settings, **words)
            except CannotStart as why:
                if status is None and isinstance(why, BadSetting) and why.option in given:
                    variable = why.option in by_variables and why.option not in on_line
                    hint = _variable(why.option) if variable else f"--{why.option}"
                    raise wrong(hint, why.text) from None
                line = toml.located(why, str(config), in_file, given)
                raise Failed(printable(line), os.EX_CONFIG if status is None else status) from None

        decorated: _Command = run
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def _variable(option: str) -> str:
    """The variable of the environment that says the same as an option."""
    return f"POP3TOY_{option.replace('-', '_').upper()}"


def _missing(config: Path | None, needed: list[tuple[str, str]]) -> Exception:
    """The error where neither the command line nor the file has one of these options."""
    if config is not None:
        names = " or ".join(f"{table} {name}" for table, name in needed)
        return CannotStart(f"{config}: {names} is missing, and no option is given for it")
    context = click.get_current_context()
    parameters = {one.name: one for one in context.command.params}
    hint = " or ".join(parameters[name.replace("-", "_")].get_error_hint(context) for _, name in needed)
    return click.MissingParameter(
        "A file for --config can say it, too.", ctx=context, param_hint=hint, param_type="option"
    )


def store_of(config: Path | None, given: Mapping[str, object]) -> Any:
    """The settings of a store that a file of options has, or the command line, or both together.

    :param config: the file, if there is one.
    :param given: what the command line says, by the options' names.
    :raises pop3toy.errors.BadSetting: for what of that cannot be.
    :raises Failed: for what is wrong with the file, or is not installed.
    """
    in_file: dict[str, object] = {}
    try:
        if config is not None:
            in_file = toml.read(str(config))
        settings = settings_of(merged(in_file, given)).store
        kind = kind_of(settings)
        if kind.admin is None:
            raise CannotStart(f"{config}: [store] maildir or [store] store is missing")
        if why_not := kind.one_process(settings):
            raise BadSetting(kind.key, f": {why_not}")
        kind.check(settings)
    except CannotStart as why:
        if isinstance(why, BadSetting) and why.option in given:
            raise
        status = os.EX_UNAVAILABLE if config is None else os.EX_CONFIG
        raise Failed(printable(toml.located(why, str(config), in_file, given)), status) from None
    return settings


def accounts_place(settings: Settings) -> Where:
    """Where the settings say that accounts are: the file's path, or what asks the store."""
    assert settings.accounts is not None, "asked for where there are some"
    if not settings.accounts_in_store:
        return settings.accounts
    records = kind_of(settings.store).accounts
    assert records is not None, "the settings were checked"
    return AccountsInRecords(records(settings.store, None))


def accounts_of(settings: Settings) -> Mapping[str, Account]:
    """The accounts by name, those of a store asked for as they are wanted; none without any.

    :raises OSError: if they cannot be read; ``StoreTrouble`` for those of a store, also later.
    """
    return {} if settings.accounts is None else by_name(accounts_place(settings))


def names_for(settings: Settings, name: str) -> set[str]:
    """The names of the accounts among which this name is looked for: all of a file, of a store the one."""
    if settings.accounts_in_store:
        found = canonical_name(accounts_place(settings), name)
        return set() if found is None else {found}
    return set(accounts_of(settings))


def user_meant(settings: Settings, admin: IStoreAdmin, name: str) -> str:
    """The user whose mailbox is meant: of exactly this name, or the account that it means at a login."""
    try:
        exact = admin.exists(name)
    except StoreTrouble:
        # The command runs into it again, and tells what is wrong.
        exact = True
    return name if exact else NameIndex(names_for(settings, name)).find(name) or name


def listed(settings: Settings) -> bool:
    """Whether the settings say who the users are."""
    return settings.accounts is not None or bool(settings.users)


def administration(settings: Settings) -> IStoreAdmin:
    """What administers the store of a command.

    :raises pop3toy.errors.BadSetting: if its place cannot be used.
    """
    kind = kind_of(settings.store)
    kind.check(settings.store)
    assert kind.admin is not None, "with_settings sees to it"
    return kind.admin(settings.store)


def delivery(
    settings: Settings, *, create: bool, accounts: Mapping[str, HasSettings] | None = None
) -> IDelivery:
    """The delivery of a command's store; all its Deferreds have fired.

    :param create: whether a missing mailbox is made.
    :param accounts: users by name, for quotas.
    """
    return _opened(replace(settings.store, create=create), accounts or {}).delivery


def maildrops(settings: Settings) -> IMailStore:
    """What opens mailboxes with their lock, and makes none; all its Deferreds have fired."""
    store = replace(settings.store, create=False)
    if getattr(store, "node", None) is not None:
        # A server of that name would be taken for one that has ended, and its sessions' locks for left over.
        store = replace(store, node=None)
    return _opened(store, {}).store


def _opened(store: Any, accounts: Mapping[str, HasSettings]) -> OpenStore:
    from twisted.internet import reactor

    context = StoreContext(
        # Asked for the time alone; it does not run.
        clock=cast(IReactorTime, reactor),
        threads=lambda name, size: NoThreads(),
        quota=quota_of(accounts.get),
        users=(),
        host=socket.gethostname(),
    )
    return kind_of(store).open(store, context)


def complete_user(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete a user's name from the accounts file, if an option or a variable names it."""
    path = context.params.get("accounts") or os.environ.get("POP3TOY_ACCOUNTS")
    config = context.params.get("config")
    try:
        if path is None and config is not None:
            path = toml.read(str(config)).get("accounts")
        # Those of a store would take a while.
        names = list_users(path).by_name if path not in (None, OBJECTS) else ()
    except (OSError, CannotStart):
        names = ()
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def printable(text: str) -> str:
    """Text in one line that steers no terminal; file names may hold any octet."""
    return escaped(text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


class Failed(Exception):
    """A command cannot do what it was asked to; its text is one line.

    :param status: the exit status, of sysexits.h.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def failure(error: Exception) -> tuple[str, int]:
    """What an exception says to whoever runs a command, in a line, and the exit status."""
    if isinstance(error, Failed):
        return str(error), error.status
    if isinstance(error, Refusal):
        return error.detail or error.text, os.EX_TEMPFAIL
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        kinds = {FileNotFoundError: os.EX_NOINPUT, PermissionError: os.EX_NOPERM}
        return printable(f"{where}{error.strerror or error}"), kinds.get(type(error), os.EX_IOERR)
    # A bug.
    return f"{type(error).__name__}: {printable(str(error))}", os.EX_SOFTWARE


def failure_of(user: str, error: Exception, status: int) -> tuple[str, int]:
    """The same of one user among many, for whom alone it has failed.

    :param status: for what may happen; a bug has its own.
    :raises BrokenPipeError: if that is the error: nobody reads the others' either.
    """
    if isinstance(error, BrokenPipeError):
        raise error
    text, own = failure(error)
    line = text if isinstance(error, Failed) else f"{user}: {text}"
    return line, own if own == os.EX_SOFTWARE else status


def worst(statuses: Iterable[int]) -> int:
    """The exit status of a command, of those that it has for each user: what wants to be looked at first."""
    found = set(statuses)
    order = (os.EX_SOFTWARE, os.EX_TEMPFAIL, os.EX_DATAERR, os.EX_NOUSER)
    return next((one for one in order if one in found), os.EX_OK)


def wrong(said: str, text: str) -> click.UsageError:
    """What to raise where something that was said cannot be.

    :param said: the option, or what the usage calls it.
    :param text: what is wrong, to be read behind it, as of a ``BadSetting``.
    """
    if text.startswith(":"):
        return click.BadParameter(printable(text.lstrip(": ")), param_hint=said)
    return click.UsageError(printable(f"{said}{text}"))


def no_mailbox(user: str, error: NoSuchMailbox) -> Failed:
    """That a user has no mailbox, and what to do about it."""
    return Failed(f"{user} has no mailbox here ({error.detail})", os.EX_NOUSER)


@overload
def result_of(result: Deferred[_T]) -> _T: ...
@overload
def result_of(result: MaybeDeferred[_T]) -> _T: ...
def result_of(result: object) -> object:
    """A result, or what a Deferred holds; it has fired, since a command's threads work at once.

    :raises Exception: what it failed with.
    """
    if not is_deferred(result):
        return result
    outcome: list[object] = []
    result.addBoth(outcome.append)
    assert outcome, "something waits for a reactor"
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]
