"""``pop3toy config``: is a file of options right, and what is in force?"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import click
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from ..auth.throttle.connection_limiter import ConnectionLimits
from ..auth.throttle.login_throttle import LoginLimits
from ..config import toml
from ..config.settings import Settings
from ..config.table import OPTIONS, settings_of
from ..errors import CannotStart
from ..option import Option, options_of
from ..smtp.limits import MESSAGE
from .options import Failed, config_option, printable

__all__ = ["config"]

#: Checkers of Twisted's in whose description there is no password.
_WITHOUT_SECRETS = ("file", "unix", "sshkey", "anonymous")

#: What is in force where an option is not set, which is not the same as setting it to that.
_IN_FORCE = {
    "max-connections": f"{ConnectionLimits().connections}",
    "max-per-address": f"{ConnectionLimits().per_address}, and any number from loopback",
    "max-per-user": f"{LoginLimits().sessions_per_user}",
    "max-message-size": f"{MESSAGE}",
}


@click.group()
def config() -> None:
    """A file of options: check it, show what is in force."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Look whether FILE is right, and whether the files that it names can be used.

    The server would start with it, if its ports are free. Otherwise one line
    says what is wrong, and the exit status is 78. What the server would warn of
    is told, too. Nothing is changed.
    """
    # These load all of a server, which other commands can do without.
    from twisted.internet import reactor

    from ..run.checks import check_files, check_sources
    from ..run.ports import endpoint_of, ports_of
    from ..run.tls import server_tls

    with _mistakes(file) as said, _warnings(), tempfile.TemporaryDirectory() as kept:
        settings = _settings_in(file, said)
        check_files(settings)
        if settings.faults is not None:
            from ..testing.faults.server import check_faults

            check_faults(settings.faults)
        server_tls(settings.tls, kept)
        for port in ports_of(settings):
            # systemd has handed over nothing to this command.
            if not port.description.startswith("systemd:"):
                endpoint_of(port, settings, cast(Any, reactor))
        # The reactor is only asked for the time; nothing runs.
        check_sources(settings, reactor)
    click.echo(f"{printable(str(file))} is right")


@config.command()
@config_option
def show(config: Path | None) -> None:
    """Show every option that is in force, and where its value comes from.

    What is shown is such a file again, but for its passwords, which are masked.
    Without a file these are the options of the toy.
    """
    with _mistakes(config) as said:
        settings = _settings_in(config, said)
    click.echo("\n".join(_lines(settings, said, str(config))))


@contextmanager
def _mistakes(file: Path | None) -> Iterator[dict[str, Any]]:
    """Tell what is wrong with the settings in one line, with its place in the file.

    Gives a dictionary for what stands there.
    """
    said: dict[str, Any] = {}
    try:
        yield said
    except CannotStart as why:
        raise Failed(printable(toml.located(why, str(file), said, {})), os.EX_CONFIG) from None


@implementer(ILogObserver)
def _tell_warning(event: LogEvent) -> None:
    if event.get("log_level", LogLevel.debug) >= LogLevel.warn:
        click.echo(f"Warning: {printable(formatEvent(event))}", err=True)


@contextmanager
def _warnings() -> Iterator[None]:
    """Show what the log warns of."""
    globalLogPublisher.addObserver(_tell_warning)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(_tell_warning)


def _settings_in(file: Path | None, said: dict[str, Any]) -> Settings:
    if file is not None:
        said.update(toml.read(str(file)))
    settings = settings_of(said)
    settings.check_whole()
    return settings


def _lines(settings: Settings, said: Mapping[str, Any], file: str) -> Iterator[str]:
    parts: list[Any] = [settings, settings.store, settings.tls, settings.limits]
    values = {one.name: getattr(part, one.field) for part in parts for one in options_of(type(part))}
    table = ""
    # Options of other kinds of store have no value.
    for one in (one for name, one in OPTIONS.items() if name in values):
        if one.table != table:
            yield from [""] * bool(table)
            yield f"[{one.table}]"
            table = one.table
        value = values[one.name]
        if value is None:
            default = _IN_FORCE.get(one.name)
            yield f"# {one.name} is not set" + (f"; the default is {default}" if default else "")
        else:
            origin = printable(file) if one.name in said else "default"
            yield f"{one.name} = {_written(one, value)}  # {origin}"


def _written(one: Option, value: Any) -> str:
    """A value as a file has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if one.name == "user":
        value = [f"{name}:****" for name, _ in value]
    elif one.name == "auth":
        value = [_without_secret(text) for text in value]
    elif one.name == "introspection":
        value = re.sub("//[^/]*@", "//****@", value)
    if one.many:
        return f"[{', '.join(map(_quoted, value))}]"
    return _quoted(value if isinstance(value, str) else ",".join(value))


def _without_secret(checker: str) -> str:
    """What describes a checker, without what may be a password in it."""
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
