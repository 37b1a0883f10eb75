"""The commands of ``pop3toy queue``.

A server that runs has the queue to itself: it is asked, by a file in the folder, and does it within seconds.
Without one the command does it.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TypeAlias

import click

from ...config import toml
from ...errors import CannotStart
from ...files import why_unusable
from ...outgoing.entry import Damaged, Entry
from ...outgoing.queue_files import Folder
from ..options import Failed, config_option, printable
from .shown import as_json, in_a_line, in_full

__all__ = ["queue"]

_Command: TypeAlias = Callable[..., object]

_CHUNK = 64 * 1024


@click.group()
def queue() -> None:
    """Mail that goes out: list what waits, try it now, remove it.

    The folder is that of the server's option --queue. Messages have the id under
    which their senders were told of them; the log has it as well.
    """


def _with_folder(command: _Command) -> _Command:
    """Give a command the folder that its options, or the file of options, name."""

    @config_option
    @click.option(
        "--queue",
        "path",
        envvar="POP3TOY_QUEUE",
        show_envvar=True,
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="The folder of the queue, as the server has it.",
    )
    @wraps(command)
    def run(config: Path | None, path: Path | None, **words: object) -> object:
        try:
            found = path or (toml.read(str(config)).get("queue") if config is not None else None)
        except CannotStart as why:
            raise Failed(printable(str(why)), os.EX_CONFIG) from None
        if found is None and config is not None:
            raise Failed(
                printable(f"{config}: [outgoing] queue is missing, and no option is given for it"),
                os.EX_CONFIG,
            )
        if found is None:
            raise click.MissingParameter(
                "A file for --config can say it, too.", param_hint="--queue", param_type="option"
            )
        if unusable := why_unusable(str(found), stat.S_ISDIR, "folder", os.R_OK | os.X_OK, "read"):
            raise Failed(printable(unusable), os.EX_NOINPUT)
        return command(folder=Folder(str(found)), **words)

    return run


def _entries(folder: Folder) -> Iterator[Entry]:
    """The messages, oldest first; those that cannot be read are told of."""
    entries = []
    for queue_id in folder.look().messages:
        try:
            entries.append(folder.read(queue_id))
        except FileNotFoundError:
            # Handed on meanwhile.
            continue
        except Damaged as why:
            click.echo(f"{queue_id}: {why}", err=True)
    yield from sorted(entries, key=lambda one: one.came)


@queue.command(name="list")
@_with_folder
@click.option("--json", "json_", is_flag=True, help="Print it as JSON.")
def list_(folder: Folder, json_: bool) -> None:
    """List the messages that wait, oldest first.

    Each with its id, its age, its octets, its sender and for whom it waits; below
    that how often it was tried, and why it is still here.
    """
    entries = list(_entries(folder))
    if json_:
        click.echo(json.dumps([as_json(entry) for entry in entries], indent=2))
        return
    for entry in entries:
        click.echo(in_a_line(entry, time.time()))
    click.echo(f"{len(entries)} message{'s'[: len(entries) != 1]} in the queue", err=True)


@queue.command()
@_with_folder
@click.option("-t", "--text", is_flag=True, help="The message itself, as it is sent.")
@click.argument("queue_id", metavar="ID")
def show(folder: Folder, text: bool, queue_id: str) -> None:
    """Show what is known of a message."""
    with _known(queue_id):
        if not text:
            for line in in_full(folder.read(queue_id)):
                click.echo(line)
            return
        message = folder.text(queue_id)
        try:
            while chunk := message.read(_CHUNK):
                if sys.stdout.isatty():
                    shown = chunk.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
                    click.echo("".join(c if c.isprintable() or c in "\n\t" else "?" for c in shown), nl=False)
                else:
                    sys.stdout.buffer.write(chunk)
        finally:
            message.close()


@queue.command()
@_with_folder
@click.option("--all", "all_", is_flag=True, help="All messages.")
@click.argument("queue_ids", metavar="[ID]...", nargs=-1)
def retry(folder: Folder, all_: bool, queue_ids: tuple[str, ...]) -> int:
    """Try messages now, and not when their turn comes."""
    names = _chosen(folder, all_, queue_ids)
    done, status = _do(folder, "retry", names, lambda queue_id: folder.add(queue_id, {"next": 0.0}))
    click.echo(f"{done} message{'s'[: done != 1]} will be tried", err=True)
    return status


@queue.command()
@_with_folder
@click.option("--all", "all_", is_flag=True, help="All messages.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.argument("queue_ids", metavar="[ID]...", nargs=-1)
def remove(folder: Folder, all_: bool, yes: bool, queue_ids: tuple[str, ...]) -> int:
    """Remove messages; nobody is told of it.

    One that is just being handed on may reach its recipients all the same.
    """
    names = _chosen(folder, all_, queue_ids)
    if names and not yes:
        click.confirm(f"Remove {len(names)} message{'s'[: len(names) != 1]}?", abort=True)
    done, status = _do(folder, "remove", names, folder.remove)
    click.echo(f"{done} message{'s'[: done != 1]} removed", err=True)
    return status


def _chosen(folder: Folder, all_: bool, queue_ids: Sequence[str]) -> Sequence[str]:
    there = folder.look().messages
    if all_:
        return there
    if not queue_ids:
        raise click.UsageError("name the messages, or say --all")
    for queue_id in queue_ids:
        if queue_id not in there:
            raise _unknown(queue_id)
    return queue_ids


def _do(folder: Folder, verb: str, names: Sequence[str], do: Callable[[str], object]) -> tuple[int, int]:
    """Do it, or ask the server that runs to do it: for how many, and the exit status."""
    if not names:
        # Nothing is made in a folder that may be no queue at all.
        return 0, os.EX_OK
    lock = folder.lock()
    if lock is None:
        for queue_id in names:
            folder.order(verb, queue_id)
        return len(names), os.EX_OK
    done, status = 0, os.EX_OK
    try:
        for queue_id in names:
            try:
                with _known(queue_id):
                    do(queue_id)
                done += 1
            except Failed as why:
                # One that is damaged keeps no other from it.
                click.echo(str(why), err=True)
                status = why.status
    finally:
        os.close(lock)
    return done, status


@contextmanager
def _known(queue_id: str) -> Iterator[None]:
    try:
        if not re.fullmatch("[0-9A-Za-z]{1,40}", queue_id):
            raise FileNotFoundError
        yield
    except FileNotFoundError:
        raise _unknown(queue_id) from None
    except Damaged as why:
        raise Failed(f"{queue_id}: {why}", os.EX_DATAERR) from None


def _unknown(queue_id: str) -> Failed:
    return Failed(f"there is no message {printable(queue_id)} in the queue", os.EX_NOINPUT)
