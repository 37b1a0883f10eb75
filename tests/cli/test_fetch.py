"""``pop3toy mailbox fetch`` and ``compare``: what they say, and that no mail program notices the move."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

from pop3toy.testing import RunningServer, running_server

from ..cli_world import CommandTests, Outcome
from ..clients.mailclients import Fetchmail, Getmail, MailClient, Mpop
from ..dovecot_world import DovecotCase
from ..realserver import POP3TOY, RealServer, environment, free_port, maildir_options, run_command, wait_until
from ..strictclient import logged_in

PASSWORD = "open sesame"


def mail(number: int) -> bytes:
    """One of many messages."""
    return b"From: eve@example.org\nSubject: %d\nMessage-ID: <%d@x>\n\n.hello\n" % (number, number)


class ServedCase(CommandTests):
    """Servers beside the commands."""

    def setUp(self) -> None:
        super().setUp()
        os.environ["POP3TOY_PASSWORD"] = PASSWORD
        self.addCleanup(os.environ.pop, "POP3TOY_PASSWORD", None)

    def served(self, messages: Sequence[bytes], user: str = "ann", **options: Any) -> RunningServer:
        """A server with the mailbox of a user."""
        context = running_server({user: list(messages)}, {user: PASSWORD}, **options)
        server: RunningServer = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return server

    def write(self, name: str, text: str) -> Path:
        """A file that nobody else can read."""
        path = self.root / name
        path.write_text(text)
        path.chmod(0o600)
        return path


class FetchTests(ServedCase):
    """``fetch``."""

    def fetch(self, *words: str) -> Outcome:
        """Fetch into the Maildirs of this folder."""
        return self.run_command("mailbox", "fetch", "{M}", *words)

    def test_one(self) -> None:
        """A mailbox comes over, a second run has nothing to do, and the list shows the unique-ids."""
        server = self.served([mail(1), mail(2)])
        url = f"pop3://127.0.0.1:{server.port}"
        octets = 2 * len(mail(1).replace(b"\n", b"\r\n"))
        self.assertEqual(
            self.fetch("--create", "ann", url),
            (0, f"1 user: 2 fetched ({octets} octets), 0 there already\n", ""),
        )
        self.assertEqual(self.fetch("ann", url), (0, "1 user: 0 fetched (0 octets), 2 there already\n", ""))
        listed = self.run_command("mailbox", "list", "{M}", "ann").out
        for uid in server.mailbox("ann").uids:
            self.assertIn(uid, listed)
        self.assertEqual([one.removed for one in server.sessions if one.removed], [])

    def test_other_name(self) -> None:
        """LOGIN is the name there; passwords come from a file as well."""
        server = self.served([mail(1)], "ann@old.example.org")
        del os.environ["POP3TOY_PASSWORD"]
        self.accounts.write_text("ann:{PLAIN}x\n")
        password = self.write("password", f"{PASSWORD}\n")
        done = self.fetch(
            "{A}",
            f"--password-file={password}",
            "ann",
            f"pop3://ann%40old.example.org@127.0.0.1:{server.port}",
        )
        self.assertEqual((done.status, done.err), (0, ""))
        self.assertEqual(len(self.files()), 1)

    def test_all(self) -> None:
        """All of a file; who is refused is told, the others come."""
        users = {"ann": "a:b", "bob": "hush", "eve": "other"}
        with running_server({user: [mail(1)] for user in users}, users) as server:
            file = self.write("users", "ann:a:b\n\nbob:hush\neve:wrong\n")
            done = self.fetch("-c", "--all", f"--users-file={file}", f"pop3://127.0.0.1:{server.port}")
        self.assertEqual(done.status, os.EX_TEMPFAIL)
        self.assertIn("2 users: 2 fetched", done.out)
        self.assertIn("eve: 127.0.0.1 refuses the login of eve, are name and password right?", done.err)
        self.assertEqual(done.err.count("\n"), 1, done.err)
        self.assertNotIn("wrong", done.err + done.out)
        self.assertEqual([len(self.files(user)) for user in ("ann", "bob")], [1, 1])

    def test_could_not(self) -> None:
        """What cannot be fetched is told, and the exit status says so."""
        server = self.served([mail(1), mail(2)])
        server.faults.add("vanished", message=1)
        done = self.fetch("-c", "ann", f"pop3://127.0.0.1:{server.port}")
        self.assertEqual(done.status, os.EX_DATAERR)
        self.assertIn("1 could not be fetched", done.out)
        self.assertIn("refuses RETR 1", done.err)

    def test_certificate(self) -> None:
        """A certificate that is not trusted is one line that says what to do, before anybody is asked."""
        server = self.served([mail(1)], tls="both")
        del os.environ["POP3TOY_PASSWORD"]
        for url, options, said in (
            (
                f"pop3://localhost:{server.port}",
                [],
                "authority unknown here: name that one's by --cafile FILE",
            ),
            (f"pop3s://localhost:{server.tls_port}", [], "--cafile FILE"),
        ):
            done = self.fetch("-c", *options, "ann", url)
            self.assertEqual((done.status, done.err.count("\n")), (os.EX_NOPERM, 1), done)
            self.assertIn(said, done.err)
        server.faults.add("tls-wrong-name")
        done = self.fetch("-c", f"--cafile={server.ca_file}", "ann", f"pop3://localhost:{server.port}")
        self.assertIn("for another name than localhost", done.err)
        server.faults.clear()
        os.environ["POP3TOY_PASSWORD"] = PASSWORD
        for trust in (f"--cafile={server.ca_file}", "--insecure"):
            self.assertEqual(self.fetch("-c", trust, "ann", f"pop3://localhost:{server.port}").status, 0)

    def test_refused(self) -> None:
        """What cannot be is refused in a sentence, and no password is shown."""
        open_to_all = self.root / "open"
        open_to_all.write_text("ann:hush\nann:hush\n")
        bad = self.write("bad", "ann:hush\nhush\n")
        port = free_port()
        url = f"pop3://127.0.0.1:{port}"
        for words, status, said in (
            (["ann"], os.EX_USAGE, "A user and an address are wanted"),
            (["ann", "mail.example.org"], os.EX_USAGE, "pop3://[USER@]HOST"),
            (["ann", "pop3://ann:hush@host"], os.EX_USAGE, "a password does not belong into an address"),
            (["--all", url], os.EX_USAGE, "--all needs --users-file"),
            (["--all", f"--users-file={bad}", "ann", url], os.EX_USAGE, "an address alone"),
            (["--all", f"--users-file={bad}", url], os.EX_CONFIG, "line 2: this is not user:password"),
            (["--all", f"--users-file={open_to_all}", url], os.EX_CONFIG, "line 2: ann is there twice"),
            (["nobody", url], os.EX_NOUSER, "nobody is no user here"),
            (["-c", "ann", url], os.EX_UNAVAILABLE, f"127.0.0.1: port {port}: Connection refused"),
            (["-c", f"--cafile={bad}", "ann", url], os.EX_USAGE, "--cafile"),
        ):
            done = self.fetch(*words)
            self.assertEqual(done.status, status, done)
            self.assertIn(said, done.err)
            self.assertNotIn("hush", done.out + done.err)
            self.assertNotIn("Traceback", done.err)
        self.assertIn("others can read it", self.fetch("--all", f"--users-file={open_to_all}", url).err)

    def test_killed(self) -> None:
        """kill -9 in the middle: the next run goes on, and nothing is there twice, or lost."""
        server = self.served([mail(number) for number in range(40)])
        slow = server.faults.add("delay", command="RETR", seconds=0.02)
        command = [
            *POP3TOY,
            "mailbox",
            "fetch",
            "-c",
            "-m",
            self.pattern,
            "ann",
            f"pop3://127.0.0.1:{server.port}",
        ]
        env = {**environment(self.root), "POP3TOY_PASSWORD": PASSWORD}
        new = self.root / "mail" / "ann" / "new"
        for least in (3, 12):
            with subprocess.Popen(
                command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as process:
                wait_until(
                    lambda least=least: new.exists() and len(os.listdir(new)) >= least, "some have come"
                )  # type: ignore[misc]
                process.send_signal(signal.SIGKILL)
            self.assertLess(len(os.listdir(new)), 40)
        server.faults.remove(slow)
        before = len(os.listdir(new))
        done = self.fetch("ann", f"pop3://127.0.0.1:{server.port}")
        self.assertEqual(done.status, 0, done)
        self.assertIn(f"{40 - before} fetched", done.out)
        uids = server.mailbox("ann").uids
        words = self.run_command("mailbox", "list", "{M}", "ann").out.split()
        self.assertEqual([word for word in words if word in uids], uids)


class CompareTests(ServedCase):
    """``compare``."""

    def compare(self, old: RunningServer, new: RunningServer, *words: str) -> Outcome:
        """Compare the mailboxes of ann."""
        return self.run_command(
            "mailbox", "compare", *words, f"pop3://ann@127.0.0.1:{old.port}", f"pop3://127.0.0.1:{new.port}"
        )

    def pair(self, *messages: bytes) -> tuple[RunningServer, RunningServer]:
        """Two servers with the same mail and unique-ids."""
        old, new = self.served([]), self.served([])
        for at, message in enumerate(messages):
            for server in (old, new):
                server.deliver("ann", message, uid=f"uid-{at}")
        return old, new

    def test_same(self) -> None:
        """Nobody would notice."""
        old, new = self.pair(mail(1), mail(2), mail(3))
        done = self.compare(old, new)
        self.assertEqual((done.status, done.err), (0, ""))
        for said in (
            "unique-ids                      3 at both\n",
            "order                    the same\n",
            "3 compared, all the same",
            "Clients would download nothing again.",
        ):
            self.assertIn(said, done.out)
        self.assertEqual([len(one.sessions) for one in (old, new)], [2, 2])
        self.assertIn("2 compared", self.compare(old, new, "--sample=2").out)
        self.assertNotIn("contents", self.compare(old, new, "--sample=0").out)
        found = json.loads(self.compare(old, new, "--json").out)
        self.assertTrue(found[0]["same"])
        self.assertEqual(found[0]["common"], 3)

    def test_again(self) -> None:
        """Other unique-ids of the same mail: how much would come again."""
        old, new = self.served([mail(1), mail(2)]), self.served([mail(1), mail(2)])
        done = self.compare(old, new)
        self.assertEqual(done.status, 1)
        octets = 2 * len(mail(1).replace(b"\n", b"\r\n"))
        self.assertIn(f"would download 2 messages again ({octets} octets)", done.out)
        self.assertIn(" 2 at NEW alone (", done.out)

    def test_new_mail(self) -> None:
        """Mail that has come to the new one alone is no difference; what is missing there is."""
        old, new = self.pair(mail(1))
        new.deliver("ann", mail(2))
        done = self.compare(old, new)
        self.assertEqual(done.status, 0)
        self.assertIn("1 message at NEW alone: new mail", done.out)
        done = self.compare(new, old)
        self.assertEqual(done.status, 1)
        self.assertIn("1 message not at NEW", done.out)

    def test_order(self) -> None:
        """The same mail in another order."""
        old, new = self.served([]), self.served([])
        for number in (1, 2, 3):
            old.deliver("ann", mail(number), uid=f"u{number}")
        for number in (3, 1, 2):
            new.deliver("ann", mail(number), uid=f"u{number}")
        done = self.compare(old, new)
        self.assertEqual(done.status, 1)
        self.assertIn("order                           1 elsewhere", done.out)

    def test_contents(self) -> None:
        """A message of another size is among the sample always; the header alone is told apart."""
        old, new = self.pair(*(mail(number) for number in range(1, 9)))
        old.deliver("ann", mail(9), uid="x")
        new.deliver("ann", b"Status: RO\n" + mail(9), uid="x")
        done = self.compare(old, new, "--sample=1")
        self.assertEqual(done.status, 1)
        self.assertIn("sizes                           1 differ (x)", done.out)
        self.assertIn(" 1 compared\n", done.out)
        self.assertIn(" 1 differ (x), 1 in the header alone\n", done.out)

    def test_wrong_count(self) -> None:
        """What does not fit together at one server is told."""
        old, new = self.pair(mail(1))
        new.faults.add("wrong-count", add=1)
        self.assertIn("NEW: STAT says 2 messages", self.compare(old, new).out)

    def test_several(self) -> None:
        """Several users; one who cannot be compared keeps nobody from it."""
        old, new = self.pair(mail(1))
        file = self.write("users", f"ann:{PASSWORD}\nbob:hush\n")
        urls = [f"pop3://127.0.0.1:{server.port}" for server in (old, new)]
        done = self.run_command("mailbox", "compare", f"--users-file={file}", *urls)
        self.assertEqual(done.status, 2)
        self.assertIn("bob: not compared: 127.0.0.1 refuses the login of bob", done.out)
        self.assertIn("2 users: 1 would notice nothing", done.out)
        self.assertNotIn("hush", done.out + done.err)

    def test_refused(self) -> None:
        """Who logs in has to be said, once."""
        for words in (
            ["pop3://old", "pop3://new"],
            ["--users-file=x", "pop3://ann@old", "pop3://new"],
            ["--new-users-file=x", "pop3://ann@old", "pop3://new"],
        ):
            self.assertEqual(self.run_command("mailbox", "compare", *words).status, os.EX_USAGE)


class MovedTests(DovecotCase):
    """From Dovecot to here by POP3, with a mail program that leaves mail on the server."""

    messages = [mail(1), mail(2), mail(3)]

    def moved(self, program: type[MailClient]) -> None:
        """The program fetches from Dovecot, then from here."""
        if why := program.missing():
            raise SkipTest(why)
        (self.root / "passwords").write_text("ann:secret\n")
        home, pattern = self.root / "client", f"{self.root}/moved/{{user}}"
        home.mkdir()
        (self.root / "moved").mkdir()

        def fetched(count: int) -> list[int]:
            got = program(self.port, home).fetch(count, only_new=True)
            return [int(text.partition(b"Subject: ")[2].split()[0]) for text in got]

        def command(*words: str) -> str:
            done = run_command(
                *POP3TOY, "mailbox", *words, folder=self.root / "admin",
                POP3TOY_PASSWORD="secret", POP3TOY_MAILDIR=pattern,
            )  # fmt: skip
            self.assertEqual((done.returncode, done.stderr), (0, ""), done)
            return done.stdout

        trust = f"--cafile={self.authority_file}"
        self.assertEqual(fetched(3), [1, 2, 3])
        self.assertIn("3 fetched", command("fetch", "-c", trust, "ann", f"pop3://localhost:{self.port}"))
        with RealServer(*maildir_options(self.root / "moved")) as server:
            said = command(
                "compare", trust, "--all-bodies", f"pop3s://ann@localhost:{self.tls_port}",
                f"pop3://127.0.0.1:{server.port}",
            )  # fmt: skip
            self.assertIn("Clients would download nothing again.", said)
        self.process.terminate()
        self.process.wait(60)
        # At the same address, by which programs know a server.
        with RealServer(*maildir_options(self.root / "moved"), f"--port={self.port}") as server:
            self.assertEqual(fetched(3), [])
            done = run_command(
                *POP3TOY, "deliver", "ann", f"--maildir={pattern}",
                folder=self.root / "admin", stdin=mail(4).decode(),
            )  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(fetched(4), [4])
            with logged_in(server.port) as session:
                self.assertEqual(len(session.uids()), 4)

    def test_getmail(self) -> None:
        """getmail6 fetches every message once."""
        self.moved(Getmail)

    def test_mpop(self) -> None:
        """mpop fetches every message once."""
        self.moved(Mpop)

    def test_fetchmail(self) -> None:
        """fetchmail with --uidl fetches every message once."""
        self.moved(Fetchmail)
