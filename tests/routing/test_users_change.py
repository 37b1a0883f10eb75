"""Users who are disabled, removed or mistyped while a server runs: who logs in, and who gets mail."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import poplib
import smtplib
import socket
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.auth.accounts import admin
from pop3toy.auth.app_passwords import admin as app_passwords
from tests.mailserver import LOOPBACK
from tests.realserver import DEADLINE, RealServer

from ..corpus import make_maildir
from ..folders import new_folder

MAIN = "main password"
LETTER = b"Subject: hello\r\n\r\nhello\r\n"

#: Each attempt from another address: there are penalties for those that fail.
_from = ((f"127.0.1.{number}", 0) for number in itertools.count(1))


class _POP3(poplib.POP3):
    def _create_socket(self, timeout: float | None) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout, next(_from))


class UsersChangeTests(SynchronousTestCase):
    """Users ann and bob, and an alias for each."""

    options: ClassVar[list[str]] = []

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.accounts = self.root / "accounts"
        for user in ("ann", "bob"):
            admin.add_user(self.accounts, user, MAIN, scheme="PLAIN")
            maildir = make_maildir(self.root / "mail" / user)
            (maildir / "new" / "1700000000.M1P1.mail").write_bytes(b"Subject: old\n\nold\n")
        self.app = app_passwords.add(self.accounts, "ann", "phone")
        aliases = self.root / "aliases"
        aliases.write_text("a: ann\nb: bob\nboth: ann, bob\npostmaster: bob\n")
        self.server = RealServer(
            f"--maildir={self.root}/mail/{{user}}", "--create", f"--accounts={self.accounts}",
            f"--aliases={aliases}", "--smtp-port=0", "--submission-port=0", f"--lmtp=unix:{self.root}/lmtp",
            "--domain=example.org", *self.options,
        )  # fmt: skip
        self.addCleanup(self.server.terminate)

    def recipients(self, client: smtplib.SMTP, *names: str) -> list[int]:
        """The codes of RCPT for each."""
        client.ehlo_or_helo_if_needed()
        client.mail("eve@elsewhere.example")
        codes = [client.rcpt(f"{name}@example.org")[0] for name in names]
        client.rset()
        return codes

    def codes(self, *names: str) -> list[int]:
        """The same by SMTP, where LMTP says the same."""
        with smtplib.SMTP(LOOPBACK, self.server.port_for("SMTP"), timeout=DEADLINE) as client:
            by_smtp = self.recipients(client, *names)
        with smtplib.LMTP(f"{self.root}/lmtp") as client:
            self.assertEqual(self.recipients(client, *names), by_smtp)
        return by_smtp

    def pop3(self) -> poplib.POP3:
        """A connection."""
        client = _POP3(LOOPBACK, self.server.port, timeout=DEADLINE)
        self.addCleanup(client.close)
        return client

    def refused_logins(self) -> None:
        """Look that ann is let in by nothing that is hers."""
        answers = []
        for password in (MAIN, self.app):
            client = self.pop3()
            client.user("ann")
            answers.append(self.assertRaises(poplib.error_proto, client.pass_, password))
            plain = base64.b64encode(f"\0ann\0{password}".encode()).decode()
            answers.append(self.assertRaises(poplib.error_proto, client._shortcmd, f"AUTH PLAIN {plain}"))  # type: ignore[attr-defined]
            sender = smtplib.SMTP(
                LOOPBACK, self.server.port_for("submission"), timeout=DEADLINE, source_address=next(_from)
            )
            self.addCleanup(sender.close)
            error = self.assertRaises(smtplib.SMTPAuthenticationError, sender.login, "ann", password)
            self.assertEqual(error.smtp_code, 535)
        client = self.pop3()
        stamp = client.getwelcome().split()[-1]
        digest = hashlib.md5(stamp + MAIN.encode()).hexdigest()
        answers.append(self.assertRaises(poplib.error_proto, client._shortcmd, f"APOP ann {digest}"))  # type: ignore[attr-defined]
        self.assertEqual({error.args[0][:11] for error in answers}, {b"-ERR [AUTH]"})

    def test_disabled(self) -> None:
        """A disabled user gets in by no password and no mechanism, still gets mail, and ends what is open."""
        open_ = self.pop3()
        open_.user("ann")
        open_.pass_(self.app)
        admin.set_setting(self.accounts, "ann", "nologin", "y")
        self.refused_logins()
        self.assertEqual(self.codes("ann", "a", "both"), [250, 250, 250])
        self.assertIn(b"old", b"".join(open_.retr(1)[1]))
        open_.dele(1)
        self.assertTrue(open_.quit().startswith(b"+OK"))
        with smtplib.SMTP(LOOPBACK, self.server.port_for("SMTP"), timeout=DEADLINE) as client:
            client.sendmail("eve@elsewhere.example", ["ann@example.org"], LETTER)
        admin.remove_setting(self.accounts, "ann", "nologin")
        again = self.pop3()
        again.user("ann")
        again.pass_(self.app)
        self.assertIn(b"Subject: hello", again.retr(1)[1])

    def test_removed(self) -> None:
        """A removed user gets no mail and does not get in; the mail stays, and others get theirs."""
        admin.delete_user(self.accounts, "ann")
        self.refused_logins()
        # An alias that leads to nobody is a mistake of the administrator's, and its mail waits.
        self.assertEqual(self.codes("ann", "a", "both", "bob"), [550, 451, 250, 250])
        self.assertEqual(len([*(self.root / "mail" / "ann" / "new").iterdir()]), 1)

    def test_mistyped(self) -> None:
        """Mail for a user whose line is not understood any more waits; it does not go back."""
        text = self.accounts.read_text()
        admin.delete_user(self.accounts, "ann")
        new = self.root / "new"
        new.write_text(text.replace("ann:{", "ann:{X"))
        os.utime(new, (0, 0))
        new.rename(self.accounts)
        self.assertEqual(self.codes("ann", "ANN", "bob", "nobody"), [451, 451, 250, 550])
        self.assertIn("the line of ann in the accounts file is not understood", self.server.log)
