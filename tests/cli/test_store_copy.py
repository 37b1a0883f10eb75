"""``pop3toy store copy``: what it says, how it ends, and that no mail program notices the move."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from pop3toy.cli.copying.users import Work, for_each
from pop3toy.cli.options import Failed
from pop3toy.errors import InUse, NoSuchMailbox, OverQuota, StoreTrouble
from pop3toy.stores.copying.counts import Counts
from pop3toy.stores.objects.connecting import Engines
from pop3toy.stores.objects.settings import Objects
from pop3toy.stores.objects.users import Users

from ..ceph import make_bucket
from ..cli_world import CommandTests, Outcome
from ..clients.mailclients import Fetchmail, Getmail, MailClient, Mpop
from ..corpus import awkward_messages, make_maildir
from ..folders import new_folder
from ..realserver import POP3TOY, RealServer, environment, free_port, maildir_options, run_command, wait_until
from ..s3servers import credentials_file, moto_server
from ..strictclient import logged_in


def message(number: int) -> bytes:
    """One of many messages."""
    return b"From: eve@example.org\nSubject: %d\nMessage-ID: <%d@x>\n\n.hello\n" % (number, number)


def put(root: Path, user: str, *numbers: int) -> None:
    """Messages come into a user's Maildir."""
    maildir = root / user
    if not maildir.exists():
        make_maildir(maildir)
    for number in numbers:
        (maildir / "new" / f"{1_700_000_000 + number}.M{number}P1.mail").write_bytes(message(number))


