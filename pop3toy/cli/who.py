"""``pop3toy who``, ``status``, ``close``, ``drain`` and ``watch``: a running server, seen and steered."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Sequence
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
from click.core import ParameterSource

from .inspecting import InspectorClient
from .options import Failed, IntRange, printable

__all__ = ["close", "drain", "status", "watch", "who"]

#: Lines of a reply that are shown.
_LINES = 20


def _with_server(command: Callable[..., object]) -> Callable[..., object]:
    """Give a command ``server``, which its options name."""

    @click.option(
        "-s",
        "--server",
        envvar="POP3TOY_SERVER",
        default="http://127.0.0.1:8025",
        show_default=True,
        show_envvar=True,
        metavar="URL",
        help="Where the server's inspector is: a URL, or unix:PATH. In the environment it may be the whole"
        " link that the server's log shows, with its token.",
    )
    @click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Whose first line is the token; otherwise that of the link, or POP3TOY_TOKEN, is it. A Unix"
        " socket needs none.",
    )
    @wraps(command)
    def with_server(server: str, token_file: Path | None, **more: Any) -> object:
        source = click.get_current_context().get_parameter_source("server")
        private = source is ParameterSource.ENVIRONMENT
        return command(InspectorClient(server, token_file, private=private), **more)

    return with_server


_as_json = click.option("--json", "json_", is_flag=True, help="Print it as JSON.")


@click.command()
@_with_server
@click.option(
    "-a", "--all", "all_", is_flag=True, help="Those that have ended, too, as far as they are kept."
)
@_as_json
def who(server: InspectorClient, all_: bool, json_: bool) -> None:
    """Show who is connected to a running server.

    The server has to be started with --inspector-port or --inspector:

    \b
      pop3toy who --server unix:/run/pop3toy/inspector.sock
      POP3TOY_TOKEN=... pop3toy who --server http://127.0.0.1:8025
    """
    found = server.ask("/api/sessions" + ("" if all_ else "?state=live"))
    if json_:
        click.echo(json.dumps(found, indent=2))
        return
    rows = [
        (
            str(one["id"]),
            one["protocol"],
            one["user"] or "-",
            one["peer"] or one["host"],
            one["tls"]["version"] if one["tls"] else "-",
            f"ended ({one['ended']})" if one["ended"] else one["state"] + (" (held)" if one["held"] else ""),
            one["client"] or "-",
            str(one["received"]),
            str(one["sent"]),
            _duration(one["seconds"]),
            "-" if one["ended"] else _duration(one["idle"]),
        )
        for one in found["sessions"]
    ]
    if not rows:
        click.echo("Nobody is connected.")
        return
    head = ("ID", "PROTOCOL", "USER", "FROM", "TLS", "STATE", "CLIENT", "RECEIVED", "SENT", "FOR", "IDLE")
    for line in _table([head, *rows], right={0, 7, 8, 9, 10}):
        click.echo(line)


@click.command()
@_with_server
@_as_json
def status(server: InspectorClient, json_: bool) -> int:
    """Show how a running server is.

    The exit status is 0 if all is well, and 1 if something is in trouble.
    """
    found = server.ask("/api/status")
    if json_:
        click.echo(json.dumps(found, indent=2))
    else:
        rows = [
            ("version", found["version"] + (", the toy" if found["toy"] else "")),
            *(
                (one["protocol"] + (" over TLS" if one["tls"] else ""), one["address"])
                for one in found["protocols"]
            ),
            ("up for", _duration(found["uptime"])),
            ("connections", f"{found['connections']} now, {found['sessions_total']} in all"),
            ("new ones", "are turned away (draining)" if found["draining"] else "are taken"),
            ("health", "; ".join(found["problems"]) or "all is well"),
        ]
        for line in _table(rows):
            click.echo(line)
    return os.EX_OK if found["healthy"] else 1


@click.command()
@click.argument("sessions", metavar="[SESSION]...", nargs=-1, type=IntRange(1))
@click.option("-u", "--user", help="All sessions of this user.")
@_with_server
def close(server: InspectorClient, sessions: Sequence[int], user: str | None) -> int:
    """End sessions of a running server, by their numbers (pop3toy who) or by their user.

    What QUIT has begun, or is being delivered, is finished; a dropped POP3 session
    removes nothing.
    """
    if bool(sessions) == (user is not None):
        raise click.UsageError("Either numbers of sessions or --user say what is to be closed.")
    if user is not None:
        found = server.ask(f"/api/sessions?state=live&user={quote(user.encode())}")["sessions"]
        sessions = [one["id"] for one in found]
        if not sessions:
            raise Failed(f"{printable(user)} has no session", 1)
    failed = False
    for session in sessions:
        try:
            server.ask(f"/api/sessions/{session}/close", "POST")
            click.echo(f"session {session} is closed")
        except Failed as why:
            if why.status != 1:
                raise
            failed = True
            click.echo(f"Error: {why}", err=True)
    return 1 if failed else os.EX_OK


@click.command()
@click.option("--resume", is_flag=True, help="Take connections again.")
@_with_server
def drain(server: InspectorClient, resume: bool) -> None:
    """Have a running server take no more connections, and let its sessions end.

    It does not stop; --resume lets clients in again. For its --stop-delay it still takes connections.
    """
    server.ask("/api/resume" if resume else "/api/drain", "POST")
    left = server.ask("/api/status")["connections"]
    click.echo(
        "connections are taken again"
        if resume
        else f"no more connections are taken; {left} {'is' if left == 1 else 'are'} left"
    )


@click.command()
@click.argument("session", type=IntRange(1), required=False)
@_with_server
@click.option("--json", "json_", is_flag=True, help="Print each event as a line of JSON.")
def watch(server: InspectorClient, session: int | None, json_: bool) -> int:
    """Show conversations as they happen, with explanations.

    With the number of a session, it and no other, from its beginning to its end.
    """
    since = None
    if session is not None:
        whole = server.ask(f"/api/sessions/{session}")
        since = whole["seq"]
        if whole["missed"]:
            click.echo(f"-- {_events(whole['missed'])} not kept any more that came before")
        for event in whole["events"]:
            _show(event, json_=json_)
        if whole["ended"] is not None:
            return os.EX_OK
    for kind, told in server.events(session, since):
        if kind == "missed":
            click.echo(f"-- {_events(told['events'])} missing: more came than were read", err=json_)
            continue
        _show(told, json_=json_)
        if session is not None and told["event"] == "Ended":
            return os.EX_OK
    raise Failed("the server has ended the connection", os.EX_UNAVAILABLE)


def _events(count: int) -> str:
    return "1 event is" if count == 1 else f"{count} events are"


def _show(event: dict[str, Any], *, json_: bool) -> None:
    if json_:
        click.echo(json.dumps(event))
        return
    # What happens in the queue is of no session.
    number = f"[{event['session'] or '-'}]"
    behind: dict[int | None, list[dict[str, Any]]] = {}
    for one in event["explained"]:
        behind.setdefault(one.get("line"), []).append(one)
    lines = _lines(event)
    for at, line in enumerate(lines[:_LINES]):
        click.echo(f"{number} {line}".rstrip())
        _explain(behind.pop(at, ()))
    if len(lines) > _LINES:
        click.echo(f"{number} ... {len(lines) - _LINES} more line{'s'[: len(lines) - _LINES != 1]}")
    for rest in behind.values():
        _explain(rest)


def _explain(explanations: Sequence[dict[str, Any]]) -> None:
    for one in explanations:
        where = f" ({printable(one['clause'])})" if one["clause"] else ""
        mark = "!" if one["kind"] in ("warning", "hint") else "-"
        click.echo(click.style(f"       {mark} {printable(one['text'])}{where}", dim=True))


def _lines(event: dict[str, Any]) -> list[str]:
    """What happened, as lines; nothing for what others tell already."""
    match event["event"]:
        case "LineReceived":
            return [f"C: {_text(event['line'])}"]
        case "TextReceived":
            return [f"C: {_text(line)}" for line in event["data"].removesuffix("\r\n").split("\r\n")]
        case "ReplySent":
            sent = "" if event["handed_over"] else "(not sent) "
            return [f"S: {sent}{_text(line)}" for line in event["data"].removesuffix("\r\n").split("\r\n")]
        case "Connected":
            return [f"-- connected from {printable(event['peer'])}, {printable(event['protocol'])}"]
        case "ConnectionRejected":
            return [f"-- sent away: {printable(event['why'])}"]
        case "TLSStarted":
            return [f"-- encrypted from here on with {printable(event['tls']['version'])}"]
        case "TLSFailed":
            return [f"-- TLS failed: {printable(event['why'])}"]
        case "InputDiscarded":
            return [f"-- {event['octets']} octet{'s'[: event['octets'] != 1]} thrown away"]
        case "LoginFailed" if not event["session"]:
            return [f"-- password page: a wrong password for {_text(event['user'])}, or no such user"]
        case "PasswordChanged":
            return [f"-- password page: {_text(event['user'])} has another password"]
        case "Queued":
            return [f"-- queued as {event['queue_id']} for {_text(', '.join(event['recipients']))}"]
        case "Sent" | "Bounced" as what:
            fate, to = what.lower(), _text(event["recipient"])
            return [f"-- {event['queue_id']} {fate} for {to}: {_text(event['reason'])}"]
        case "SendDeferred":
            waiting = _text(", ".join(event["recipients"]))
            return [f"-- {event['queue_id']} deferred for {waiting}: {_text(event['reason'])}"]
        case "QueueRemoved":
            return [f"-- {event['queue_id']} removed from the queue"]
        case "Noted":
            return [f"-- {printable(event['text'])}"]
        case "Ended":
            return [f"-- closed ({printable(event['why'])})"]
    return []


def _text(line: str) -> str:
    """A line of theirs, harmless for a terminal."""
    return printable(line.replace("\t", "    "))


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _table(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Rows whose columns stand below each other."""
    safe = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*safe, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in safe
    ]
