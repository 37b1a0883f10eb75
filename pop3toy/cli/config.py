"""``pop3toy config``: is a file of options right, and what is in force?"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from click.core import ParameterSource
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from ..auth.throttle.connection_limiter import ConnectionLimits
from ..auth.throttle.login_throttle import LoginLimits
from ..config import toml
from ..config.settings import Settings
from ..config.table import OPTIONS, settings_of
from ..errors import CannotStart
from ..net.types import IReactor
from ..option import Option, options_of
from ..smtp.limits import MESSAGE
from .options import Failed, config_option, printable
from .starting.first_file import init

if TYPE_CHECKING:
    from .starting.outside import Finding

__all__ = ["config"]

#: Checkers of Twisted's in whose description there is no password.
_WITHOUT_SECRETS = ("file", "unix", "sshkey", "anonymous")


def _one_file(command: Callable[..., object]) -> Callable[..., object]:
    """Give a command ``file``: its argument, or what --config says there or before the command's name.

    Either goes before POP3TOY_CONFIG.
    """

    @click.argument("file", required=False, type=click.Path(path_type=Path))
    @config_option
    @wraps(command)
    def with_file(file: Path | None, config: Path | None, **more: Any) -> object:
        context = click.get_current_context()
        on_line = context.get_parameter_source("config") is ParameterSource.COMMANDLINE
        if file and (on_line or context.find_root().params.get("config")) and file != config:
            raise click.UsageError(f"FILE is {file} and --config is {config}: which one?")
        return command(file=file or config, **more)

    return with_file


@click.group()
def config() -> None:
    """A file of options: check it, show what is in force."""


@config.command()
@_one_file
@click.option(
    "--user", metavar="NAME", help="Look as this user, whom systemd starts the server as; for root."
)
@click.option("--uid", metavar="NAME", help="The same for the user of twistd --uid, which begins as root.")
@click.option(
    "--unit",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take the user from this unit of systemd (for root: that of pop3toy.service, if it names FILE).",
)
@click.option("--online", is_flag=True, help="Ask other machines, too: object storage, the smarthost.")
@click.option("--json", "json_", is_flag=True, help="Print it as JSON.")
def check(
    file: Path | None, user: str | None, uid: str | None, unit: Path | None, online: bool, json_: bool
) -> int:
    """Look whether FILE is right, and whether what it names can be used.

    What is wrong in the file is one line with its place. If nothing is, there is a
    line for each thing outside of it: files, certificates and their days, mailboxes,
    ports and who has them. The exit status is 0 if a server would start with it, and
    78 if not. What the server would warn of is told, too. Nothing is changed.
    """
    if file is None:
        raise click.UsageError("Which file? FILE, --config FILE or POP3TOY_CONFIG says it.")
    from .starting.as_user import as_user, unit_of, who_runs_it
    from .starting.outside import Finding, as_the_user, as_who_starts

    if sum(one is not None for one in (user, uid, unit)) > 1:
        raise click.UsageError("--user, --uid and --unit do not go together")
    if os.geteuid() == 0 and not (user or uid or unit):
        unit = unit_of(file)
    runs_as = who_runs_it(user, uid, unit)
    of_root = runs_as is not None and runs_as.begins_as_root

    def look(online: bool) -> dict[str, object]:
        """As the user that the server runs as; gives a value of JSON."""
        try:
            with _mistakes(file) as said, _warnings():
                settings = _settings_in(file, said)
                _check_right(settings, certificates=not of_root)
                return {"found": list(as_the_user(settings, online=online, certificates=not of_root))}
        except Failed as why:
            return {"mistake": str(why)}

    who = runs_as.user.pw_name if runs_as is not None else None
    answer: dict[str, Any] = {}
    if runs_as is not None:
        # What is wrong for everybody is told as such.  And it loads all that is needed: that user may not be
        # able to read this Python.
        with _silence():
            answer = look(False)
        who = who if answer.get("mistake") is None else None
    if answer.get("mistake") is None:
        answer = as_user(runs_as.user if runs_as is not None else None, lambda: look(online))
    mistake, found = answer.get("mistake"), [Finding(*one) for one in answer.get("found", ())]
    if mistake is None:
        try:
            with _mistakes(file) as said:
                settings = _settings_in(file, said)
                found += as_who_starts(settings, runs_as, certificates=of_root)
        except Failed as why:
            mistake = str(why)
    elif who is not None:
        mistake += f" (as the user {who})"
    return _told(file, who, mistake, found, json_=json_)


def _check_right(settings: Settings, *, certificates: bool) -> None:
    """See that a server would be made of these settings.

    :raises pop3toy.errors.CannotStart: if not.
    """
    # These load all of a server, which other commands do not need.
    from twisted.internet import reactor

    from ..run.checks import check_files, check_sources
    from ..run.ports import endpoint_of, ports_of
    from ..run.tls import server_tls

    # Asked for the time alone; it does not run.
    clock = cast(IReactor, reactor)
    check_files(settings)
    if settings.faults is not None:
        from ..testing.faults.server import check_faults

        check_faults(settings.faults)
    if certificates:
        with tempfile.TemporaryDirectory() as kept:
            server_tls(settings.tls, kept)
    for port in ports_of(settings):
        # systemd has handed over nothing to this command.
        if not port.description.startswith("systemd:"):
            endpoint_of(port, settings, clock)
    check_sources(settings, clock)


def _told(file: Path, who: str | None, mistake: str | None, found: Sequence[Finding], *, json_: bool) -> int:
    """Print what was found; the exit status."""
    wrong = sum(one.status == "wrong" for one in found)
    right = mistake is None and not wrong
    if json_:
        findings = [{"about": one.about, "status": one.status, "text": one.text} for one in found]
        if mistake is not None:
            findings.insert(0, {"about": "options", "status": "wrong", "text": mistake})
        click.echo(
            json.dumps({"file": str(file), "user": who, "right": right, "findings": findings}, indent=2)
        )
        return os.EX_OK if right else os.EX_CONFIG
    if mistake is not None:
        raise Failed(mistake, os.EX_CONFIG)
    for one in found:
        word = "WRONG" if one.status == "wrong" else one.status
        click.echo(f"{word:5}  {one.about:11}  {printable(one.text)}")
    as_whom = f", for the user {who}" if who is not None else ""
    if wrong:
        things = f"{wrong} things are" if wrong > 1 else "one thing is"
        raise Failed(printable(f"{file} is right, but {things} not as it says{as_whom}"), os.EX_CONFIG)
    click.echo(f"{printable(str(file))} is right{as_whom}")
    return os.EX_OK


@config.command()
@_one_file
def show(file: Path | None) -> None:
    """Show every option that is in force, and where its value comes from.

    What is shown is such a file again, but for its passwords, which are masked.
    Without a file these are the options of the toy.
    """
    with _mistakes(file) as said:
        settings = _settings_in(file, said)
    click.echo("\n".join(_lines(settings, said, str(file))))


config.add_command(init)


@contextmanager
def _mistakes(file: Path | None) -> Iterator[dict[str, object]]:
    """Tell what is wrong with the settings in one line, with its place in the file.

    :return: a dictionary that takes the options of the file.
    """
    said: dict[str, object] = {}
    try:
        yield said
    except CannotStart as why:
        raise Failed(printable(toml.located(why, str(file), said, {})), os.EX_CONFIG) from None


@implementer(ILogObserver)
def _tell_warning(event: LogEvent) -> None:
    if event.get("log_level", LogLevel.debug) >= LogLevel.warn:
        click.echo(f"Warning: {printable(formatEvent(event))}", err=True)


@contextmanager
def _silence() -> Iterator[None]:
    """Show no warnings."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


