"""``python -m pop3toy``: the server in the foreground, as ``twistd -n pop3toy`` runs it.

Everything is twistd's: signals, log lines and exit statuses are the same because the program is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["run_server"]


def run_server(words: Sequence[str], command: str = "python -m pop3toy") -> None:
    """Serve until a signal comes; the process ends as twistd's does, for a mistake with status 1.

    :param words: options of ``twistd pop3toy``.
    :param command: what starts it, for its help and for what points there: one of ``tap.FOREGROUND``.
    """
    from twisted.scripts.twistd import run

    # No pid file: whoever starts a program in the foreground knows it, and its folder may be read-only.
    sys.argv = [command, "--nodaemon", "--pidfile=", "pop3toy", *words]
    run()


if __name__ == "__main__":
    run_server(sys.argv[1:])
