"""The command line of ``twistd pop3toy``: words become settings.

Which options there are, what they say and what is checked is in ``settings``; a
file of them is read by ``toml``.  Nothing is built here.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterable

from twisted.cred import strcred
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.python import usage

from ..errors import CannotStart
from ..option import FLAG, Option
from . import toml
from .settings import Settings
from .source import Source
from .table import OPTIONS, TABLES, merged, settings_of

__all__ = ["Options"]

_ABOUT = (
    "A POP3 server. Without --maildir or --store it is a toy that teaches: user `user`, password `pass`, one"
    " built-in message, and every line of each conversation on the terminal. With one of them it serves real"
    " mail."
)

_OTHERS = {
    "--config FILE": "Read options from this file (TOML), which has them in tables; what the command line"
    " says wins. `pop3toy config check FILE` looks whether it is right.",
    "--no-OPTION": "Take back an option without a value that the file has, as in --no-create.",
    "--help-auth": "Show which checkers --auth knows; --help-auth-type TYPE tells more about one.",
    "--version": "Show the version and end.",
    "--help": "Show this and end.",
}


class Options(usage.Options, strcred.AuthOptionMixin):
    """What the command line says."""

    supportedInterfaces = (IUsernamePassword, IUsernameHashedPassword)
    compData = usage.Completions(
        optActions={name: usage.CompleteFiles() for name, one in OPTIONS.items() if one.kind.path is not None}
    )

    def __init__(self) -> None:
        #: By name, as they were given: text, true, or a list of texts.
        self.given: dict[str, object] = {}
        #: The file that was read, and what stands there, by name.
        self.file: str | None = None
        self.in_file: dict[str, object] = {}
        #: Both, to be read again; only where there is a file.
        self.source: Source | None = None
        #: What all of it means, once it is read.
        self.settings = Settings()
        super().__init__()
        # The mixin would make checkers of them; settings hold text.
        self["credCheckers"], self["credInterfaces"] = [], {}

    def opt_config(self, path: str) -> None:
        """Read options from this file."""
        if not path:
            raise usage.UsageError("--config is empty")
        self.file = os.path.abspath(path)

    def opt_version(self) -> None:
        """Show the version and end."""
        from .._version import __version__

        print(f"pop3toy {__version__}")
        raise SystemExit(0)

    def parseArgs(self, *words: str) -> None:
        """Take nothing but options.

        :raises twisted.python.usage.UsageError: if there is more.
        """
        if words:
            is_port = words[0].isdigit()
            hint = f"; did you mean --port {words[0]}?" if is_port else "; a file of them is --config FILE"
            raise usage.UsageError(f"only options are taken, and {words[0]!r} is none{hint}")

    def postOptions(self) -> None:
        """Make settings of it.

        :raises twisted.python.usage.UsageError: if something cannot be, or does not go together.
        """
        try:
            if self.file is not None:
                self.source = Source(self.file, self.given)
                self.in_file = toml.read(self.file)
            self.settings = settings_of(merged(self.in_file, self.given))
            self.settings.check_whole()
        except CannotStart as why:
            raise usage.UsageError(toml.located(why, self.file, self.in_file, self.given)) from None

    def getUsage(self, width: int | None = None) -> str:
        """The help: the options of each table together."""
        wide = min(width or 100, 100)
        lines = ["", *textwrap.wrap(_ABOUT, wide), ""]
        for table, title in TABLES.items():
            lines.append(f"{title}:")
            for one in OPTIONS.values():
                if one.table == table:
                    lines += _explained(
                        _written(one), one.help + " May be given several times." * one.many, wide
                    )
            lines.append("")
        lines.append("More:")
        for written, text in _OTHERS.items():
            lines += _explained(written, text, wide)
        return "\n".join(lines) + "\n"


def _written(one: Option) -> str:
    """``-p, --port NUMBER``."""
    short = f"-{one.short}, " if one.short else ""
    return f"{short}--{one.name} {one.kind.metavar}".rstrip()


def _explained(written: str, text: str, wide: int) -> Iterable[str]:
    indent = " " * 8
    return [f"  {written}", *textwrap.wrap(text, wide, initial_indent=indent, subsequent_indent=indent)]


def _flag(one: Option, value: bool) -> Callable[[Options], None]:
    def take(self: Options) -> None:
        self.given[one.name] = value

    take.__doc__ = one.help
    return take


def _valued(one: Option) -> Callable[[Options, str], None]:
    def take(self: Options, text: str) -> None:
        if one.kind.path is not None and text and one.kind.path(text):
            # twistd changes to another folder when it becomes a daemon.
            text = os.path.abspath(text)
        if one.many:
            before = self.given.get(one.name)
            self.given[one.name] = [*(before if isinstance(before, list) else ()), text]
        else:
            self.given[one.name] = text

    take.__doc__ = one.help
    return take


# Twisted's parser finds options as methods by their names.
for _one in OPTIONS.values():
    _attribute = _one.name.replace("-", "_")
    if _one.kind is FLAG:
        setattr(Options, f"opt_{_attribute}", _flag(_one, True))
        setattr(Options, f"opt_no_{_attribute}", _flag(_one, False))
    else:
        setattr(Options, f"opt_{_attribute}", _valued(_one))
    if _one.short:
        setattr(Options, f"opt_{_one.short}", getattr(Options, f"opt_{_attribute}"))