@contextmanager
def _warnings() -> Iterator[None]:
    """Show what the log warns of."""
    globalLogPublisher.addObserver(_tell_warning)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(_tell_warning)


def _settings_in(file: Path | None, said: dict[str, object]) -> Settings:
    if file is not None:
        said.update(toml.read(str(file)))
    settings = settings_of(said)
    settings.check_whole()
    return settings


def _defaults(settings: Settings) -> Mapping[str, str]:
    """What the server does where an option has no value, in words; setting it to that may mean more."""
    toy = settings.is_toy
    return {
        "transcript": settings.transcript_to,
        "max-connections": f"{ConnectionLimits().connections}",
        "max-per-address": f"{ConnectionLimits().per_address}, and any number from loopback",
        "max-per-user": f"{LoginLimits().sessions_per_user}",
        "max-message-size": f"{MESSAGE}",
        "hostname": "what the system says",
        "workers": "one process, not watched",
        "domain": "localhost; mail for any domain is taken" if toy else "localhost",
        **({"user": "the built-in one, which everybody knows", "message": "the built-in one"} if toy else {}),
    }


def _unused(settings: Settings) -> Iterator[str]:
    """Options that change nothing, because others say where to listen."""
    from ..run.ports import ports_of

    if settings.listen:
        yield "port"
        if not any(isinstance(port.where, int) for port in ports_of(settings)):
            yield "interface"


def _lines(settings: Settings, said: Mapping[str, object], file: str) -> Iterator[str]:
    parts = (settings, settings.store, settings.tls, settings.limits)
    values = {one.name: getattr(part, one.field) for part in parts for one in options_of(type(part))}
    defaults, unused = _defaults(settings), set(_unused(settings))
    table = ""
    # Options of other kinds of store have no value.
    for one in (one for name, one in OPTIONS.items() if name in values):
        if one.table != table:
            yield from [""] * bool(table)
            yield f"[{one.table}]"
            table = one.table
        value, default = values[one.name], defaults.get(one.name)
        if value is None or (value == () and default):
            yield f"# {one.name} is not set" + (f"; the default is {default}" if default else "")
        else:
            origin = printable(file) if one.name in said else "default"
            note = "; not used: listen is set" if one.name in unused else ""
            yield f"{one.name} = {_written(one, value)}  # {origin}{note}"


def _written(one: Option, value: bool | int | str | Sequence[str] | Sequence[tuple[str, str]]) -> str:
    """A value as a file has it, passwords masked."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _quoted(re.sub("//[^/]*@", "//****@", value) if one.name == "introspection" else value)
    # An account is a pair of name and password.
    texts = [each if isinstance(each, str) else f"{each[0]}:****" for each in value]
    if one.name == "auth":
        texts = list(map(_without_secret, texts))
    return f"[{', '.join(map(_quoted, texts))}]" if one.many else _quoted(",".join(texts))


def _without_secret(checker: str) -> str:
    """The description of a checker, with what may be a password in it masked."""
    kind, colon, arguments = checker.partition(":")
    if kind in _WITHOUT_SECRETS or not colon:
        return checker
    if kind == "memory":
        # NAME:PASSWORD:NAME:PASSWORD
        parts = arguments.split(":")
        return ":".join([kind, *("****" if at % 2 else part for at, part in enumerate(parts))])
    return f"{kind}:****"


def _quoted(text: str) -> str:
    """A string of TOML, in which nothing can steer a terminal."""
    escaped = [c if c.isprintable() else f"\\U{ord(c):08X}" for c in text.replace("\\", r"\\")]
    return '"{}"'.format("".join(escaped).replace('"', r"\""))
