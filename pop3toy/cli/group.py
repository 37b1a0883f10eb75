"""The command line as a whole: its commands, its errors and its exit status.

What each command does is in ``users``, ``deliver``, ``mailbox`` and
``transfer``.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from click.exceptions import NoArgsIsHelpError
from click.shell_completion import get_completion_class

from .._version import __version__
from .check import check
from .config import config
from .copying.command import copy
from .deliver import deliver
from .mailbox import mailbox
from .moving.adopt import accept, adopt
from .moving.compare import compare
from .moving.fetch import fetch
from .options import config_option_of_all, failure, printable
from .queue.command import queue
from .removed.expire import expire
from .removed.undo import undo
from .replay import replay
from .starting.serve import serve
from .store import store
from .transfer import export, import_
from .users.command import user
from .who import close, drain, status, watch, who

__all__ = ["pop3toy", "run"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="pop3toy")
@config_option_of_all
def pop3toy(config: Path | None) -> None:
    """Look after a pop3toy mail server: its users and their mail.

    The server itself is started with twistd; its options say where accounts and
    Maildirs are, and so do the options here, or the environment:

    \b
      export POP3TOY_ACCOUNTS=/etc/pop3toy/accounts
      export POP3TOY_MAILDIR='/srv/mail/{user}'
      twistd -n pop3toy --accounts "$POP3TOY_ACCOUNTS" --maildir "$POP3TOY_MAILDIR"

    A file of the server's options is read here, too: --config FILE, or
    POP3TOY_CONFIG in the environment.

    A first user, and a first message:

    \b
      pop3toy user add ann
      printf 'Subject: hello\\n\\nIt works.\\n' | pop3toy deliver --create ann
      pop3toy mailbox list ann
    """


@pop3toy.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands, options and users.

    \b
      bash:  pop3toy completion bash > ~/.local/share/bash-completion/completions/pop3toy
      zsh:   pop3toy completion zsh > ~/.zfunc/_pop3toy
      fish:  pop3toy completion fish > ~/.config/fish/completions/pop3toy.fish
    """
    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(complete(pop3toy, {}, "pop3toy", "_POP3TOY_COMPLETE").source())


mailbox.add_command(accept)
mailbox.add_command(adopt)
mailbox.add_command(expire)
mailbox.add_command(import_)
mailbox.add_command(export)
mailbox.add_command(fetch)
mailbox.add_command(compare)
mailbox.add_command(undo)
store.add_command(copy)
pop3toy.add_command(check)
pop3toy.add_command(config)
pop3toy.add_command(user)
pop3toy.add_command(deliver)
pop3toy.add_command(mailbox)
pop3toy.add_command(queue)
pop3toy.add_command(replay)
pop3toy.add_command(serve)
pop3toy.add_command(store)
for _of_a_running_server in (who, status, close, drain, watch):
    pop3toy.add_command(_of_a_running_server)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    :param arguments: the process's own if not given.
    :return: the exit status: 0, 1 for a no, or one of sysexits.h. ``deliver`` has its own, since mail
        servers act on them.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Characters that the terminal's encoding lacks are escaped.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        result = pop3toy.main(args=arguments, prog_name="pop3toy", standalone_mode=False)
    except click.UsageError as error:
        _show_mistake(error)
        return os.EX_USAGE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("Stopped.", err=True)
        return 1
    except Exception as error:
        text, status = failure(error)
        click.echo(f"Error: {text}", err=True)
        return status
    return result if isinstance(result, int) else os.EX_OK


def _show_mistake(error: click.UsageError) -> None:
    """A line that says what is wrong, and one that says where to read on."""
    command = error.ctx.command_path if error.ctx is not None else "pop3toy"
    whole = error.ctx is None or error.ctx.command is pop3toy
    if isinstance(error, NoArgsIsHelpError):
        # A command that has others below it, and none was given: its help says which there are.
        error.show()
    else:
        click.echo(f"Error: {printable(' '.join(error.format_message().split()))}", err=True)
        # Most likely options of the server, or a command to start it, were meant.
        server = "; the server itself is another command: twistd -n pop3toy --help" if whole else ""
        click.echo(f"Try: {command} --help{server}", err=True)
