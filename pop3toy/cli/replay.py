"""``pop3toy replay``: a recorded session, played to a server or to a client."""

from __future__ import annotations

import difflib
import itertools
import os
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import click

from ..conformance.connection import Connection
from ..conformance.results import CannotTry
from ..conformance.trace import Trace
from ..replay.comparing import IGNORABLE
from ..replay.playing import LOST, How, NeedsLogin, Played, needs_password, play, secrets_of
from ..replay.recording import NotARecording, Turn, read, shown
from ..replay.serving import serve
from .options import Failed, FloatRange, IntRange, printable
from .remote import address, password_of, trusting

__all__ = ["replay"]

#: The exit status where a reply differs, and where nothing could be played.
DIFFERS, NOT_PLAYED = 1, 2
#: Lines of one difference that are shown, lines of a reply to a client, and characters of a line.
_MOST, _REPLY, _WIDTH = 24, 8, 200


@click.command()
@click.argument("recording", type=click.Path(path_type=Path))
@click.argument("server", metavar="[HOST:PORT]", required=False)
@click.option("--session", type=IntRange(1), help="Which one of the recording; its first if not given.")
@click.option("-u", "--user", help="Who logs in, if it is not whom the recording says.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Whose first line is the password; otherwise POP3TOY_PASSWORD is it, or it is asked for.",
)
@click.option("--tls", type=click.Choice(["none", "implicit"]), help="If not given, implicit on port 995.")
@click.option(
    "--ca-file", type=click.Path(path_type=Path), metavar="FILE", help="Trust the certificates in FILE."
)
@click.option("--insecure", is_flag=True, help="Trust any certificate.")
@click.option(
    "--ignore",
    multiple=True,
    type=click.Choice([*IGNORABLE]),
    help="What may differ; may be given several times. "
    + " ".join(f"{name}: {what}." for name, what in IGNORABLE.items()),
)
@click.option("--exact", is_flag=True, help="Compare texts, timestamps and challenges, too.")
@click.option("--destructive", is_flag=True, help="Let QUIT remove what DELE has marked.")
@click.option("-q", "--quiet", is_flag=True, help="Show differences alone.")
@click.option(
    "--timeout",
    type=FloatRange(0.1),
    default=10.0,
    show_default=True,
    help="Seconds for an answer; of a client's silence, with --as-server, ten times as many.",
)
@click.option(
    "--as-server", is_flag=True, help="Play the server's side, at HOST:PORT, for a client under test."
)
@click.option(
    "--certificate",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --as-server: certificate and key (PEM) for STLS.",
)
@click.option("--once", is_flag=True, help="With --as-server: end when the first client has gone.")
def replay(
    recording: Path,
    server: str | None,
    session: int | None,
    user: str | None,
    password_file: Path | None,
    tls: str | None,
    ca_file: Path | None,
    insecure: bool,
    ignore: tuple[str, ...],
    exact: bool,
    destructive: bool,
    quiet: bool,
    timeout: float,
    as_server: bool,
    certificate: Path | None,
    once: bool,
) -> int:
    """Play a recorded POP3 session again, and show what is answered differently.

    RECORDING is a transcript (of --transcript, or any lines with C: and S:), JSON Lines
    of --transcript-json, or one of the two files of a Dovecot rawlog (.in, .out). The
    exit status is 0 if all replies are as recorded, 1 if one differs, and 2 if it could
    not be played.

    \b
      pop3toy replay session.txt localhost:2590
      pop3toy replay --ignore uids --ignore sizes session.txt mail.example.org:995
      pop3toy replay --as-server session.txt 127.0.0.1:2590
    """
    try:
        turns = read(recording, session)
    except NotARecording as why:
        raise Failed(f"{printable(str(recording))}: {why}", NOT_PLAYED) from None
    except OSError as error:
        where = printable(error.filename or str(recording))
        raise Failed(f"{where}: {error.strerror or error}", NOT_PLAYED) from None
    if as_server:
        return _serve(turns, server or "127.0.0.1:2590", certificate, timeout * 10, once=once, quiet=quiet)
    if server is None:
        raise click.UsageError("Which server? HOST:PORT is missing.")
    host, port = address(server, "HOST:PORT", 995 if tls == "implicit" else 110)
    implicit = tls == "implicit" or (tls is None and port == 995)
    how = How(
        host=host,
        context=trusting(ca_file, insecure=insecure),
        user=user,
        password=password_of(password_file) if user is not None or needs_password(turns) else None,
        ignore=ignore,
        exact=exact,
        destructive=destructive,
    )

    def connect() -> Connection:
        try:
            sock = socket.create_connection((host, port), timeout)
        except OSError as error:
            raise CannotTry(f"{host}:{port} does not answer: {error.strerror or error}") from None
        connection = Connection(sock, Trace([]), time.monotonic, timeout)
        if implicit:
            try:
                connection.start_tls(how.context, host)
            except BaseException:
                connection.drop()
                raise
        return connection

    masked = Trace([*secrets_of(turns), how.password or ""]).masked
    played: list[Played] = []
    try:
        for one in play(turns, connect, how):
            played.append(one)
            _show(one, masked, quiet=quiet)
    except NeedsLogin as why:
        raise Failed(f"{why}; --user says as whom", NOT_PLAYED) from None
    except CannotTry as why:
        raise Failed(printable(str(why)), NOT_PLAYED) from None
    except ssl.SSLCertVerificationError as why:
        raise Failed(f"the certificate is not to be trusted: {why.verify_message}", NOT_PLAYED) from None
    except LOST as why:
        if not played:
            raise Failed(printable(str(why)), NOT_PLAYED) from None
        click.echo(f"!! {printable(str(why))}")
        return DIFFERS
    return _sum_up(played, turns)


