"""Thunderbird, driven from outside.

Here lives what starts Debian's Thunderbird without a screen, on a profile with
one POP3 account of 127.0.0.1, and has it fetch mail, delete mail and take a
picture of itself, through Marionette, the remote control that it brings along.
Nothing here knows anything of the server.

``python -m tests.thunderbird PORT PICTURE`` has it fetch the toy's message and
takes the picture that the README shows.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from .realserver import DEADLINE, environment, wait_until

__all__ = ["ENCRYPTED_PASSWORD", "NORMAL_PASSWORD", "Kept", "Thunderbird", "missing"]

#: The values of "Authentication method" in Thunderbird's account settings.
NORMAL_PASSWORD = 3
ENCRYPTED_PASSWORD = 4

_PREFERENCES: dict[str, str | int | bool] = {
    "mail.accountmanager.accounts": "account1,account2",
    "mail.accountmanager.defaultaccount": "account1",
    "mail.accountmanager.localfoldersserver": "server2",
    "mail.account.account1.identities": "id1",
    "mail.account.account1.server": "server1",
    "mail.account.account2.server": "server2",
    "mail.identity.id1.fullName": "You",
    "mail.identity.id1.useremail": "user@pop3toy.example",
    "mail.identity.id1.valid": True,
    "mail.server.server1.type": "pop3",
    "mail.server.server1.hostname": "127.0.0.1",
    "mail.server.server1.name": "pop3toy",
    "mail.server.server1.socketType": 0,
    "mail.server.server1.check_new_mail": False,
    "mail.server.server1.login_at_startup": False,
    "mail.server.server1.delete_mail_left_on_server": True,
    # One file for each message, as it came.
    "mail.server.server1.storeContractID": "@mozilla.org/msgstore/maildirstore;1",
    "mail.server.server2.type": "none",
    "mail.server.server2.hostname": "Local Folders",
    "mail.server.server2.userName": "nobody",
    "mail.server.server2.name": "Local Folders",
    "marionette.port": 0,
    # No questions, no offers.
    "mail.provider.suppress_dialog_on_startup": True,
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
(async (user) => {
    const {MailServices} = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
    const server = MailServices.accounts.findServer(user, "127.0.0.1", "pop3", 0);
    const inbox = server.rootFolder.getFolderWithFlags(Ci.nsMsgFolderFlags.Inbox);
    %s
})(...arguments).then((value) => done({value}), (error) => done({error: String(error)}));
"""
_KNOW_PASSWORD = """
    const login = Cc["@mozilla.org/login-manager/loginInfo;1"].createInstance(Ci.nsILoginInfo);
    login.init("mailbox://127.0.0.1", null, "mailbox://127.0.0.1", user, arguments[1], "", "");
    await Services.logins.addLoginAsync(login);
"""
_GET_MESSAGES = """
    return await new Promise((resolve) => {
        const listener = {OnStartRunningUrl() {}, OnStopRunningUrl(url, status) { resolve(status); }};
        MailServices.pop3.GetNewMail(null, listener, inbox, server);
    });
"""
_KEPT = """
    return [inbox.filePath.path, [...inbox.messages].sort((a, b) => a.messageKey - b.messageKey).map(
        (message) => [message.mime2DecodedSubject, message.storeToken])];
"""
_DELETE = """
    const doomed = [...inbox.messages].filter((message) => message.mime2DecodedSubject == arguments[1]);
    await new Promise((onStopCopy) => {
        const none = () => {};
        const unasked = {onStartCopy: none, onProgress: none, setMessageKey: none, getMessageId: none};
        const listener = {...unasked, onStopCopy};
        inbox.deleteMessages(doomed, null, true, false, listener, false);
    });
"""
_SHOW_FIRST = """
    const window = Services.wm.getMostRecentWindow("mail:3pane");
    const panes = window.document.getElementById("tabmail").currentAbout3Pane;
    const until = async (condition) => {
        while (!condition()) await new Promise((resolve) => window.setTimeout(resolve, 50));
    };
    panes.displayFolder(inbox.URI);
    await until(() => panes.gDBView?.rowCount);
    panes.threadTree.selectedIndex = 0;
    const shown = () => panes.messageBrowser.contentDocument.getElementById("messagepane").contentDocument;
    await until(() => shown()?.body?.textContent.includes(arguments[1]));
    // Until it is styled: the headers for printing are hidden then.
    const printed = shown().querySelector(".moz-header-part1");
    await until(() => shown().defaultView.getComputedStyle(printed).display == "none");
    window.document.getElementById("statusText").value = "";
"""


