"""``python -m pop3toy``: the server in the foreground, as ``twistd -n pop3toy`` runs it.

``python -m pop3toy serve`` is the same, which ``pop3toy serve`` becomes; then that is its name.
Everything is twistd's: signals, log lines and exit statuses are the same because the program is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["run_server"]


def run_server(words: Sequence[str]) -> None:
    """Serve until a signal comes; the process ends as twistd's does, for a mistake with status 1.

    :param words: options of ``twistd pop3toy``, behind ``serve`` if that is the command that was given.
    """
    from twisted.scripts.twistd import run

    # For the help, and for what points there: one of ``tap.FOREGROUND``.
    command = "python -m pop3toy"
    if words[:1] == ["serve"]:
        command, words = "pop3toy serve", words[1:]
    # No pid file: whoever starts a program in the foreground knows it, and its folder may be read-only.
    sys.argv = [command, "--nodaemon", "--pidfile=", "pop3toy", *words]
    run()


if __name__ == "__main__":
    run_server(sys.argv[1:])
