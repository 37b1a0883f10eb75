"""The options of ``twistd pop3toy``: what they are called, what they say, what fits together.

Nothing is built here; ``tap`` does that.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from typing import Any

from twisted.python import usage

from ..stores.maildir.paths import MaildirPaths
from .auth import AuthOptions
from .checks import existing_path, may, port_number, whole_number, why_unusable
from .mail_in import MailInOptions
from .tls import TLSOptions

__all__ = ["Options"]

#: Each has memory of its own and looks at the counts of all others.
MOST_WORKERS = 64


class Options(AuthOptions, TLSOptions, MailInOptions):
    """What the command line says."""

    synopsis = "[options]"
    longdesc = (
        "A POP3 server. Without --maildir it is a toy that teaches: user `user`, password `pass`, one"
        " built-in message, and every line of each conversation on the terminal. With --maildir it serves"
        " real mail."
    )
    optParameters = [
        ["port", "p", "2590", "The TCP port where mail programs connect. 0 takes any free one."],
        [
            "interface",
            "i",
            "127.0.0.1",
            "The address to listen on: 127.0.0.1 is this machine only, 0.0.0.0 or :: is every network.",
        ],
        [
            "maildir",
            "m",
            None,
            "Serve the Maildirs at this path, with {user} where the user's name goes:"
            " '/srv/mail/{user}' or '/home/{user}/Maildir'.",
        ],
        [
            "max-listed-size",
            None,
            None,
            "The octets that a message's file may have to be counted when its name does not tell its size"
            " (default 2147483648); a larger one is listed by its size on the disk, and logged.",
        ],
        [
            "transcript",
            None,
            None,
            "Where the conversations are written: '-' is the terminal (the toy's default), a file's name, or"
            " 'off' (the default with --maildir). Passwords are masked, except the toy's own.",
        ],
        [
            "workers",
            "w",
            None,
            "Serve with this many processes on the same ports, or `auto` for one on each core; one that dies"
            " is started again. Limits hold for all of them together. Default: one process, not watched.",
        ],
    ]
    optFlags = [
        ["create", None, "Make a user's missing Maildir at the first login, instead of refusing."],
    ]
    compData = usage.Completions(
        optActions={
            "accounts": usage.CompleteFiles(),
            "aliases": usage.CompleteFiles(),
            "certificate": usage.CompleteFiles(),
            "certificates": usage.CompleteDirs(),
            "client-ca": usage.CompleteFiles(),
            "key": usage.CompleteFiles(),
            "maildir": usage.CompleteDirs(),
            "transcript": usage.CompleteFiles(),
        }
    )

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []
        self["message"] = []
        self.maildirs: MaildirPaths | None = None
        #: Whether it was seen before that files and folders are there; then
        #: their absence is a trouble that may pass, and no mistake.
        self.checked = False
        #: What was given, and where; workers read it again.
        self.arguments: list[str] = []
        self.folder = ""

    def opt_listen(self, endpoint: str) -> None:
        """Where to listen, as a Twisted endpoint, instead of --port and --interface. May be given several
        times: tcp:2590, tcp6:2590, unix:/run/pop3toy.sock, systemd:domain=INET:index=0, haproxy:tcp:2590.
        """
        self["listen"].append(endpoint)

    def opt_message(self, path: str) -> None:
        """A message for the built-in mailbox, instead of the one that says hello: a file as a mail program
        saves it (.eml). May be given several times.
        """
        self["message"].append(path)

    def parseArgs(self, *words: str) -> None:
        """Take nothing but options.

        :raises twisted.python.usage.UsageError: if there is more.
        """
        if words:
            hint = f"; did you mean --port {words[0]}?" if words[0].isdigit() else ""
            raise usage.UsageError(f"only options are taken, and {words[0]!r} is none{hint}")

    def getUsage(self, width: int | None = None) -> str:
        """The help, without the indentation that docstrings of several lines have."""
        self.docs = {name: " ".join((text or "").split()) for name, text in self.docs.items()}
        return super().getUsage(width)

    def opt_version(self) -> None:
        """Show the version and end."""
        from .. import __version__

        print(f"pop3toy {__version__}")
        sys.exit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the command line; a mistake in it is one line and exit status 1.

        twistd would print the whole help above the line that matters.
        """
        self.arguments = list(options or ())
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            sys.exit(f"pop3toy: {error} (twistd pop3toy --help tells more)")

    def postOptions(self) -> None:
        """See what fits together.

        :raises twisted.python.usage.UsageError: if something does not.
        """
        port_number(self, "port")
        whole_number(self, "max-listed-size", 0, 10**14)
        if not self["interface"]:
            # To the system it means every network, and to whoever left it out it does not.
            raise usage.UsageError("--interface is an address; 0.0.0.0 or :: is every network")
        self.check_auth()
        self.check_tls()
        self.check_mail_in()
        if self["maildir"] is None:
            self._without_maildir()
        else:
            self._with_maildir(self["maildir"])
        self._transcript()
        self._workers()
        self._files_of_twistd()
        for name, value in self.items():
            # As of `--maildir "$MAILDIR"` where the variable is not set.
            if value == "":
                raise usage.UsageError(f"--{name} is empty")

    def _without_maildir(self) -> None:
        if self["credCheckers"]:
            raise usage.UsageError("--auth needs --maildir: the built-in message is for --user accounts")
        if self["accounts"]:
            raise usage.UsageError("--accounts needs --maildir: the built-in message is for --user accounts")
        if self["create"]:
            raise usage.UsageError("--create needs --maildir")
        if self["max-listed-size"] is not None:
            raise usage.UsageError("--max-listed-size needs --maildir")
        for at, path in enumerate(self["message"]):
            self["message"][at] = existing_path("message", path)

    def _with_maildir(self, pattern: str) -> None:
        if not pattern:
            raise usage.UsageError("--maildir is empty")
        if self["message"]:
            raise usage.UsageError("--message is for the built-in mailbox; a Maildir has messages of its own")
        if not self.has_accounts:
            raise usage.UsageError(
                "who may log in? Give --accounts FILE, --user NAME:PASSWORD, or --auth (see --help-auth)"
            )
        one_user = len(self["user"]) == 1 and not self["credCheckers"] and self["accounts"] is None
        if "{user}" not in pattern and ("{" in pattern or not one_user):
            raise usage.UsageError("--maildir needs {user} in its path, where the user's name goes")
        self.maildirs = MaildirPaths(pattern, create=bool(self["create"]))
        folder = self.maildirs.root
        if "{user}" not in pattern and not self["create"]:
            folder = os.path.abspath(os.path.expanduser(pattern))
        if self.checked:
            return
        if why := why_unusable(folder, stat.S_ISDIR, "folder", os.X_OK, "enter"):
            raise usage.UsageError(f"--maildir: {why}")
        if folder != self.maildirs.root and not any(
            os.path.isdir(os.path.join(folder, name)) for name in ("new", "cur", "tmp")
        ):
            raise usage.UsageError(
                f"--maildir: {folder} is no Maildir, which has new, cur and tmp in it; if each user has one"
                " in it, {user} goes where the user's name does"
            )

    def _transcript(self) -> None:
        where = self["transcript"]
        if where is None:
            self["transcript"] = "-" if self["maildir"] is None else "off"
        elif where not in ("-", "off"):
            self["transcript"] = path = os.path.abspath(where)
            folder = os.path.dirname(path)
            if self.checked:
                return
            if os.path.isdir(path) or not os.path.isdir(folder):
                raise usage.UsageError(f"--transcript: cannot write to {path}")
            if not may(path if os.path.exists(path) else folder, os.W_OK):
                raise usage.UsageError(f"--transcript: no permission to write {path}")

    def _workers(self) -> None:
        if self["workers"] is None:
            return
        self.folder = os.getcwd()
        if self["workers"] == "auto":
            self["workers"] = _cores()
        try:
            whole_number(self, "workers", 1, MOST_WORKERS)
        except usage.UsageError as error:
            raise usage.UsageError(f"{error}, or auto") from None
        if self["maildir"] is None:
            raise usage.UsageError("--workers needs --maildir: the built-in message is in one process alone")
        if self.twistd.get("chroot"):
            raise usage.UsageError("--workers does not go with twistd's --chroot")

    def _files_of_twistd(self) -> None:
        """twistd would end with a traceback where it cannot write it, or its log."""
        for option in ("pidfile", "logfile"):
            path = self.twistd.get(option)
            if not path or path == "-":
                continue
            folder, name = os.path.split(os.path.abspath(path))
            try:
                os.stat(folder)
            except FileNotFoundError:
                raise usage.UsageError(f"twistd --{option} {path}: there is no folder {folder}") from None
            except OSError:
                # It may not be looked at; then it may not be written to either.
                pass
            if not may(folder, os.W_OK):
                raise usage.UsageError(
                    f"no permission to write {name} into {folder}: start elsewhere, or say where it goes,"
                    f" twistd --{option} FILE pop3toy"
                )
            if option == "pidfile":
                _forget_own_number(path)

    @property
    def twistd(self) -> dict[str, Any]:
        """The options of twistd itself, those before our name."""
        parent: Any = self.parent
        return parent or {}


def _forget_own_number(path: str) -> None:
    """Remove a pid file with this process's own number, left behind by one that was killed.

    twistd would take it for another server that runs; as process 1 of a container it always would.
    """
    try:
        with open(path, encoding="ascii") as file:
            ours = file.read().strip() == str(os.getpid())
        if ours:
            os.unlink(path)
    except (OSError, ValueError):
        # twistd says what is wrong with it.
        pass


def _cores() -> int:
    """Cores that this process may use."""
    # Where the system cannot tell, all that there are.
    allowed = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return min(len(allowed(0)), MOST_WORKERS)
