"""``pop3toy store``: object storage that mail is kept in, or may be."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from ..errors import BadSetting, CannotStart
from ..stores.objects.qualification.examination import Report, examined
from ..stores.objects.settings import Objects
from .options import Failed, IntRange, config_option, printable, store_of, wrong

__all__ = ["store"]

_Command = TypeVar("_Command", bound=Callable[..., object])


@click.group()
def store() -> None:
    """Look after object storage that mail is kept in."""


def _said(name: str, metavar: str, text: str) -> Callable[[_Command], _Command]:
    """An option that the server has, too."""
    variable = f"POP3TOY_STORE_{name.upper()}"
    return click.option(f"--store-{name}", metavar=metavar, envvar=variable, show_envvar=True, help=text)


@store.command()
@click.argument("url", required=False, envvar="POP3TOY_STORE")
@config_option
@_said("endpoint", "URL", "Where it is, unless it is the cloud's own.")
@_said("credentials", "FILE", "A file with credentials, in place of the environment.")
@_said("region", "NAME", "Its region.")
@click.option(
    "--processes",
    type=IntRange(1, 64),
    default=4,
    show_default=True,
    help="How many processes ask at the same time.",
)
@click.option("--rounds", type=IntRange(1, 100_000), default=50, show_default=True, help="How often they do.")
@click.option("--json", "json_", is_flag=True, help="Print it as JSON.")
def check(
    url: str | None,
    config: Path | None,
    store_endpoint: str | None,
    store_credentials: str | None,
    store_region: str | None,
    processes: int,
    rounds: int,
    json_: bool,
) -> int:
    """Look whether an object storage can hold mail, and how fast it is.

    Several processes create and replace the same objects at the same time: exactly one
    may succeed. What was written has to be listed at once. All that is made lies under
    a prefix of its own, p/check-..., and is removed. The exit status is 0 if mail may
    be put there, and 69 if not, or if it cannot be reached. Without URL it is the
    store of a server's file of options.

    \b
      pop3toy store check s3://mail --store-endpoint https://s3.example.org
      pop3toy store check --config /etc/pop3toy/pop3toy.toml
    """
    words = {
        "store": url,
        "store-endpoint": store_endpoint,
        "store-credentials": store_credentials,
        "store-region": store_region,
    }
    given: dict[str, object] = {name: value for name, value in words.items() if value is not None}
    if url is None and config is None:
        raise click.MissingParameter(
            "A file for --config can say it, too.", param_hint="'URL'", param_type="argument"
        )
    try:
        settings = store_of(config, given)
        if not isinstance(settings, Objects):
            raise Failed(printable(f"{config}: [store] store is missing, and no URL is given"), os.EX_CONFIG)
        report = examined(
            settings,
            processes=processes,
            rounds=rounds,
            clock=time.perf_counter,
            say=_progress if sys.stderr.isatty() else lambda step: None,
        )
    except BadSetting as why:
        hint = "URL" if why.option == "store" else f"--{why.option}"
        raise wrong(hint, why.text) from None
    except CannotStart as why:
        raise Failed(printable(str(why)), os.EX_UNAVAILABLE) from None
    finally:
        if sys.stderr.isatty():
            click.echo("\r\x1b[K", nl=False, err=True)
    click.echo(_as_json(report) if json_ else _as_text(report))
    return os.EX_OK if report.fit else os.EX_UNAVAILABLE


def _progress(step: str) -> None:
    click.echo(f"\r\x1b[K{step}", nl=False, err=True)


def _as_json(report: Report) -> str:
    said = report._asdict()
    said["results"] = [one._asdict() for one in report.results]
    said["figures"] = [one._asdict() for one in report.figures]
    return json.dumps(said, indent=2)


def _as_text(report: Report) -> str:
    lines = [
        f"{'ok' if one.passed else 'FAILED':6}  {one.name:22}  {printable(one.detail)}"
        for one in report.results
    ]
    if report.figures:
        lines += ["", f"{'milliseconds':16} {'median':>10} {'p95':>10} {'max':>10}"]
        lines += [
            f"{one.name:16} {one.median:10.2f} {one.p95:10.2f} {one.max:10.2f}" for one in report.figures
        ]
    return "\n".join([*lines, "", printable(report.verdict)])
