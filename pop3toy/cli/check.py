"""``pop3toy check``: is a POP3 server right?"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import click

from ..conformance.examination import Doomed, Examination
from ..conformance.report import as_json, as_junit, as_text, failures
from ..conformance.results import CannotTry
from ..conformance.rules import Rule, run
from ..conformance.table import RULES
from ..conformance.target import Target
from .options import Failed, FloatRange, printable
from .remote import address, password_of, trusting

__all__ = ["check"]

#: The exit status where a MUST failed, and where nothing could be tried.
BROKEN, NOT_TRIED = 1, 2


@click.command()
@click.argument("server", metavar="HOST[:PORT]")
@click.option("-u", "--user", required=True, help="Who logs in.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Whose first line is the password; otherwise POP3TOY_PASSWORD is it, or it is asked for.",
)
@click.option(
    "--tls",
    type=click.Choice(["none", "stls", "implicit"]),
    help="How TLS begins; if not given, implicit on port 995 and stls on others.",
)
@click.option(
    "--ca-file", type=click.Path(path_type=Path), metavar="FILE", help="Trust the certificates in FILE."
)
@click.option(
    "--insecure", is_flag=True, help="Trust any certificate. The password can be read by anybody between."
)
@click.option(
    "--timeout", type=FloatRange(0.1), default=10.0, show_default=True, help="Seconds for an answer."
)
@click.option(
    "--idle",
    type=FloatRange(0),
    default=0.0,
    metavar="SECONDS",
    help="Leave a session alone for so long.",
)
@click.option("--only", multiple=True, metavar="CHECK", help="Look at this rule alone; may be given again.")
@click.option("--destructive", is_flag=True, help="Mark and remove messages, too; it is said before which.")
@click.option("--deliver-smtp", metavar="HOST:PORT", help="Bring messages by SMTP, and remove these alone.")
@click.option("--deliver-to", metavar="ADDRESS", help="Their address, if it is not the user's name.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before messages are removed.")
@click.option("--json", "json_", is_flag=True, help="Print the report as JSON.")
@click.option(
    "--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write the report for CI to FILE, too."
)
def check(
    server: str,
    user: str,
    password_file: Path | None,
    tls: str | None,
    ca_file: Path | None,
    insecure: bool,
    timeout: float,
    idle: float,
    only: tuple[str, ...],
    destructive: bool,
    deliver_smtp: str | None,
    deliver_to: str | None,
    yes: bool,
    json_: bool,
    junit: Path | None,
) -> int:
    """Look whether a POP3 server keeps the RFCs, and what mail programs will stumble over.

    It only reads, unless --destructive is given; some logins are made with a wrong
    password. The exit status is 0 if no MUST failed, 1 if one did, and 2 if the server
    could not be reached, has no TLS (without --tls none), or let nobody in.

    \b
      pop3toy check mail.example.org --user ann
      pop3toy check localhost:2590 --tls none --user user
    """
    if deliver_smtp is not None and not destructive:
        raise click.UsageError("--deliver-smtp goes with --destructive.")
    rules = _rules(only)
    host, port = address(server, "HOST[:PORT]", {"implicit": 995}.get(tls or "", 110))
    tls = tls or ("implicit" if port == 995 else "stls")
    password = password_of(password_file)
    if any(end in user + password for end in "\r\n"):
        raise click.UsageError("No name and no password has the end of a line in it.")
    target = Target(
        host=host,
        port=port,
        tls=tls,
        user=user,
        password=password,
        context=trusting(ca_file, insecure=insecure),
        timeout=timeout,
        idle=idle,
        safe=_is_loopback(host),
        destructive=destructive,
        smtp=address(deliver_smtp, "--deliver-smtp", 25) if deliver_smtp is not None else None,
        deliver_to=deliver_to or user,
    )
    examination = Examination(target, time.monotonic)
    try:
        doomed = examination.prepare()
    except CannotTry as why:
        raise Failed(printable(str(why)), NOT_TRIED) from None
    if destructive:
        _say(doomed)
        if any(not one.ours for one in doomed) and not yes and sys.stdin.isatty():
            click.confirm("Go on?", abort=True, err=True)
    try:
        results = run(examination, rules, _progress(len(rules)) if sys.stderr.isatty() else _silence)
    finally:
        if sys.stderr.isatty():
            click.echo("\r\x1b[K", nl=False, err=True)
    if junit is not None:
        junit.write_bytes(as_junit(target, results))
    click.echo(as_json(target, results) if json_ else as_text(target, results), nl=json_)
    if examination.turned_away is not None:
        answer = examination.trace.masked(str(examination.turned_away))
        raise Failed(f"the login was refused, are name and password right? {answer}", NOT_TRIED)
    shut_out = "" if examination.logged_in else examination.trace.masked(examination.shut_out)
    if shut_out and examination.no_stls:
        raise Failed(
            f"nobody could log in, so next to nothing was tested: {shut_out}; --tls none logs in without TLS",
            NOT_TRIED,
        )
    if failures(results):
        return BROKEN
    if shut_out:
        raise Failed(f"nobody could log in, so next to nothing was tested: {shut_out}", NOT_TRIED)
    return os.EX_OK


def _rules(only: tuple[str, ...]) -> list[Rule]:
    names = {rule.name for rule in RULES}
    for name in only:
        if name not in names:
            raise click.BadParameter(
                f"there is no check {name}; docs/checks.rst lists them", param_hint="--only"
            )
    return [rule for rule in RULES if not only or rule.name in only]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _say(doomed: list[Doomed]) -> None:
    """Say which messages may be removed."""
    if not doomed:
        click.echo("No message will be removed: there is none that may be.", err=True)
    for one in doomed:
        uid = printable(one.uid.decode("ascii", "backslashreplace"))
        why = "brought for this" if one.ours else "the first in the mailbox"
        click.echo(f"Will remove the message with unique-id {uid} ({one.octets} octets), {why}.", err=True)


def _progress(count: int) -> Callable[[int, Rule], None]:
    """What says on a terminal how far it is."""
    return lambda at, rule: click.echo(f"\r\x1b[K{at + 1}/{count} {rule.name}", nl=False, err=True)


def _silence(at: int, rule: Rule) -> None:
    """The same for a file."""
