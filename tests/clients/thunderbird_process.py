"""Thunderbird as a process, and its remote control.

Here lives what starts Debian's Thunderbird without a screen and without a
network, on a profile of its own, and speaks Marionette with it, the remote
control that it brings along.  What to do with it is in ``thunderbird`` and
``newcomer``.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any, Self

from ..realserver import DEADLINE, environment, wait_until

__all__ = ["DialogOpen", "Preferences", "ThunderbirdProcess", "missing"]

Preferences = dict[str, str | int | bool]

_QUIET: Preferences = {
    "marionette.port": 0,
    # No questions, no offers.
    "mail.rights.version": 1,
    "mail.shell.checkDefaultClient": False,
    "mailnews.start_page.enabled": False,
    "app.donation.eoy.version.viewed": 999,
    "app.update.enabled": False,
    "extensions.update.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "datareporting.policy.dataSubmissionPolicyBypassNotification": True,
    # Nothing leaves this machine: all but loopback goes to a proxy that is not there.
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.proxy.type": 1,
    "network.proxy.socks": "127.0.0.1",
    "network.proxy.socks_port": 9,
    "network.proxy.socks_remote_dns": True,
    "network.proxy.no_proxies_on": "127.0.0.1",
}

_PRELUDE = """
const done = arguments[arguments.length - 1];
(async () => {
    %s
})().then((value) => done({value}), (error) => done({error: String(error)}));
"""


def missing() -> str | None:
    """Why Thunderbird cannot be run here, or ``None`` if it can."""
    if shutil.which("thunderbird") is None:
        return "thunderbird is not installed (Debian package thunderbird)"
    return None


class DialogOpen(AssertionError):
    """A dialog must be answered before anything else can be done; Thunderbird's user does that."""


class _Marionette:
    """The remote control: JSON with its length in front, one answer for each command."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 2 * DEADLINE)
        self._file = self._socket.makefile("rb")
        self._number = 0
        self._receive()
        self.ask("WebDriver:NewSession", unhandledPromptBehavior="ignore")
        self.ask("Marionette:SetContext", value="chrome")
        self.ask("WebDriver:SetTimeouts", script=int(DEADLINE * 1000))

    def _receive(self) -> Any:
        length = b""
        while (octet := self._file.read(1)) != b":":
            if not octet:
                raise EOFError("Thunderbird has ended")
            length += octet
        return json.loads(self._file.read(int(length)))

    def ask(self, command: str, **parameters: object) -> Any:
        """Send a command; its result."""
        self._number += 1
        message = json.dumps([0, self._number, command, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(message), message))
        _, _, error, result = self._receive()
        if error:
            kind = DialogOpen if error["error"] == "unexpected alert open" else AssertionError
            raise kind(f"Thunderbird: {error}")
        return result

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()


class ThunderbirdProcess:
    """A running Thunderbird; a context manager that ends it.

    :param home: an empty folder.
    :param preferences: what its user has set.
    :param screen: width and height of its window, pixels.
    """

    def __init__(self, home: Path, preferences: Preferences, screen: tuple[int, int] = (1240, 520)) -> None:
        profile = home / "profile"
        profile.mkdir(parents=True)
        lines = [
            f"user_pref({json.dumps(name)}, {json.dumps(value)});\n"
            for name, value in {**_QUIET, **preferences}.items()
        ]
        (profile / "user.js").write_text("".join(lines))
        self._words = home / "words"
        with self._words.open("wb") as words:
            self._process = subprocess.Popen(
                [
                    *("thunderbird", "--headless", "--no-remote", "--profile", str(profile)),
                    *("--marionette", "--remote-allow-system-access"),
                ],
                env={
                    **environment(home),
                    "MOZ_HEADLESS_WIDTH": str(screen[0]),
                    "MOZ_HEADLESS_HEIGHT": str(screen[1]),
                },
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=subprocess.STDOUT,
                # A group of its own: the program is a script that starts others.
                start_new_session=True,
            )
        try:
            port_file = profile / "MarionetteActivePort"
            wait_until(lambda: self._told(port_file), "Thunderbird can be asked")
            self._marionette = _Marionette(int(port_file.read_text()))
        except BaseException:
            self.end()
            raise

    def _told(self, port_file: Path) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"Thunderbird ended:\n{self._words.read_text('utf-8', 'replace')}")
        return port_file.exists() and port_file.read_text().isdigit()

    def run(self, script: str, *arguments: object) -> Any:
        """Run JavaScript in the main window, as the body of an asynchronous function; what it returns.

        :param arguments: what the script sees under this name.
        """
        answer = self.ask("WebDriver:ExecuteAsyncScript", script=_PRELUDE % script, args=arguments)["value"]
        if answer is None:
            raise DialogOpen("a dialog came while a script was running")
        if "error" in answer:
            raise AssertionError(f"Thunderbird: {answer['error']}")
        return answer.get("value")

    def ask(self, command: str, **parameters: object) -> Any:
        """Send a command of Marionette; its result."""
        return self._marionette.ask(command, **parameters)

    def screenshot(self) -> bytes:
        """The main window as PNG."""
        shot: str = self.ask("WebDriver:TakeScreenshot", full=True)["value"]
        return base64.b64decode(shot)

    def end(self) -> None:
        """End it, and wait until it has ended."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(DEADLINE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._marionette.close()
        self.end()
