"""Real mail programs fetch a Maildir of awkward messages from a real server, and every octet is compared."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ..corpus import Awkward, Stored, awkward_messages, fill_maildir, make_maildir, stuffed
from ..folders import new_folder
from ..realserver import RealServer, maildir_options, wait_until
from ..strictclient import StrictClient, logged_in
from .mailclients import (
    CClient,
    Curl,
    Fdm,
    Fetchmail,
    Getmail,
    MailClient,
    Movemail,
    Mpop,
    Mutt,
    NetPop,
    NetPop3,
    Poplib,
    TwistedClient,
)


class ServedCase(SynchronousTestCase):
    """A server with one user, ann, and whatever messages a test puts there."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.maildir = make_maildir(self.root / "ann")

    def serve(self, messages: Sequence[Awkward]) -> list[Stored]:
        """Fill the Maildir and start the server."""
        stored = fill_maildir(self.maildir, messages)
        self.start()
        return stored

    def start(self) -> None:
        """Start the server on the Maildir as it is."""
        self.server = RealServer(*maildir_options(self.root))
        self.addCleanup(self.server.terminate)

    def serve_with_wrong_sizes(self) -> list[Awkward]:
        """Start the server on messages whose names lie about their octets."""
        messages = awkward_messages(large=False)[:3]
        for at, (message, lie) in enumerate(zip(messages, (1, 100_000, 0), strict=True)):
            (self.maildir / "cur" / f"{1_700_000_000 + at}.M1P1.mail,W={lie}:2,").write_bytes(message.stored)
        self.start()
        return messages

    def left(self) -> list[str]:
        """The names of the messages in the Maildir."""
        return sorted(os.listdir(self.maildir / "new") + os.listdir(self.maildir / "cur"))

    def free(self) -> None:
        """Wait until the last client's session has ended, and with it the lock."""

        def over() -> bool:
            log = self.server.log
            return log.count("login: session=") == log.count("end: session=")

        wait_until(over, "the sessions end")


class StrictClientTests(ServedCase):
    """A client that checks the RFCs' syntax, and the octets on the wire before it takes the dots off."""

    def test_every_octet(self) -> None:
        """Each message of the corpus arrives in its wire form, and LIST and STAT tell its octets."""
        stored = self.serve(awkward_messages())
        with logged_in(self.server.port) as client:
            sizes = client.sizes()
            self.assertEqual(list(sizes), list(range(1, len(stored) + 1)))
            for number, one in enumerate(stored, 1):
                message = one.message
                self.assertEqual((message.name, sizes[number]), (message.name, len(message.wire)))
                self.assertTrue(client.retr(number) == message.wire, message.name)
                self.assertTrue(client.top(number, 99_999_999) == message.wire, f"TOP of {message.name}")
        self.assertEqual(len(self.left()), len(stored))

    def test_headers_alone(self) -> None:
        """``TOP n 0`` is the header and the empty line, whatever comes after them."""
        stored = self.serve(awkward_messages(large=False))
        with logged_in(self.server.port) as client:
            for number, one in enumerate(stored, 1):
                lines = one.message.wire.split(b"\r\n")
                # CRs aside.
                end = [line.strip(b"\r") for line in lines].index(b"")
                header = b"".join(line + b"\r\n" for line in lines[: end + 1])
                self.assertTrue(client.top(number, 0) == header, one.message.name)
                first = b"".join(line + b"\r\n" for line in lines[: end + 3])
                expected = first if len(first) < len(one.message.wire) else one.message.wire
                self.assertTrue(client.top(number, 2) == expected, one.message.name)

    def test_pipelined(self) -> None:
        """All commands of a session in one write bring the octets that one by one bring."""
        stored = self.serve(awkward_messages(large=False))
        commands = [b"USER ann", b"PASS secret"]
        commands += [b"RETR %d" % number for number in range(1, len(stored) + 1)] + [b"QUIT"]
        digest = hashlib.sha256()
        with StrictClient(self.server.port) as client:
            client.send(b"".join(command + b"\r\n" for command in commands))
            client.status()
            client.status()
            for one in stored:
                client.status()
                body = client.body()
                self.assertTrue(body == one.message.wire, one.message.name)
                digest.update(stuffed(body))
            client.status()
            client.ended()
        expected = hashlib.sha256(b"".join(stuffed(one.message.wire) for one in stored))
        self.assertEqual(digest.hexdigest(), expected.hexdigest())

    def test_unique_ids_stay(self) -> None:
        """Unique-ids and order survive a restart of the server, new flags, and the move from new/ to cur/."""
        stored = self.serve(awkward_messages(large=False))
        with logged_in(self.server.port) as client:
            before = client.uids()
        self.server.terminate()
        for one in stored:
            base = one.path.name.partition(":2,")[0]
            one.path.rename(self.maildir / "cur" / f"{base}:2,FRS")
        self.start()
        with logged_in(self.server.port) as client:
            self.assertEqual(client.uids(), before)
            for number, one in enumerate(stored, 1):
                self.assertEqual(client.uid(number), before[number])
                self.assertEqual(client.size(number), len(one.message.wire))

    def test_wrong_size_in_a_name(self) -> None:
        """A ``W=`` that lies is found out by the first RETR, and the next session tells the truth."""
        messages = self.serve_with_wrong_sizes()
        with logged_in(self.server.port) as client:
            for number, message in enumerate(messages, 1):
                self.assertTrue(client.retr(number) == message.wire, message.name)
        with logged_in(self.server.port) as client:
            self.assertEqual(list(client.sizes().values()), [len(message.wire) for message in messages])


