"""``pop3toy config``: is a file of options right, and what is in force?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from ..config import toml
from ..config.settings import OPTIONS, Settings, settings_of
from ..errors import CannotStart
from ..option import options_of
from ..run.checks import check_files, check_sources
from ..run.tls import server_tls
from .options import Failed

__all__ = ["config", "settings_in"]


def settings_in(path: str | None) -> tuple[Settings, dict[str, Any]]:
    """The settings that a file makes, and what it says, by the options' names.

    :param path: without one, the toy's.
    :raises Failed: with status 78, if something in it is wrong.
    """
    said: dict[str, Any] = {}
    try:
        if path is not None:
            said = toml.read(path)
        settings = settings_of(said)
        settings.check_whole()
    except CannotStart as why:
        raise Failed(toml.located(why, path, said, {}), os.EX_CONFIG) from None
    return settings, said


@click.group()
def config() -> None:
    """A file of options: check it, show what is in force."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def check(file: Path) -> None:
    """Look whether FILE is right, and whether the files that it names can be used.

    The server would start with it, if its ports are free. Otherwise one line
    says what is wrong, and the exit status is 78.
    """
    settings, said = settings_in(str(file))
    from twisted.internet import reactor

    try:
        check_files(settings)
        server_tls(settings.tls)
        # It is only asked for the time; nothing runs.
        check_sources(settings, reactor)
    except CannotStart as why:
        raise Failed(toml.located(why, str(file), said, {}), os.EX_CONFIG) from None
    click.echo(f"{file} is right")


@config.command()
@click.option(
    "-c",
    "--config",
    "file",
    envvar="POP3TOY_CONFIG",
    show_envvar=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The file, as twistd pop3toy --config has it.",
)
def show(file: Path | None) -> None:
    """Show every option that is in force, and where its value comes from.

    Passwords are not shown.
    """
    settings, said = settings_in(str(file) if file is not None else None)
    parts: list[Any] = [settings, settings.store, settings.tls, settings.limits]
    values = {one.name: getattr(part, one.field) for part in parts for one in options_of(type(part))}
    table = ""
    for name, one in OPTIONS.items():
        if name not in values:
            # Of another kind of store.
            continue
        if one.table != table:
            click.echo(("\n" if table else "") + f"[{one.table}]")
            table = one.table
        origin = str(file) if name in said else "default"
        click.echo(f"{name} = {_shown(one.field, values[name])}  # {origin}")


def _shown(field: str, value: Any) -> str:
    if field == "users":
        value = tuple(f"{name}:****" for name, _ in value)
    if field == "auth":
        value = tuple(f"{text.partition(':')[0]}:****" for text in value)
    if value is None:
        return '""'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_quoted, value))}]"
    return str(value) if isinstance(value, int) else _quoted(value)


def _quoted(text: object) -> str:
    escaped = str(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
