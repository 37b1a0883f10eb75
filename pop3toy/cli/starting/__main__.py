"""What ``pop3toy serve`` becomes: the server, whose help and mistakes name that command."""

from __future__ import annotations

import sys

from ...__main__ import run_server

if __name__ == "__main__":
    run_server(sys.argv[1:], "pop3toy serve")
