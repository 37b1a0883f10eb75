"""Draws ``docs/inspector.png``: the inspector while curl fetches a message, as README shows it.

``python -m tests.draw_inspector docs/inspector.png``, with Chromium and curl.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .browsing import Browser, inspector_link
from .realserver import DEADLINE, RealServer
from .strictclient import StrictClient

#: Pixels.
WIDTH, HEIGHT = 1210, 660


def draw(picture: Path) -> None:
    """Let clients come, and take the picture."""
    browser = Browser(WIDTH, HEIGHT)
    try:
        with RealServer("--inspector-port=0") as server, StrictClient(server.port):
            curl = ["curl", "-sS", f"pop3://user:pass@127.0.0.1:{server.port}/1"]
            subprocess.run(curl, stdout=subprocess.DEVNULL, timeout=DEADLINE, check=True)
            with StrictClient(server.port) as client:
                client.login(b"user", b"pass")
                client.size(1)
                client.uid(1)
                browser.size(WIDTH, HEIGHT)
                browser.dark(False)
                browser.open(inspector_link(server))
                browser.until_text("#live", "user")
                browser.one("#live tr a").click()
                browser.until_text("#steps", "LIST 1", "UIDL 1")
                client.dele(1)
                browser.until_text("#steps", "DELE 1", "message 1 deleted")
                # The focus is for those who use the keyboard.
                browser.run("document.activeElement.blur()")
                browser.picture(picture)
    finally:
        browser.quit()


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
