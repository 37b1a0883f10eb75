"""``pop3toy serve``: the server in the foreground."""

from __future__ import annotations

import os
import sys

import click

__all__ = ["serve"]


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    options_metavar="[OPTIONS OF THE SERVER]",
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def serve(context: click.Context, words: tuple[str, ...]) -> None:
    """Serve in the foreground, as twistd -n pop3toy does; `pop3toy serve --help` shows the options.

    \b
      pop3toy serve --config /etc/pop3toy/pop3toy.toml

    Ctrl-C and SIGTERM end it, SIGHUP has it read its file again. twistd has more
    options of its own, as for a log file, a daemon and another user.
    """
    config = context.find_root().params.get("config") or os.environ.get("POP3TOY_CONFIG")
    if config and not any(word == "--config" or word.startswith("--config=") for word in words):
        words = (f"--config={config}", *words)
    # A process that has no log yet: a command writes its own words alone.  -P: the folder in which somebody
    # happens to be is no place for modules.  The word says which command its help and mistakes name.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "pop3toy", "serve", *words])
