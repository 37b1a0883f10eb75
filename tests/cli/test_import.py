"""``pop3toy mailbox import``: what comes in, what is left out, and what is said about it."""

from __future__ import annotations

import errno
import os
import re
from typing import Any

from twisted.trial.unittest import SkipTest

from pop3toy.cli.formats import open_source
from pop3toy.mail.octets import octets
from tests.cli_world import CommandTests


class ImportTests(CommandTests):
    """``pop3toy mailbox import``."""

    def test_import_create(self) -> None:
        """A mistyped name gets no mailbox; who has one needs no account."""
        eml = self.root / "a.eml"
        eml.write_bytes(b"a: b\n\n")
        self.accounts.write_text("bob:{PLAIN}x\n")
        for options, words in ((["{A}"], "no account bbo in"), ([], "--accounts")):
            done = self.run_command("mailbox", "import", "{M}", *options, "--create", "bbo", str(eml))
            self.assertEqual(done.status, os.EX_NOUSER)
            self.assertRegex(done.err, rf"\AError: .*{words}.*\n\Z")
        self.assertEqual(list((self.root / "mail").iterdir()), [])
        self.deliver()
        for user in ("ann", "bob"):
            done = self.run_command("mailbox", "import", "{M}", "{A}", "--create", user, str(eml))
            self.assertEqual(done.status, 0, done.err)

    def test_import_of_hostile_folders(self) -> None:
        """Of folders only regular files are imported; links, FIFOs and dot names are counted and named."""
        (self.root / "secret").write_bytes(b"Subject: secret\n\n")
        (self.root / "elsewhere").mkdir()
        (self.root / "elsewhere" / "1").write_bytes(b"Subject: secret\n\n")
        md, mh, eml, linked = (self.root / name for name in ("md", "mh", "eml", "linked"))
        for folder, name, others, links in (
            (md / "new", "7.a:2,S", (".keep", ".nfs0001", "._7.a"), ("8.link",)),
            (mh, "7", (), ("8",)), (eml, "7.eml", ("._7.eml",), ("8.eml",)), (linked / "new", "7.a", (), ()),
        ):  # fmt: skip
            folder.mkdir(parents=True)
            for other in (name, *others):
                (folder / other).write_bytes(b"Subject: in\n\n")
            for link in links:
                (folder / link).symlink_to(self.root / "secret")
            os.mkfifo(folder / name.replace("7", "9"))
        (md / "cur").mkdir()
        (md / "cur" / "folder").mkdir()
        (linked / "cur").symlink_to(self.root / "elsewhere")
        for source, left_out in (
            (md, "cur/folder, new/._7.a, new/.keep, new/.nfs0001, new/8.link, new/9.a:2,S"), (mh, "8, 9"),
            (eml, "._7.eml, 8.eml, 9.eml"), (linked, "cur, new/9.a"),
        ):  # fmt: skip
            user = source.name
            done = self.import_(user, source)
            self.assertEqual(done.status, 0, done.err)
            self.assertIn(f"{source}: left out, for they are no messages: {left_out}\n", done.err)
            count = left_out.count(", ") + 1
            self.assertEqual(
                done.out,
                f"1 imported, 0 not readable, {count} left out that are no messages\n",
            )
            self.assertEqual([file.read_bytes() for file in self.files(user)], [b"Subject: in\n\n"])

    def test_import_of_what_is_exchanged(self) -> None:
        """What is no regular file any more when its turn comes is not read."""
        (self.root / "secret").write_bytes(b"Subject: secret\n\n")
        for number, exchange in enumerate((lambda path: path.symlink_to(self.root / "secret"), os.mkfifo)):
            md = self.root / f"md{number}"
            for part in ("new", "cur"):
                (md / part).mkdir(parents=True)
            (md / "new" / "1.a").write_bytes(b"a: b\n\n")
            (md / "new" / "2.b").write_bytes(b"a: b\n\n")
            source = open_source(md)
            descriptors = len(os.listdir("/proc/self/fd"))
            (md / "new" / "1.a").unlink()
            exchange(md / "new" / "1.a")
            # Read by a mail program meanwhile.
            (md / "new" / "2.b").rename(md / "cur" / "2.b:2,S")
            (_, first), (_, second) = source.messages()
            self.assertIsInstance(first, OSError)
            self.assertEqual(second, b"a: b\n\n")
            self.assertEqual(len(os.listdir("/proc/self/fd")), descriptors)

    def test_import_through_a_link(self) -> None:
        """A source may be a link of the administrator's, or one to its maker's own; not to another's."""
        box = self.root / "box"
        box.write_bytes(b"From a Mon Jan  1 00:00:00 2024\na: b\n\n")
        link = self.root / "link"
        link.symlink_to(box)
        self.assertEqual(self.import_("ann", link).status, 0)
        if os.geteuid():
            raise SkipTest("only root can make a link of somebody else's")
        os.lchown(link, 4711, 4711)
        done = self.import_("ann", link)
        self.assertEqual(done.status, os.EX_NOPERM)
        self.assertIn("a link to somebody else's files", done.err)
        os.chown(box, 4711, 4711)
        self.assertEqual(self.import_("ann", link).status, 0)
        fifo = self.root / "fifo"
        os.mkfifo(fifo)
        self.assertEqual(self.import_("ann", fifo).status, os.EX_USAGE)
        self.assertEqual(len(self.files()), 2)

    def test_import_of_another_s_files(self) -> None:
        """A link on the way to a source, or a second name of a file, brings nothing of another's."""
        if os.geteuid():
            raise SkipTest("only root can make a link of somebody else's")
        home, secret = self.root / "home", self.root / "secret"
        for part in ("", "new", "cur"):
            (secret / "md" / part).mkdir(parents=True)
        (secret / "box").write_bytes(b"From a Mon Jan  1 00:00:00 2024\na: b\n\n")
        (secret / "md" / "new" / "1.a").write_bytes(b"a: b\n\n")
        home.mkdir()
        (home / "mail").symlink_to(secret)
        for part in ("new", "cur"):
            (home / "md" / part).mkdir(parents=True)
        (home / "md" / "new" / "1.a").hardlink_to(secret / "md" / "new" / "1.a")
        (home / "box").hardlink_to(secret / "box")
        for path in (home, home / "mail", home / "md", home / "md" / "new", home / "md" / "cur"):
            os.lchown(path, 4711, 4711)
        for source in (home / "mail" / "box", home / "mail" / "md", home / "box"):
            done = self.import_("ann", source)
            self.assertEqual((done.status, done.out), (os.EX_NOPERM, ""), done)
            self.assertIn(f"{source}: ", done.err)
        done = self.import_("ann", home / "md")
        self.assertEqual((done.status, done.out), (os.EX_DATAERR, "0 imported, 1 not readable\n"), done)
        self.assertEqual(self.files(), [])
        os.lchown(home / "mail", 0, 0)
        self.assertEqual(self.import_("ann", home / "mail" / "box").status, 0)

    def test_import_what_is_unreadable(self) -> None:
        """One file that cannot be read keeps no other from coming in; the exit status is 65."""
        folder = self.root / "eml"
        folder.mkdir()
        for number in range(3):
            (folder / f"{number}.eml").write_bytes(b"Subject: %d\n\n" % number)
        real = os.open

        def open_(path: Any, *args: Any, **options: Any) -> int:
            if path == "1.eml":
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return real(path, *args, **options)

        self.patch(os, "open", open_)
        done = self.import_("ann", folder)
        self.assertEqual(done.status, os.EX_DATAERR)
        self.assertEqual(done.out, "2 imported, 1 not readable\n")
        self.assertIn(f"{folder}: 1.eml: Permission denied\n", done.err)
        self.assertEqual([file.read_bytes()[9:10] for file in self.files()], [b"0", b"2"])

    def test_import_to_a_full_disk(self) -> None:
        """An import that fails leaves nothing in tmp/, however far it came."""
        eml = self.root / "large.eml"
        eml.write_bytes(b"Subject: x\n\n" + b"x" * 1_000_000)
        self.deliver()

        def full(*args: object, **options: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        for function in ("write", "fsync", "rename"):
            real = getattr(os, function)
            self.patch(os, function, full)
            done = self.import_("ann", eml)
            self.patch(os, function, real)
            self.assertEqual(done.status, os.EX_TEMPFAIL, done.err)
            self.assertEqual(list((self.root / "mail" / "ann" / "tmp").iterdir()), [])
        self.assertEqual(len(self.files()), 1)

    def test_import_beyond_a_quota(self) -> None:
        """An import asks no quota, and says in the end when the mailbox holds more than it."""
        eml = self.root / "a.eml"
        eml.write_bytes(b"Subject: x\n\n" + b"x" * 50)
        self.deliver()
        for quota in ("", "quota=1K", "quota=200", "quota=0", "quota=lots"):
            self.accounts.write_text(f"ann:{{PLAIN}}x:{quota}\n")
            used = sum(file.stat().st_size for file in self.files()) + len(eml.read_bytes())
            done = self.run_command("mailbox", "import", "{M}", "{A}", "ann", str(eml))
            self.assertEqual(done.status, 0, done.err)
            self.assertEqual(
                f"the mailbox of ann holds {used:,} octets now, more than its quota of" in done.err,
                quota in ("quota=200", "quota=0"),
                done.err,
            )
        self.assertEqual(len(self.files()), 6)

    def test_import_deleted(self) -> None:
        """What its owner has deleted in Thunderbird is left out and counted, from files of every kind."""
        folder = self.root / "eml"
        folder.mkdir()
        box = b""
        for number, (status, body) in enumerate((
            (b"0009", b""), (b"0001", b"X-Mozilla-Status: 0008\n"), (b"000A", b""), (b"9017", b""),
            (b"lots", b""),
        )):  # fmt: skip
            message = b"x-mozilla-status: %b\nSubject: %d\n\n%b\n" % (status, number, body)
            (folder / f"{number}.eml").write_bytes(message.replace(b"\n", b"\r\n"))
            box += b"From - Mon Jan  1 00:00:00 2024\n" + message + b"\n"
        (self.root / "box").write_bytes(box)
        for source in (folder, self.root / "box"):
            done = self.import_(source.name, source)
            counts = "3 imported, 0 not readable, 2 deleted by their owner and left out\n"
            self.assertEqual((done.status, done.out), (0, counts), done.err)
            found = [re.findall(rb"Subject: (.)", file.read_bytes())[0] for file in self.files(source.name)]
            self.assertEqual(found, [b"1", b"3", b"4"])

    def test_kept_as_text(self) -> None:
        """How many lines like separators were kept as text is told, in the end."""
        separator = b"From a@b Mon Jan  1 00:00:00 2024\n"
        box = self.root / "box"
        box.write_bytes(
            separator + b"a: b\n\nFrom here on: nothing\n" + b"From me\n\n" + separator + b"a: b\n\n>From x\n"
        )
        done = self.import_("ann", box)
        self.assertEqual(done.out, "2 imported, 0 not readable\n")
        self.assertTrue(
            done.err.endswith("kept as text: 2 lines that looked like the separators of an mbox\n")
        )

    def test_carriage_returns_alone(self) -> None:
        """Files whose lines end with CR alone, as on old Macs, come in whole, of every kind."""
        message = b"Subject: x\n\nbody\n"
        folders = {name: self.root / name for name in ("mh", "eml", "md/new", "md/cur")}
        for folder in folders.values():
            folder.mkdir(parents=True)
        old = message.replace(b"\n", b"\r")
        for name in ("mh/1", "eml/1.eml", "md/new/1.a", "single", "quoted"):
            (self.root / name).write_bytes(b">From x\r" * (name == "quoted") + old)
        (self.root / "box").write_bytes((b"From a@b Mon Jan  1 00:00:00 2024\r" + old + b"\r") * 2)
        sources = ("mh", "eml", "md", "single", "quoted", "box")
        done = self.import_("ann", *(self.root / name for name in sources))
        self.assertEqual((done.status, done.out), (0, "7 imported, 0 not readable\n"), done.err)
        self.assertEqual([file.read_bytes() for file in self.files()], [message] * 7)

    def test_empty_lines_before_the_first_separator(self) -> None:
        """An mbox may begin with empty lines, whether it was found out or named."""
        box = self.root / "box"
        for ending in (b"\n", b"\r\n", b"\r"):
            box.write_bytes(b"\n\nFrom a@b\na: b\n\nx\n".replace(b"\n", ending))
            for options in ([], ["-F", "mbox"]):
                done = self.import_("ann", *options, box)
                self.assertEqual((done.status, done.out), (0, "1 imported, 0 not readable\n"), done.err)
        self.assertEqual({file.read_bytes().replace(b"\r", b"") for file in self.files()}, {b"a: b\n\nx\n"})

    def test_nothing_is_imported_silently(self) -> None:
        """Messages without an octet are left out and counted; a source without any message is named."""
        for name in ("md/new", "md/cur", "mh", "eml"):
            (self.root / name).mkdir(parents=True)
        for name, text in (
            ("md/new/1.a", b""), ("mh/1", b"\r\n"), ("eml/1.eml", b"\xef\xbb\xbf"),
            ("single.eml", b"From a@b Mon Jan  1 00:00:00 2024\n"), ("box", b"From a@b\n\nFrom b@c\na: b\n"),
        ):  # fmt: skip
            (self.root / name).write_bytes(text)
        sources = [str(self.root / name) for name in ("md", "mh", "eml", "single.eml", "box")]
        done = self.import_("ann", *sources)
        self.assertEqual(
            (done.status, done.out),
            (0, "1 imported, 0 not readable, 5 empty and left out\n"), done.err,
        )  # fmt: skip
        self.assertEqual([file.read_bytes() for file in self.files()], [b"a: b\n"])
        for kind, source in (("eml", "md"), ("mh", "eml")):
            done = self.import_("ann", "-F", kind, str(self.root / source))
            self.assertIn(f"{self.root / source}: there are no messages in it (as {kind})\n", done.err)

    def test_sentences(self) -> None:
        """A text that begins with a sentence keeps it: it is no mbox, and said to be none."""
        box, eml = self.root / "box", self.root / "eml"
        box.write_bytes(b"From the office:\n\nbye\n")
        for options in ([], ["-F", "mbox"]):
            self.assertEqual(self.import_("ann", *options, box).status, os.EX_USAGE)
        eml.write_bytes(b"From Paris:\nNote: closed\n")
        self.assertEqual(self.import_("ann", "-F", "eml", eml).status, 0)
        self.assertEqual([file.read_bytes() for file in self.files()], [b"From Paris:\nNote: closed\n"])

    def test_carriage_returns(self) -> None:
        """A CR before a line end survives export and import, and one at the very end as well."""
        messages = [b"Subject: f\r\r\ng: h\n\nx\n", b"a: b\n\nx\r", b"a: b\n\n\r", b"a: b\n\nx\ry\n"]
        for message in messages:
            self.deliver(message)
        stored = [file.read_bytes() for file in self.files()]
        self.assertEqual(stored, messages)
        for kind in ("mbox", "eml"):
            destination = str(self.root / kind)
            self.run_command("mailbox", "export", "{M}", "-F", kind, "ann", destination)
            self.import_(kind, destination)
            # A line end that was missing, which POP3 would add.
            again = [file.read_bytes() for file in self.files(kind)]
            self.assertEqual(
                [octets(message) for message in again], [octets(message) for message in messages]
            )
            known = self.run_command("mailbox", "import", "{M}", "-s", kind, destination)
            self.assertEqual(known.out, "0 imported, 4 known already, 0 not readable\n")