class Kept(NamedTuple):
    """A message in Thunderbird's inbox."""

    subject: str
    #: Its file, without the headers that Thunderbird puts in front; LF line ends.
    octets: bytes


def missing() -> str | None:
    """Why Thunderbird cannot be run here, or ``None`` if it can."""
    if shutil.which("thunderbird") is None:
        return "thunderbird is not installed (Debian package thunderbird)"
    return None


class _Marionette:
    """The remote control: JSON with its length in front, one answer for each command."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 2 * DEADLINE)
        self._file = self._socket.makefile("rb")
        self._number = 0
        self._receive()
        self.ask("WebDriver:NewSession", capabilities={})
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
            raise AssertionError(f"Thunderbird: {error}")
        return result

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()


class Thunderbird:
    """A running Thunderbird; a context manager that ends it.

    :param port: of the POP3 server on 127.0.0.1.
    :param home: an empty folder.
    :param authentication: the method, by Thunderbird's number.
    :param leave_on_server: the setting of that name.
    """

    def __init__(
        self,
        port: int,
        home: Path,
        *,
        user: str = "user",
        password: str = "pass",
        authentication: int = NORMAL_PASSWORD,
        leave_on_server: bool = True,
    ) -> None:
        self._user = user
        profile = home / "profile"
        profile.mkdir(parents=True)
        preferences = {
            **_PREFERENCES,
            "mail.server.server1.port": port,
            "mail.server.server1.userName": user,
            "mail.server.server1.authMethod": authentication,
            "mail.server.server1.leave_on_server": leave_on_server,
        }
        lines = [
            f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in preferences.items()
        ]
        (profile / "user.js").write_text("".join(lines))
        self._words = home / "words"
        with self._words.open("wb") as words:
            self._process = subprocess.Popen(
                [
                    *("thunderbird", "--headless", "--no-remote", "--profile", str(profile)),
                    *("--marionette", "--remote-allow-system-access"),
                ],
                env={**environment(home), "MOZ_HEADLESS_WIDTH": "1240", "MOZ_HEADLESS_HEIGHT": "520"},
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
            self._run(_KNOW_PASSWORD, password)
        except BaseException:
            self._end()
            raise

    def _told(self, port_file: Path) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"Thunderbird ended:\n{self._words.read_text('utf-8', 'replace')}")
        return port_file.exists() and port_file.read_text().isdigit()

    def _run(self, script: str, *arguments: object) -> Any:
        answer = self._marionette.ask(
            "WebDriver:ExecuteAsyncScript", script=_PRELUDE % script, args=[self._user, *arguments]
        )["value"]
        if "error" in answer:
            raise AssertionError(f"Thunderbird: {answer['error']}")
        return answer.get("value")

    def get_messages(self) -> None:
        """ "Get Messages", until it is done."""
        status = self._run(_GET_MESSAGES)
        if status:
            raise AssertionError(f"Thunderbird could not get the messages: status {status:#x}")

    def kept(self) -> list[Kept]:
        """What is in the inbox, in the order in which it came."""
        folder, messages = self._run(_KEPT)
        return [Kept(subject, self._as_received(Path(folder, "cur", name))) for subject, name in messages]

    @staticmethod
    def _as_received(path: Path) -> bytes:
        octets = path.read_bytes()
        # X-Account-Key, X-UIDL and three of X-Mozilla-*, each in a line, are its own.
        own, octets = octets.split(b"\nX-Mozilla-Keys:", 1)
        assert own.startswith(b"X-Account-Key:"), own
        return octets.split(b"\n", 1)[1]

    def delete(self, subject: str) -> None:
        """Delete the messages with this subject for good."""
        self._run(_DELETE, subject)

    def picture(self, text: str) -> bytes:
        """Open the first message, which holds this text; the window as PNG."""
        self._run(_SHOW_FIRST, text)
        shot: str = self._marionette.ask("WebDriver:TakeScreenshot", full=True)["value"]
        return base64.b64decode(shot)

    def _end(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(DEADLINE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._marionette.close()
        self._end()


def main(port: str, picture: str) -> None:
    """Fetch the toy's message and take the README's picture."""
    with tempfile.TemporaryDirectory() as home, Thunderbird(int(port), Path(home)) as thunderbird:
        thunderbird.get_messages()
        Path(picture).write_bytes(thunderbird.picture("Hello World!"))


if __name__ == "__main__":
    main(*sys.argv[1:])
