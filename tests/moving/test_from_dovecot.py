"""Mail that a real Dovecot has served, and its clients, after the move."""

from __future__ import annotations

import os
import poplib

from twisted.trial.unittest import SkipTest

from pop3toy.stores.maildir.beside.uidl_file import FILE_NAME

from ..cli_world import run
from ..clients.mailclients import Fetchmail, Getmail, Mpop
from ..clients.thunderbird import Thunderbird
from ..clients.thunderbird_process import missing
from ..dovecot_world import USER, DovecotCase
from ..folders import new_folder
from ..realserver import DEADLINE, RealServer, maildir_options

MESSAGES = [
    b"From: bob@example.org\nSubject: %d\nMessage-ID: <%d@x>\n\nhello %d\n" % (at, at, at) for at in range(12)
]


def uidl(port: int, user: str = USER, password: str = "secret") -> list[bytes]:
    """Numbers and unique-ids as a client is told them."""
    client = poplib.POP3("127.0.0.1", port, timeout=DEADLINE)
    try:
        client.user(user)
        client.pass_(password)
        listed = client.uidl()[1]
        client.quit()
    finally:
        client.close()
    return listed


class MovedCase(DovecotCase):
    """A Dovecot, whose mail is then served here."""

    messages = MESSAGES

    def setUp(self) -> None:
        super().setUp()
        (self.root / "passwords").write_text(f"{USER}:secret\n")
        self.pattern = f"{self.root}/mail/{{user}}"
        self.maildir = self.root / "mail" / USER

    def adopt(self, *options: str, status: int = 0) -> None:
        """Run the command."""
        words = ["mailbox", "adopt", USER, "--from", "dovecot", "-m", self.pattern, *options]
        self.assertEqual(run(words), status)

    def here(self, port: int = 0) -> int:
        """The port on which the same mail is served here from now on."""
        server = RealServer(*maildir_options(self.root / "mail"), f"--port={port}")
        self.addCleanup(server.terminate)
        return server.port

    def check_moved(self, *options: str) -> None:
        """Unique-ids and their order are the same here."""
        before = uidl(self.port)
        self.assertEqual(len(before), len(self.messages))
        self.adopt(*options)
        self.assertFalse((self.maildir / FILE_NAME).exists())
        self.adopt("--yes", *options)
        self.assertEqual(uidl(self.here()), before)


class ClientTests(MovedCase):
    """Mail programs that leave mail on the server."""

    def test_nothing_is_fetched_twice(self) -> None:
        """They fetch all there, nothing after the move, and then what comes new."""
        kinds = [kind for kind in (Getmail, Mpop, Fetchmail) if not kind.missing()]
        clients = [kind(self.port, new_folder(self)) for kind in kinds]
        if not clients:
            raise SkipTest("getmail6, mpop and fetchmail are not installed")
        for client in clients:
            self.assertEqual(len(client.fetch(12, only_new=True)), 12, client.program)
        # Programs know a server by its name and its port.
        self.process.terminate()
        self.process.wait(DEADLINE)
        self.adopt("--yes")
        port = self.here(self.port)
        for client in clients:
            self.assertEqual(client.fetch(len(MESSAGES), only_new=True), [], client.program)
        (self.maildir / "new" / "1800000000.M1P1.mail").write_bytes(b"Subject: new\n\nnew\n")
        for client in clients:
            new = client.fetch(1, only_new=True)
            self.assertEqual([b"Subject: new" in one for one in new], [True], client.program)
        self.assertEqual(len(uidl(port)), len(MESSAGES) + 1)

    def test_thunderbird(self) -> None:
        """So does Thunderbird, which goes on over the move."""
        if why := missing():
            raise SkipTest(why)
        subjects = [str(at) for at in range(len(MESSAGES))]
        with Thunderbird(self.port, new_folder(self), user=USER, password="secret") as thunderbird:
            thunderbird.get_messages()
            self.assertEqual([kept.subject for kept in thunderbird.kept()], subjects)
            # It knows a server by its name and its port.
            self.process.terminate()
            self.process.wait(DEADLINE)
            self.adopt("--yes")
            self.here(self.port)
            thunderbird.get_messages()
            self.assertEqual([kept.subject for kept in thunderbird.kept()], subjects)
            (self.maildir / "new" / "1800000000.M1P1.mail").write_bytes(b"Subject: new\n\nnew\n")
            for _ in range(2):
                thunderbird.get_messages()
                self.assertEqual([kept.subject for kept in thunderbird.kept()], [*subjects, "new"])