if TYPE_CHECKING:
    _Mixin = ServedCase
else:
    # trial must not collect the classes that have no client yet.
    _Mixin = object


class MailClientTests(_Mixin):
    """What holds for every mail program; the classes below say for which."""

    client: ClassVar[type[MailClient]]

    def setUp(self) -> None:
        super().setUp()
        if why := self.client.missing():
            raise SkipTest(why)

    def _program(self) -> MailClient:
        home = new_folder(self)
        return self.client(self.server.port, home)

    def _compare(
        self: ServedCase, program: MailClient, got: list[bytes], messages: Sequence[Awkward]
    ) -> None:
        self.assertEqual(len(got), len(messages))
        for octets, message in zip(got, messages, strict=True):
            self.assertTrue(program.same(octets, message.wire), f"{message.name}: {octets[:200]!r}")

    def test_every_octet(self) -> None:
        """Each message of the corpus arrives whole and in order, and stays on the server."""
        messages = awkward_messages()
        self.serve(messages)
        program = self._program()
        self._compare(program, program.fetch(len(messages)), messages)
        self.free()
        self.assertEqual(len(self.left()), len(messages))

    def test_fetch_and_delete(self) -> None:
        """What was fetched and deleted is gone from the Maildir."""
        messages = awkward_messages(large=False)[:20]
        self.serve(messages)
        program = self._program()
        self._compare(program, program.fetch(len(messages), delete=True), messages)
        self.free()
        self.assertEqual(self.left(), [])

    def test_wrong_sizes(self) -> None:
        """Sizes in the names that lie break nothing and lose nothing."""
        messages = self.serve_with_wrong_sizes()
        program = self._program()
        self._compare(program, program.fetch(len(messages)), messages)


class RememberingClientTests(MailClientTests):
    """What holds for those that remember unique-ids as well."""

    def test_fetch_only_new(self) -> None:
        """A second run fetches just what is new: the unique-ids of the others are known."""
        messages = awkward_messages(large=False)
        self.serve(messages[:-2])
        program = self._program()
        program.fetch(len(messages) - 2, only_new=True)
        self.assertEqual(program.fetch(len(messages) - 2, only_new=True), [])
        for at, message in enumerate(messages[-2:]):
            (self.maildir / "new" / f"{1_800_000_000 + at}.M1P1.mail").write_bytes(message.stored)
        self._compare(program, program.fetch(len(messages), only_new=True), messages[-2:])


class PoplibTests(MailClientTests, ServedCase):
    """Python's poplib with its default limits, on the messages that keep them."""

    client = Poplib

    def test_every_octet(self) -> None:
        """Each message whose lines poplib takes arrives whole, with poplib's own limit."""
        messages = [m for m in awkward_messages() if m.longest_line <= Poplib.longest_line]
        self.assertGreater(len(messages), 50)
        self.serve(messages)
        program = self._program()
        self._compare(program, program.fetch(len(messages)), messages)

    def test_long_lines(self) -> None:
        """The messages with longer lines arrive whole once the limit is raised."""
        messages = [m for m in awkward_messages() if m.longest_line > Poplib.longest_line]
        self.serve(messages)
        self.patch(Poplib, "longest_line", 1 << 24)
        program = self._program()
        self._compare(program, program.fetch(len(messages)), messages)


class CurlTests(MailClientTests, ServedCase):
    """curl."""

    client = Curl

    def test_listings(self) -> None:
        """curl shows the scan listing, the unique-id listing and the top of a message."""
        stored = self.serve(awkward_messages(large=False)[:3])
        program = self._program()
        assert isinstance(program, Curl)
        expected = "".join(f"{n} {len(one.message.wire)}\r\n" for n, one in enumerate(stored, 1))
        self.assertEqual(program.ask(""), expected)
        uids = program.ask("", "--request", "UIDL").split()
        self.assertEqual(uids[0::2], ["1", "2", "3"])
        self.assertEqual(len(set(uids[1::2])), 3)
        header = stored[0].message.wire.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        self.assertEqual(program.ask("", "--request", "TOP 1 0"), header.decode())


class FetchmailTests(RememberingClientTests, ServedCase):
    """fetchmail."""

    client = Fetchmail


class GetmailTests(RememberingClientTests, ServedCase):
    """getmail6."""

    client = Getmail


class MpopTests(RememberingClientTests, ServedCase):
    """mpop."""

    client = Mpop


class FdmTests(MailClientTests, ServedCase):
    """fdm."""

    client = Fdm


class MuttTests(MailClientTests, ServedCase):
    """mutt."""

    client = Mutt


class MovemailTests(MailClientTests, ServedCase):
    """movemail of GNU Mailutils, on the messages that it can hold."""

    client = Movemail

    def test_every_octet(self) -> None:
        """Each message that has a header, and is not long, arrives whole."""
        messages = [
            m for m in awkward_messages(large=False) if len(m.wire) < 10_000 and Movemail.takes(m.wire)
        ]
        self.assertGreater(len(messages), 40)
        self.serve(messages)
        program = self._program()
        self._compare(program, program.fetch(len(messages)), messages)


class NetPop3Tests(MailClientTests, ServedCase):
    """Perl's Net::POP3."""

    client = NetPop3


class NetPopTests(MailClientTests, ServedCase):
    """Ruby's net/pop."""

    client = NetPop


class CClientTests(MailClientTests, ServedCase):
    """c-client, in PHP."""

    client = CClient


class TwistedClientTests(MailClientTests, ServedCase):
    """Twisted's client."""

    client = TwistedClient
