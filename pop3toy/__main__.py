"""``python -m pop3toy``: the server in the foreground, with the options of ``twistd pop3toy``."""

from __future__ import annotations

import sys

from .foreground import run_server

if __name__ == "__main__":
    run_server(sys.argv[1:])
