"""``pop3toy``: the command line for people who administer the server.

This file only starts it, and says in one line if click is missing.  The commands
are in the files beside it.
"""

from __future__ import annotations

import os
import sys

from ..installation import install_hint

__all__ = ["main"]


def main() -> None:
    """Run the command line, and end the process with its exit status (sysexits.h)."""
    try:
        import click  # noqa: F401
    except ImportError:
        print(f"pop3toy: the command line needs click: {install_hint('cli')}", file=sys.stderr)
        # A mail server keeps what is to be delivered until click is there.
        sys.exit(os.EX_TEMPFAIL if "deliver" in sys.argv[1:2] else os.EX_UNAVAILABLE)
    from .group import run

    sys.exit(run())
