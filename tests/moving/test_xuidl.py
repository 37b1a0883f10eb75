"""Mail that a real Dovecot has served by its headers ``X-UIDL``."""

from __future__ import annotations

import os

from pop3toy.stores.maildir.beside.uidl_file import FILE_NAME

from ..cli_world import run
from .test_from_dovecot import MovedCase, uidl

_MESSAGES = [
    b"Subject: a\nX-UIDL: plain\n\nx\n",
    b"Subject: b\n\nX-UIDL: body\n",
    b"x-uidl: first\nX-UIDL: second\n\n",
    b"X-UIDL : $!%^&*()\r\nSubject: a\r\n\r\nx\r\n",
    b"Subject: no body, X-UIDL: nothing\n",
]


class ReusedTests(MovedCase):
    """``pop3_reuse_xuidl``."""

    configuration = "pop3_reuse_xuidl = yes\n"
    messages = _MESSAGES

    def test_configuration(self) -> None:
        """Headers are the unique-ids here as well; where nobody says whether they were, nothing is done."""
        before = uidl(self.port)
        self.assertEqual([line.split()[1] for line in before[:4:2]], [b"plain", b"first"])
        self.adopt("--yes", status=os.EX_DATAERR)
        self.assertFalse((self.maildir / FILE_NAME).exists())
        self.check_moved("--dovecot-config", str(self.root / "dovecot.conf"))

    def test_option(self) -> None:
        """It can be said without that file."""
        uidl(self.port)
        self.check_moved("--reuse-xuidl")

    def test_mistake(self) -> None:
        """It is Dovecot's alone."""
        words = ["mailbox", "adopt", "ann", "--from", "courier", "--reuse-xuidl", "-m", self.pattern]
        self.assertEqual(run(words), os.EX_USAGE)


class NotReusedTests(MovedCase):
    """Without it, though there are such headers: programs and spammers write them."""

    messages = _MESSAGES

    def test_moved(self) -> None:
        """They are no unique-ids."""
        uidl(self.port)
        self.adopt("--yes", status=os.EX_DATAERR)
        self.check_moved("--no-reuse-xuidl")


class SavedTests(MovedCase):
    """With ``pop3_save_uidl`` the list knows them."""

    configuration = "pop3_reuse_xuidl = yes\npop3_save_uidl = yes\n"
    messages = _MESSAGES

    def test_moved(self) -> None:
        """So nothing has to be said."""
        uidl(self.port)
        self.check_moved()


class RenamedTests(MovedCase):
    """Of several with one unique-id the later get a number."""

    configuration = "pop3_reuse_xuidl = yes\npop3_uidl_duplicates = rename\n"
    messages = [b"X-UIDL: two\n\n", b"X-UIDL: two\n\n", b"X-UIDL: two-2\n\n", b"X-UIDL: two\n\n"]

    def test_moved(self) -> None:
        """As Dovecot counts them, here as well."""
        self.assertEqual(
            [line.split()[1] for line in uidl(self.port)], [b"two", b"two-2", b"two-2-2", b"two-3"]
        )
        self.check_moved("--dovecot-config", str(self.root / "dovecot.conf"))


class SharedTests(MovedCase):
    """Several with one unique-id, which no server may have."""

    configuration = "pop3_reuse_xuidl = yes\n"
    messages = [b"X-UIDL: one\n\n", b"X-UIDL: one\n\nother\n", b"X-UIDL: folded\n X\n\n", b"Subject: x\n\n"]

    def test_refused(self) -> None:
        """Nothing is done, but if whoever does it says that these may be fetched again."""
        uidl(self.port)
        self.adopt("--yes", "--reuse-xuidl", status=os.EX_DATAERR)
        self.assertFalse((self.maildir / FILE_NAME).exists())
        self.adopt("--yes", "--reuse-xuidl", "--skip-doubtful")
        found = [line.split()[1] for line in uidl(self.here())]
        self.assertEqual(found[0], b"one")
        self.assertRegex(found[1].decode(), "^00000004")
        self.assertEqual(found[2:], [b"1700000001.M1P1.mail", b"1700000002.M2P1.mail"])
