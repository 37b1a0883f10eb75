"""All manual pages: ``python -m pop3toy.cli.manual.pages docs/man`` writes them there.

Options of the server and of its file come from ``config.table``, as the help and
docs/reference.rst do; commands from click.  What is written here is what neither knows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from ..._version import __version__
from ...auth.accounts.schemes import MADE
from ...config.changes import TAKEN_UP
from ...config.reference import example
from ...config.table import OPTIONS, TABLES
from ...option import Option
from ..group import pop3toy
from .roff import entry, literal, paragraph, section, subsection, title

__all__ = ["pages"]

_ABOUT = {
    "pop3toy.1": "look after a pop3toy mail server",
    "twistd-pop3toy.1": "a POP3 server that takes mail in, or a toy that teaches",
    "pop3toy.toml.5": "options of the pop3toy mail server",
    "pop3toy-accounts.5": "users and passwords of the pop3toy mail server",
    "pop3toy-aliases.5": "other names for users of the pop3toy mail server",
}


def pages() -> dict[str, str]:
    """The text of each page, by the name of its file."""
    made = {
        "pop3toy.1": _commands,
        "twistd-pop3toy.1": _server,
        "pop3toy.toml.5": _file,
        "pop3toy-accounts.5": _accounts,
        "pop3toy-aliases.5": _aliases,
    }
    return {name: _head(name) + "".join(body()) + _see_also(name) for name, body in made.items()}


def _head(page: str) -> str:
    name, _, number = page.rpartition(".")
    # NAME is one line "name \- what it is", which whatis(1) reads.
    line = paragraph(f"{name} - {_ABOUT[page]}").removeprefix(".PP\n")
    return (
        '.\\" Made by python -m pop3toy.cli.manual.pages docs/man\n'
        + title(name, int(number), __version__)
        + section("name")
        + line
    )


def _see_also(page: str) -> str:
    others = [name.rpartition(".") for name in _ABOUT if name != page]
    return section("see also") + paragraph(", ".join(f"`{name}`({number})" for name, _, number in others))


def _commands() -> Iterator[str]:
    yield section("synopsis")
    yield paragraph("`pop3toy` [`--config` FILE] COMMAND [OPTIONS] ...")
    yield section("description")
    yield from _help(pop3toy)
    yield section("options")
    yield from _parameters(click.Context(pop3toy, info_name="pop3toy", **pop3toy.context_settings))
    yield section("commands")
    yield from _below(click.Context(pop3toy, info_name="pop3toy", **pop3toy.context_settings))
    yield section("exit status")
    yield paragraph(
        "0 if all is well, and 1 for a no: something differs, is in trouble, or was not wanted after all."
        " Else one of sysexits.h: 64 the command line is wrong, 65 something in the mail or the accounts is,"
        " 66 a file or folder is missing, 67 there is no such user or mailbox, 69 a server does not answer,"
        " 70 a bug, 74 a disk, 75 what may pass (a mailbox that is open, a store that does not answer), 77"
        " permission is missing, 78 the file of options is wrong. `pop3toy deliver` has 75 for all that an"
        " administrator has to mend, so that no mail goes back for it; what a command says of itself goes"
        " before this."
    )


def _below(context: click.Context) -> Iterator[str]:
    assert isinstance(context.command, click.Group)
    for name, command in context.command.commands.items():
        if command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context, **command.context_settings)
        if isinstance(command, click.Group):
            yield from _below(inner)
            continue
        words = " ".join(command.collect_usage_pieces(inner))
        yield subsection(inner.command_path)
        yield paragraph(f"`{inner.command_path}` {words}")
        yield from _help(command)
        yield from _parameters(inner)


def _help(command: click.Command) -> Iterator[str]:
    for block in (command.help or "").split("\n\n"):
        lines = block.strip("\n").splitlines()
        if lines and lines[0].strip() == "\b":
            yield literal(line.strip() for line in lines[1:])
        elif lines:
            yield paragraph(" ".join(lines))


def _parameters(context: click.Context) -> Iterator[str]:
    for one in context.command.get_params(context):
        record = None if isinstance(one, click.Argument) else one.get_help_record(context)
        if record is not None:
            yield entry(*record)


def _server() -> Iterator[str]:
    yield section("synopsis")
    yield paragraph("`twistd` [`-n`] [`--pidfile=` FILE] ... `pop3toy` [OPTIONS]")
    yield paragraph("`pop3toy serve` [OPTIONS]")
    yield section("description")
    yield paragraph(
        "A POP3 server. Without `--maildir` or `--store` it is a toy that teaches: user `user`, password"
        " `pass`, one built-in message, and every line of each conversation on the terminal. With one of"
        " them it serves real mail. Options of `twistd` itself, such as `-n` (stay in the foreground),"
        " stand before the word `pop3toy`; see `twistd`(1). `pop3toy serve` is `twistd -n pop3toy`."
    )
    yield section("options")
    yield entry(
        "--config FILE", "Read options from this file, as pop3toy.toml(5) has them. The command line wins."
    )
    yield entry("--no-OPTION", "Take back an option without a value that the file has, as in `--no-create`.")
    for table, heading in TABLES.items():
        yield subsection(heading)
        for one in _of(table):
            short = f"-{one.short}, " if one.short else ""
            yield entry(f"{short}--{one.name} {one.kind.metavar}".rstrip(), _said(one))
    yield section("signals")
    yield entry("SIGHUP", "Certificates are read again, and what can change of the file without a restart.")
    yield entry("SIGTERM, SIGINT", "Sessions get the answer that they wait for, and the server ends.")


def _file() -> Iterator[str]:
    yield section("description")
    yield paragraph(
        "A file of options for `twistd pop3toy --config` and `pop3toy --config`, in TOML 1.0. A file or"
        " folder that is not named in full is looked for beside the file. `pop3toy config check` FILE"
        " looks whether it is right, `pop3toy config init` FILE writes a first one, and `pop3toy config"
        " show` says what is in force."
    )
    yield literal(
        (
            "[pop3]",
            "port = 110",
            "",
            "[store]",
            'maildir = "/srv/mail/{user}"',
            "",
            "[accounts]",
            'accounts = "accounts"',
        )
    )
    for table, heading in TABLES.items():
        yield section(f"[{table}]")
        yield paragraph(f"{heading}.")
        for one in _of(table):
            again = ("Taken up by a reload.",) if one.name in TAKEN_UP else ()
            yield entry(f"{one.name} = {example(one)}", one.help, again)


def _accounts() -> Iterator[str]:
    yield section("description")
    yield paragraph(
        "One line a user. Dovecot's passwd-file is read as it is: its fields uid, gid, gecos, home and"
        " shell may be there. `#` begins a comment. The file is read again when it changes. `pop3toy user`"
        " changes it; whoever writes it otherwise writes another file and renames it."
    )
    yield literal(("name:{SCHEME}hash:key=value", "ann:{ARGON2ID}$argon2id$v=19$...:quota=500M"))
    yield paragraph(
        f"`pop3toy user add` makes these schemes: {', '.join(sorted(MADE))}. More are read: those of Dovecot."
    )
    yield section("settings")
    yield entry(
        "quota=500M",
        "How much the mailbox may hold: a number of octets, or with K, M, G; `none` is no limit.",
    )
    yield entry(
        "nologin", "The user cannot log in; mail still comes. `pop3toy user disable` writes `nologin=y`."
    )
    yield entry("allow_nets=192.0.2.0/24,local", "From where the user may log in.")
    yield entry("app-password.NAME=...", "A further secret; `pop3toy user app-password` writes these.")
    yield entry(
        "renamed-from=NAME", "A renaming that has not come to its end: `pop3toy user rename` goes on with it."
    )


def _aliases() -> Iterator[str]:
    yield section("description")
    yield paragraph(
        "The file of `--aliases`: one alias a line, a colon, and the users, aliases or addresses of the"
        " server's domains that get its mail, with commas between. The name may be a whole address, for"
        " that domain alone. `#` in the beginning of a line makes it a comment; a line that begins with a"
        " blank goes on with the one before. Case does not count. Nothing is sent on to other servers."
    )
    yield literal(("info: ann, bob", "postmaster: ann", "sales@example.org: bob"))
    yield paragraph(
        "It is looked at once a second. A slip in it is told in the log with its line, and the aliases"
        " stay as they were; at start it ends the server."
    )


def _of(table: str) -> Iterator[Option]:
    return (one for one in OPTIONS.values() if one.table == table)


def _said(one: Option) -> str:
    return one.help + " May be given several times." * one.many


def write(folder: Path) -> None:
    """Write all pages into a folder."""
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="ascii")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