def _show(one: Played, masked: Callable[[str], str], *, quiet: bool) -> None:
    if quiet and one.difference is None and not one.note:
        return
    if one.turn.line:
        click.echo(f"   C: {_cut(one.turn.shown)}")
    if one.note:
        click.echo(f"   -- {one.note}")
    if one.difference is None:
        for line in one.now if len(one.now) <= 12 else [*one.now[:8], "...", *one.now[-2:]]:
            click.echo(f"   S: {_cut(masked(line))}")
        return
    different = difflib.unified_diff(one.difference.recorded, one.difference.now, n=1, lineterm="")
    # Behind two lines with the names of files.
    for shown_lines, line in enumerate(itertools.islice(different, 2, None), 1):
        if shown_lines > _MOST:
            click.echo("   S: ... and more")
            break
        mark, text = (" ", "...") if line.startswith("@@") else (line[:1], line[1:])
        if mark != " " or text != "..." or shown_lines > 1:
            text = _cut(masked(text))
            click.echo(click.style(f" {mark} S: {text}", fg={"-": "red", "+": "green"}.get(mark)))


def _cut(line: str) -> str:
    """As much of a line as is shown."""
    return line if len(line) <= _WIDTH else f"{line[:_WIDTH]}... ({len(line) - _WIDTH} more)"


def _sum_up(played: list[Played], turns: list[Turn]) -> int:
    different = [one for one in played if one.difference is not None]
    said = len([one for one in played if one.now or one.difference])
    # Of an exchange that was replaced by another login only the first line was played.
    left = len([turn for turn in turns if not turn.is_response])
    left -= len([one for one in played if not one.turn.is_response])
    if not different:
        click.echo("1 reply, as recorded" if said == 1 else f"{said} replies, all as recorded")
        return os.EX_OK
    first = _cut(different[0].turn.shown) or "the greeting"
    rest = f"; {left} command{'s were' if left > 1 else ' was'} not said" if left > 0 else ""
    click.echo(f"{len(different)} of {said} replies differ, the first behind {first}{rest}")
    return DIFFERS


def _serve(
    turns: list[Turn], where: str, certificate: Path | None, patience: float, *, once: bool, quiet: bool
) -> int:
    host, port = address(where, "HOST:PORT", 2590, any_port=True)
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(certificate)
        except ssl.SSLError:
            raise Failed(
                f"--certificate {certificate}: no certificate and key in PEM in it", NOT_PLAYED
            ) from None
        except OSError as error:
            raise Failed(f"--certificate {certificate}: {error.strerror or error}", NOT_PLAYED) from None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise Failed(f"{where}: {error.strerror or error}", NOT_PLAYED) from None
    status = os.EX_OK
    with listening:
        name, number = listening.getsockname()[:2]
        click.echo(f"plays the server's side on {name}:{number}; Ctrl-C ends it")
        while True:
            sock, peer = listening.accept()
            click.echo(f"   -- connected from {peer[0]}:{peer[1]}")
            try:
                for asked in serve(sock, turns, timeout=patience, context=context):
                    status = DIFFERS if asked.expected is not None else status
                    if asked.expected is None and quiet:
                        continue
                    mark = " " if asked.expected is None else "+"
                    if asked.expected is not None:
                        click.echo(click.style(f" - C: {_cut(asked.expected)}", fg="red"))
                    line = shown(asked.line.encode("utf-8", "replace"))
                    click.echo(click.style(f" {mark} C: {_cut(line)}", fg="green" if mark == "+" else None))
                    for text in asked.reply[:_REPLY]:
                        click.echo(f"   S: {_cut(text)}")
                    if len(asked.reply) > _REPLY:
                        click.echo("   S: ...")
            except (OSError, ssl.SSLError) as error:
                click.echo(f"   -- {printable(str(error))}")
            click.echo("   -- closed")
            if once:
                return status