class FolderTests(CommandTests):
    """From Maildirs to Maildirs."""

    def setUp(self) -> None:
        super().setUp()
        self.mail = self.root / "mail"
        self.other = self.root / "other"
        self.other.mkdir()

    def copy(self, *words: str) -> Outcome:
        """Copy from one to the other."""
        return self.run_command("store", "copy", f"{self.mail}/{{user}}", f"{self.other}/{{user}}", *words)

    def names(self, user: str) -> list[str]:
        """The files of a user that were copied."""
        return sorted(os.listdir(self.other / user / "new"))

    def test_all_users(self) -> None:
        """All users' mail is copied, and a second run has nothing to do; nothing else is said."""
        put(self.mail, "ann", 1, 2)
        put(self.mail, "bob", 3)
        octets = sum(len(message(number).replace(b"\n", b"\r\n")) for number in (1, 2, 3))
        self.assertEqual(
            self.copy("--verify"),
            (
                0,
                f"2 users: 3 copied ({octets} octets), 0 there already\n3 compared: all are the same\n",
                "",
            ),
        )
        self.assertEqual(self.names("ann"), sorted(os.listdir(self.mail / "ann" / "new")))
        self.assertEqual(self.copy(), (0, "2 users: 0 copied (0 octets), 3 there already\n", ""))

    def test_some_users(self) -> None:
        """Only those who are named, each once."""
        for user in ("ann", "bob", "eve"):
            put(self.mail, user, 1)
        self.assertEqual(self.copy("ann", "eve", "ann").status, 0)
        self.assertEqual(sorted(os.listdir(self.other)), ["ann", "eve"])

    def test_nobody(self) -> None:
        """Who has no mailbox is told, and the others are copied."""
        put(self.mail, "ann", 1)
        done = self.copy("nobody", "ann")
        self.assertEqual(done.status, os.EX_NOUSER)
        self.assertTrue(done.err.startswith("nobody: no Maildir at "), done.err)
        self.assertEqual(done.err.count("\n"), 1)
        self.assertEqual(len(self.names("ann")), 1)

    def in_a_row(self, *troubles: Exception | None) -> tuple[str, Counts]:
        """What is told of users for whom these things happen, one after the other, and what was done."""
        counts, told = Counts(), io.StringIO()
        happens = iter(troubles)

        def do(user: str) -> Counts:
            if (trouble := next(happens)) is not None:
                raise trouble
            return Counts(copied=1)

        with contextlib.redirect_stderr(told), Work("Copying") as work:
            users = [f"user{number}" for number in range(len(troubles))]
            failed = for_each(users, work, do, threads=1, counts=counts)
        self.assertEqual(len(failed), len(troubles) - counts.copied)
        return told.getvalue(), counts

    def test_all_fail(self) -> None:
        """When a store fails for ten users in a row for one reason no more are tried, and that is said."""
        down, full = StoreTrouble(detail="down"), OSError(28, "No space left on device")
        for trouble, said in ((down, "down"), (full, "No space left on device")):
            told, _ = self.in_a_row(*[trouble] * 10, None, None)
            *lines, last = told.splitlines()
            self.assertEqual(sorted(lines), [f"user{number}: {said}" for number in range(10)])
            self.assertEqual(
                last, "That was so for 10 users in a row: 2 others were not tried, or not to the end."
            )
        for troubles in (
            [*[down] * 9, None, *[down] * 9, full, *[down] * 9, None],
            [*[NoSuchMailbox(detail="none")] * 12, None],
            [*[InUse(detail="somebody else is copying to it")] * 12, None],
            [*[OverQuota(detail="full")] * 12, None],
        ):
            told, counts = self.in_a_row(*troubles)
            self.assertEqual(len(told.splitlines()), len(troubles) - counts.copied)
            self.assertGreater(counts.copied, 0)

    def test_deleted(self) -> None:
        """--delete takes away what is gone, and says so."""
        put(self.mail, "ann", 1, 2)
        self.copy()
        (self.mail / "ann" / "new" / "1700000001.M1P1.mail").unlink()
        self.assertEqual(self.copy().out, "1 user: 0 copied (0 octets), 1 there already\n")
        done = self.copy("--delete")
        self.assertEqual(done.out, "1 user: 0 copied (0 octets), 1 there already, 1 removed from TO\n")
        self.assertEqual(self.names("ann"), ["1700000002.M2P1.mail"])

    def test_differs(self) -> None:
        """--verify finds a copy that was changed."""
        put(self.mail, "ann", 1, 2)
        self.copy()
        (self.other / "ann" / "new" / "1700000001.M1P1.mail").write_bytes(b"x")
        done = self.copy("--verify")
        self.assertEqual(done.status, os.EX_DATAERR)
        self.assertEqual(done.err, "ann: message 1700000001.M1P1.mail is another message in the copy\n")
        self.assertTrue(done.out.endswith("2 compared: 1 are not as they should be\n"), done.out)

    def test_in_trouble(self) -> None:
        """A mailbox that cannot be used keeps no other from being copied."""
        put(self.mail, "ann", 1)
        put(self.mail, "bob", 1)
        (self.mail / "ann" / "pop3toy-uidl").write_text("nonsense\n")
        done = self.copy()
        self.assertEqual(done.status, os.EX_TEMPFAIL)
        self.assertIn("pop3toy-uidl", done.err)
        self.assertEqual(done.err.count("\n"), 1)
        self.assertEqual(len(self.names("bob")), 1)

    def test_refused(self) -> None:
        """What cannot be is refused in a sentence."""
        pattern = f"{self.mail}/{{user}}"
        make_maildir(self.other / "shared")
        for words, said in (
            ([pattern, pattern], "FROM and TO are the same"),
            ([pattern, "mail"], "TO is a path of Maildirs or an address such as s3://BUCKET, and not mail"),
            ([pattern, "memory://x"], "memory:// is in one process alone"),
            ([pattern, "s3://x/../y"], "TO needs a bucket"),
            ([pattern, "s3://mail", "--to-endpoint=nowhere"], "--to-endpoint is an address"),
            ([pattern, "s3://mail", "--store-endpoint=nowhere"], "--store-endpoint is an address"),
            ([pattern, "s3://mail", f"--to-credentials={self.root}/none"], "none"),
            ([pattern, f"{self.other}/{{user}}", "--accounts"], "Maildirs hold no accounts"),
            ([pattern, f"{self.root}/missing/{{user}}"], "for TO: "),
            ([pattern, f"maildir:{self.other}/shared"], "all users share one Maildir"),
        ):
            done = self.run_command("store", "copy", *words)
            self.assertEqual(done.status, os.EX_USAGE, done)
            self.assertIn(said, done.err)
            self.assertNotIn("Traceback", done.err)

    def file(self, text: str) -> str:
        """A file of options."""
        path = self.root / "pop3toy.toml"
        path.write_text(text)
        return f"--config={path}"

    def test_store_of_a_file(self) -> None:
        """The word config is the store of a file of options, as FROM or as TO."""
        put(self.mail, "ann", 1)
        other = f"{self.other}/{{user}}"
        # As a server finds it: beside the file.
        config = self.file('[store]\nmaildir = "mail/{user}"\n')
        for words in ((config, "config", other), ("config", other, config)):
            self.assertEqual(self.run_command("store", "copy", *words).status, 0)
        self.assertEqual(self.names("ann"), ["1700000001.M1P1.mail"])
        put(self.other, "ann", 2)
        self.assertEqual(self.run_command(config, "store", "copy", other, "config").status, 0)
        self.assertEqual(len(os.listdir(self.mail / "ann" / "new")), 2)
        # Of no use, but no mistake either.
        self.assertEqual(self.run_command(config, "store", "copy", other, f"{self.mail}/{{user}}").status, 0)

    def test_store_of_a_file_refused(self) -> None:
        """What is wrong with the file, or with the word, is said in a line."""
        pattern = f"{self.other}/{{user}}"
        good = self.file("")
        for text, words, status, said in (
            ("", ["config", pattern], os.EX_USAGE, "name it by --config"),
            ("", [good, pattern, f"{self.root}/{{user}}"], os.EX_USAGE, "--config is of no use here"),
            ("", [good, "config", pattern], os.EX_CONFIG, "[store] maildir or [store] store is missing"),
            ("x", [good, "config", pattern], os.EX_CONFIG, "this is not TOML"),
            ("[pop3]\nport = -1\n", [good, "config", pattern], os.EX_CONFIG, "[pop3] port"),
            ("", [f"--config={self.root}/none", "config", pattern], os.EX_CONFIG, "none: no such file"),
            (
                f"[store]\nmaildir = '{pattern}'\n",
                [good, "config", pattern],
                os.EX_USAGE,
                "FROM and TO are the same",
            ),
            (
                "[store]\nstore = 's3://mail'\nstore-credentials = 'none'\n",
                [good, pattern, "config"],
                os.EX_CONFIG,
                "pop3toy.toml: [store] store-credentials",
            ),
            (
                "[store]\nstore = 's3://mail'\n",
                [good, pattern, "config", "--to-endpoint=nowhere"],
                os.EX_USAGE,
                "--to-endpoint is an address",
            ),
        ):
            self.file(text)
            done = self.run_command("store", "copy", *words)
            self.assertEqual(done.status, status, done)
            self.assertIn(said, " ".join(done.err.split()))
            self.assertNotIn("Traceback", done.err)

    def test_shared(self) -> None:
        """A Maildir for all users is copied for the one who is named."""
        put(self.root, "shared", 1)
        done = self.run_command(
            "store", "copy", f"maildir:{self.root}/shared", f"maildir:{self.other}/{{user}}", "ann"
        )
        self.assertEqual((done.status, self.names("ann")), (0, ["1700000001.M1P1.mail"]))

    def test_variables(self) -> None:
        """Those of the environment are about object storage: the only one, or the one that is named."""
        module = sys.modules["pop3toy.cli.copying.command"]
        opened: list[tuple[str, str | None]] = []

        def seen(settings: object) -> NoReturn:
            if isinstance(settings, Objects):
                opened.append((settings.url, settings.endpoint))
                raise Failed("seen", 1)
            raise Failed("Maildirs", 1)

        self.patch(module, "_opened", seen)
        pattern, theirs, ours = f"{self.mail}/{{user}}", "s3://theirs", "s3://ours"
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        near, far = "http://127.0.0.1:1", "http://127.0.0.1:2"
        for named, words, endpoint in (
            (None, [ours, pattern], near),
            (theirs, [ours, pattern], near),
            (ours, [ours, pattern, f"--from-endpoint={far}"], far),
            (ours, [ours, pattern, f"--store-endpoint={far}"], far),
            (ours, [ours, theirs], near),
            (None, [ours, theirs], None),
            (theirs, [ours, theirs], None),
        ):
            variables = {"POP3TOY_STORE_ENDPOINT": near} | ({"POP3TOY_STORE": named} if named else {})
            self.patch(os, "environ", keys | variables)
            self.run_command("store", "copy", *words)
            self.assertEqual([(ours, endpoint)], opened, (named, words))
            opened.clear()

    def test_killed(self) -> None:
        """Killed again and again, it goes on: at last all is there, once."""
        put(self.mail, "ann", *range(400))
        command = [
            *POP3TOY, "store", "copy", f"{self.mail}/{{user}}", f"{self.other}/{{user}}",
        ]  # fmt: skip
        for least in (20, 150, 330):
            process = subprocess.Popen(command, env=environment(self.root), stdout=subprocess.DEVNULL)
            new = self.other / "ann" / "new"
            wait_until(
                lambda new=new, least=least, process=process: (  # type: ignore[misc]
                    process.poll() is not None or (new.exists() and len(os.listdir(new)) >= least)
                ),
                "some messages are there",
                pause=0.001,
            )
            process.send_signal(signal.SIGKILL)
            process.wait()
        self.assertEqual(self.copy("--verify").status, 0)
        self.assertEqual(self.names("ann"), sorted(os.listdir(self.mail / "ann" / "new")))