class FormatTests(MovedCase):
    """Formats of unique-ids, one Dovecot for each."""

    def test_default(self) -> None:
        """Without any setting."""
        self.check_moved()

    def test_deleted(self) -> None:
        """Messages that were deleted there are no trouble."""
        client = poplib.POP3("127.0.0.1", self.port, timeout=DEADLINE)
        client.user(USER)
        client.pass_("secret")
        client.dele(3)
        client.quit()
        self.messages = self.messages[1:]
        self.check_moved()

    def test_served_already(self) -> None:
        """Done while the server runs here, it counts from the next session on; not while one is open."""
        before = uidl(self.port)
        port = self.here()
        self.assertNotEqual(uidl(port), before)
        client = poplib.POP3("127.0.0.1", port, timeout=DEADLINE)
        self.addCleanup(client.close)
        client.user(USER)
        client.pass_("secret")
        self.adopt("--yes", status=os.EX_TEMPFAIL)
        client.quit()
        self.adopt("--yes")
        self.assertEqual(uidl(port), before)

    def test_in_use(self) -> None:
        """While a client is there, nothing is changed."""
        uidl(self.port)
        client = poplib.POP3("127.0.0.1", self.port, timeout=DEADLINE)
        self.addCleanup(client.close)
        client.user(USER)
        client.pass_("secret")
        self.adopt("--yes", status=os.EX_TEMPFAIL)
        self.assertFalse((self.maildir / FILE_NAME).exists())
        client.quit()


class DottedTests(MovedCase):
    """``%v.%u``."""

    configuration = "pop3_uidl_format = %v.%u\n"

    def test_option(self) -> None:
        """The format is said."""
        self.check_moved("--uidl-format", "%v.%u")

    def test_configuration(self) -> None:
        """The format is read from Dovecot's own configuration."""
        self.check_moved("--dovecot-config", str(self.root / "dovecot.conf"))


class NameTests(MovedCase):
    """``%f``: the file's name."""

    configuration = "pop3_uidl_format = %f\n"

    def test_moved(self) -> None:
        """It is the same here even without anything, but for the order."""
        self.check_moved("--uidl-format", "%f")


class GuidTests(MovedCase):
    """``%g``: the GUID."""

    configuration = "pop3_uidl_format = %g\n"

    def test_moved(self) -> None:
        """As a rule that is the file's name, too."""
        self.check_moved("--uidl-format", "%g")


class HashTests(MovedCase):
    """``%Mf``: MD5 of the file's name."""

    configuration = "pop3_uidl_format = %Mf\n"

    def test_moved(self) -> None:
        """Modifiers of variables are known."""
        self.check_moved("--uidl-format", "%Mf")


class OtherFormTests(MovedCase):
    """Offsets, widths, modifiers."""

    configuration = "pop3_uidl_format = X%2.3u-%5u-%06Xu-%RXv\n"

    def test_moved(self) -> None:
        """All that a variable can have."""
        self.check_moved("--uidl-format", "X%2.3u-%5u-%06Xu-%RXv")


class HeaderHashTests(MovedCase):
    """``%m``: MD5 of headers."""

    configuration = "pop3_uidl_format = %m\n"

    def test_refused(self) -> None:
        """Dovecot itself has no such unique-ids for Maildirs, so nobody knows any."""
        with self.assertRaises(poplib.error_proto):
            uidl(self.port)
        self.adopt("--uidl-format", "%m", status=os.EX_USAGE)


class SavedTests(MovedCase):
    """``pop3_save_uidl``: what was given once goes before every format."""

    configuration = "pop3_uidl_format = old-%u.%v\npop3_save_uidl = yes\n"

    def test_moved(self) -> None:
        """The format of today says nothing about it."""
        uidl(self.port)
        self.assertIn(b" Pold-1.", (self.maildir / "dovecot-uidlist").read_bytes())
        self.check_moved()


class ControlTests(MovedCase):
    """Dovecot's files in a folder of their own."""

    configuration = "mail_location = maildir:{root}/mail/%u:CONTROL={root}/control/%u\n"

    def fill(self) -> None:
        super().fill()
        (self.root / "control").mkdir()
        (self.root / "control").chmod(0o777)

    def test_moved(self) -> None:
        """The folder is said."""
        uidl(self.port)
        self.assertFalse((self.maildir / "dovecot-uidlist").exists())
        self.adopt(status=os.EX_NOUSER)
        self.check_moved("--source", f"{self.root}/control/{{user}}")
