"""``pop3toy``: the command line for people who administer the server.

This file only starts it, and says in one line if click is missing.  The commands
are in the files beside it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ..installation import install_hint

if TYPE_CHECKING:
    from twisted.logger import LogEvent

__all__ = ["main"]


def main() -> None:
    """Run the command line, and end the process with its exit status (sysexits.h)."""
    try:
        import click  # noqa: F401
    except ImportError:
        print(f"pop3toy: the command line needs click: {install_hint('cli')}", file=sys.stderr)
        # A mail server keeps what is to be delivered until click is there.
        sys.exit(os.EX_TEMPFAIL if "deliver" in sys.argv[1:] else os.EX_UNAVAILABLE)
    from twisted.logger import ILogObserver, globalLogBeginner
    from zope.interface import provider

    from .group import run

    # A command says in one line what is wrong; only a bug that nobody waits for would be lost without this.
    globalLogBeginner.beginLoggingTo(
        [provider(ILogObserver)(_show_bug)], redirectStandardIO=False, discardBuffer=True
    )
    sys.exit(run())


def _show_bug(event: LogEvent) -> None:
    failure = event.get("log_failure")
    if failure is not None:
        print(f"Error: {type(failure.value).__name__}: {failure.getErrorMessage()}", file=sys.stderr)