class S3Case(SynchronousTestCase):
    """Maildirs, and moto's server."""

    def setUp(self) -> None:
        self.endpoint = moto_server()
        self.folder = new_folder(self)
        self.mail = self.folder / "mail"
        self.mail.mkdir()
        self.credentials = credentials_file(self.folder)
        self.url = self.new_url()
        # Some programs remember what they fetched from which port.
        self.port = free_port()

    def new_url(self) -> str:
        """A store in which nothing is."""
        return f"s3://mail/{secrets.token_hex(8)}"

    def options(self, url: str) -> list[str]:
        """The options of a server or a command whose store this is."""
        return [f"--store={url}", *self.places()]

    def places(self) -> list[str]:
        """How it is reached."""
        return [f"--store-endpoint={self.endpoint}", f"--store-credentials={self.credentials}"]

    def run_it(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``pop3toy``."""
        return run_command(*POP3TOY, *words, folder=self.folder)

    def copy(self, source: str, target: str, *words: str) -> str:
        """Copy, which has to succeed."""
        done = self.run_it("store", "copy", source, target, *self.places(), *words)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, "")
        return done.stdout


class S3Tests(S3Case):
    """From Maildirs to S3, to another place there, and back."""

    def test_around(self) -> None:
        """All messages come back under the names that they had, and the comparisons find nothing."""
        put(self.mail, "ann", *range(1, 8))
        put(self.mail, "bob", 1)
        for number, one in enumerate(awkward_messages(large=False)):
            (self.mail / "ann" / "cur" / f"{1_700_000_100 + number}.M1P1.mail:2,S").write_bytes(one.stored)
        back, second = self.folder / "back", self.new_url()
        back.mkdir()
        self.copy(f"{self.mail}/{{user}}", self.url, "--verify")
        self.copy(self.url, second, "--verify")
        self.copy(second, f"{back}/{{user}}", "--verify")
        for user in ("ann", "bob"):
            there, here = (
                sorted(path.name.partition(":")[0] for path in (root / user).glob("[nc][eu][wr]/*"))
                for root in (self.mail, back)
            )
            self.assertEqual(there, here)
            self.assertFalse((back / user / "pop3toy-uidl").exists())

    def test_store_of_a_file(self) -> None:
        """All that the file says of the storage counts, also in which buckets new mailboxes are."""
        put(self.mail, "ann", 1)
        bucket = secrets.token_hex(8)
        make_bucket(self.endpoint, bucket)
        config = self.folder / "pop3toy.toml"
        config.write_text(
            f'[store]\nstore = "{self.url}"\nstore-endpoint = "{self.endpoint}"\n'
            f'store-credentials = "{self.credentials}"\nstore-bucket = ["{bucket}"]\n'
        )
        pattern, back = f"{self.mail}/{{user}}", self.folder / "back"
        back.mkdir()
        done = self.run_it("store", "copy", f"--config={config}", pattern, "config", "--verify")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        engines = Engines(Objects(url=self.url, endpoint=self.endpoint, credentials=str(self.credentials)))
        found = Users(engines).find("ann")
        self.assertEqual(found.bucket, bucket)
        # An option of the command line goes before; what is for object storage is not the Maildirs'.
        config.write_text(config.read_text().replace(self.endpoint, "http://127.0.0.1:1"))
        self.copy("config", f"{back}/{{user}}", f"--config={config}")
        self.assertEqual(len(os.listdir(back / "ann" / "new")), 1)
        config.write_text(f'[store]\nmaildir = "{back}/{{user}}"\n')
        self.copy("config", self.new_url(), f"--config={config}")

    def test_unreachable(self) -> None:
        """A store that does not answer is a reason to try again."""
        put(self.mail, "ann", 1)
        done = self.run_it(
            "store", "copy", f"{self.mail}/{{user}}", "s3://nothing", *self.places(), "--threads=1"
        )
        self.assertEqual(done.returncode, os.EX_TEMPFAIL, done.stderr)
        # Behind what the log says of it.
        self.assertEqual(
            done.stderr.splitlines()[-1], "ann: object storage: there is no such bucket", done.stderr
        )
        self.assertNotIn("Traceback", done.stderr)

    def test_accounts(self) -> None:
        """Accounts go with the mail: with their passwords, under other spellings too."""
        first = [*self.options(self.url), "--accounts=objects"]
        done = run_command(
            *POP3TOY, "user", "add", "Ann", *first, "--stdin", folder=self.folder, stdin="secret\n"
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        second = self.new_url()
        said = self.copy(self.url, second, "--accounts")
        self.assertTrue(said.startswith("1 account copied\n"), said)
        with RealServer(*self.options(second), "--accounts=objects") as server, logged_in_as(server, "ann"):
            pass


@contextmanager
def logged_in_as(server: RealServer, user: str) -> Iterator[None]:
    """A session of this user."""
    with logged_in(server.port, user.encode("ascii")):
        yield


class MovedTests(S3Case):
    """A mail program that leaves mail on the server, and remembers what it has fetched."""

    def serve_maildirs(self) -> RealServer:
        """The server with Maildirs."""
        return RealServer(*maildir_options(self.mail), f"--port={self.port}")

    def serve_objects(self) -> RealServer:
        """The server with object storage."""
        return RealServer(*self.options(self.url), "--user=ann:secret", f"--port={self.port}")

    def fetched(self, server: RealServer, program: Callable[[], MailClient], count: int) -> list[int]:
        """What the program fetches that it has not fetched before."""
        self.assertEqual(server.port, self.port)
        got = program().fetch(count, only_new=True)
        return [int(text.partition(b"Subject: ")[2].split()[0]) for text in got]

    def moved(self, kind: type[MailClient]) -> None:
        """To object storage and back, with mail that comes and goes between."""
        if why := kind.missing():
            raise SkipTest(why)
        pattern, home = f"{self.mail}/{{user}}", self.folder / "home"
        home.mkdir()
        program = partial(kind, self.port, home)
        put(self.mail, "ann", 1, 2, 3)
        with self.serve_maildirs() as server:
            self.assertEqual(self.fetched(server, program, 3), [1, 2, 3])
            # While it serves.
            self.copy(pattern, self.url)
            put(self.mail, "ann", 4)
            (self.mail / "ann" / "new" / "1700000002.M2P1.mail").unlink()
        self.copy(pattern, self.url, "--delete", "--verify")
        with self.serve_objects() as server:
            self.assertEqual(self.fetched(server, program, 3), [4])
            self.assertEqual(self.fetched(server, program, 3), [])
            done = run_command(
                *POP3TOY, "deliver", "ann", *self.options(self.url),
                folder=self.folder, stdin=message(5).decode(),
            )  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(self.fetched(server, program, 4), [5])
            with logged_in(server.port) as client:
                uids = client.uids()
                client.dele(1)
            # Back, while it serves.
            self.copy(self.url, pattern)
        self.copy(self.url, pattern, "--delete", "--verify")
        with self.serve_maildirs() as server:
            self.assertEqual(self.fetched(server, program, 3), [])
            with logged_in(server.port) as client:
                self.assertEqual([*client.uids().values()], [uids[2], uids[3], uids[4]])
        # And to a place where nothing was.
        self.url = self.new_url()
        self.copy(pattern, self.url)
        with self.serve_objects() as server:
            self.assertEqual(self.fetched(server, program, 3), [])

    def test_getmail(self) -> None:
        """getmail6 fetches every message once."""
        self.moved(Getmail)

    def test_mpop(self) -> None:
        """mpop fetches every message once."""
        self.moved(Mpop)

    def test_fetchmail(self) -> None:
        """fetchmail with --uidl fetches every message once."""
        self.moved(Fetchmail)
