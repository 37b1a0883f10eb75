"""Thunderbird with an account, driven from outside.

Here lives what has Debian's Thunderbird fetch mail, delete mail and take a
picture of itself, on a profile with one POP3 account of 127.0.0.1.  Nothing
here knows anything of the server.

``python -m tests.clients.thunderbird PORT PICTURE`` has it fetch the toy's message and
takes the picture that the README shows.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from .thunderbird_process import Preferences, ThunderbirdProcess

__all__ = ["ENCRYPTED_PASSWORD", "NORMAL_PASSWORD", "Kept", "Thunderbird"]

#: The values of "Authentication method" in Thunderbird's account settings.
NORMAL_PASSWORD = 3
ENCRYPTED_PASSWORD = 4

#: An account, and no question whether there should be one.
_ACCOUNT: Preferences = {
    "mail.provider.suppress_dialog_on_startup": True,
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
}
_PRELUDE = """
    const user = arguments[0];
    const {MailServices} = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
    const server = MailServices.accounts.findServer(user, "127.0.0.1", "pop3", 0);
    const inbox = server.rootFolder.getFolderWithFlags(Ci.nsMsgFolderFlags.Inbox);
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


class Thunderbird(ThunderbirdProcess):
    """A running Thunderbird that has an account and its password; a context manager that ends it.

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
        preferences: Preferences = {
            **_ACCOUNT,
            "mail.server.server1.port": port,
            "mail.server.server1.userName": user,
            "mail.server.server1.authMethod": authentication,
            "mail.server.server1.leave_on_server": leave_on_server,
        }
        super().__init__(home, preferences)
        try:
            self._run(_KNOW_PASSWORD, password)
        except BaseException:
            self.end()
            raise

    def _run(self, script: str, *arguments: object) -> Any:
        return self.run(_PRELUDE + script, self._user, *arguments)

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
        return self.screenshot()


def main(port: str, picture: str) -> None:
    """Fetch the toy's message and take the README's picture."""
    with tempfile.TemporaryDirectory() as home, Thunderbird(int(port), Path(home)) as thunderbird:
        thunderbird.get_messages()
        Path(picture).write_bytes(thunderbird.picture("Hello World!"))


if __name__ == "__main__":
    main(*sys.argv[1:])
