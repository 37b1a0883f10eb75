"""LMTP: a mail server hands mail over and hears of each recipient."""

from __future__ import annotations

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import NoSuchMailbox, OverQuota, StoreTrouble
from pop3toy.events import Delivered, Observers, Refused
from pop3toy.routing.recipients import RecipientResolver
from pop3toy.smtp import limits
from pop3toy.smtp.factory import lmtp_factory
from tests.pop3_world import Watcher
from tests.smtp_world import Client, Slow, find_in, world

ENVELOPE = ("LHLO postfix", "MAIL FROM:<eve@elsewhere.example>")
EVERYBODY = tuple(f"RCPT TO:<{user}@example.org>" for user in ("ann", "bob", "cat"))


class LMTPTests(SynchronousTestCase):
    """RFC 2033."""

    def test_hello(self) -> None:
        """LHLO takes the place of HELO and EHLO, which are not known."""
        factory, _, _ = world(lmtp_factory)
        client = Client.on_socket(factory)
        self.assertEqual(client.greeting, ["220 mx.example.org LMTP pop3toy"])
        self.assertEqual([a[:3] for a in client.say("HELO x", "EHLO x")], ["500", "500"])
        self.assertEqual(client.say(ENVELOPE[1]), ["503 5.5.1 LHLO comes first"])
        answers = client.say("LHLO postfix")
        self.assertEqual(answers[0], "250-mx.example.org")
        for extension in ("PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME"):
            self.assertIn(f"250-{extension}", answers)

    def test_one_reply_for_each(self) -> None:
        """Behind a message each recipient that was accepted has a reply, in their order."""
        factory, store, _ = world(lmtp_factory)
        client = Client.on_socket(factory)
        unknown = "RCPT TO:<nobody@example.org>"
        answers = client.say(*ENVELOPE, EVERYBODY[1], unknown, EVERYBODY[0], "DATA", "a: b", ".", "QUIT")
        self.assertEqual([a[:3] for a in answers[-7:]], ["250", "550", "250", "354", "250", "250", "221"])
        for user in ("ann", "bob"):
            (message,) = store.messages(user)
            self.assertIn(
                b"from postfix (unix socket)\r\n\tby mx.example.org (pop3toy) with LMTP id ", message
            )

    def test_nobody_accepted(self) -> None:
        """Where no recipient was accepted there is no message either, and the session goes on."""
        factory, _, _ = world(lmtp_factory)
        client = Client.on_socket(factory)
        answers = client.say(*ENVELOPE, "RCPT TO:<nobody@example.org>", "DATA", "RSET")
        self.assertEqual([a[:3] for a in answers[-3:]], ["550", "503", "250"])
        self.assertEqual([a[:3] for a in client.say(ENVELOPE[1], EVERYBODY[0], "DATA")[-1:]], ["354"])

    def test_fates(self) -> None:
        """A recipient who cannot have the message does not keep it from the others."""
        for fail, codes in (
            ({}, ["250", "250", "250"]),
            ({"commit bob": StoreTrouble()}, ["250", "451", "250"]),
            ({"commit ann": OverQuota(), "write cat": OverQuota(holds=1)}, ["452", "250", "552"]),
            ({f"write {user}": StoreTrouble() for user in ("ann", "bob", "cat")}, ["451"] * 3),
            ({f"commit {user}": StoreTrouble() for user in ("ann", "bob", "cat")}, ["451"] * 3),
        ):
            with self.subTest(fail=fail):
                slow = Slow()
                slow.fail = dict(fail)
                client = Client.on_socket(world(lmtp_factory, delivery=slow)[0])
                client.say(*ENVELOPE, *EVERYBODY)
                answers = client.say("DATA", "a: b", ".")[1:]
                while slow.waiting:
                    slow.go_on()
                self.assertEqual([a[:3] for a in answers + client.answers()], codes)

    def test_told_who_has_it(self) -> None:
        """It is told who has a message and who has not, as the client hears it; and logged why."""
        slow, watcher = Slow(), Watcher(Delivered, Refused)
        slow.fail = {"commit bob": OverQuota(detail="of 3 octets")}
        factory, _, _ = world(lmtp_factory, delivery=slow, observers=Observers(watcher))
        client = Client.on_socket(factory)
        with capturedLogs() as events:
            client.say(*ENVELOPE, *EVERYBODY)
            client.say("DATA", "a: b", ".")
            while slow.waiting:
                slow.go_on()
        delivered, refused = watcher.events
        self.assertEqual(delivered.uids, [("ann", b"uid"), ("cat", b"uid")])
        self.assertEqual((delivered.sender, delivered.octets), ("eve@elsewhere.example", 6))
        self.assertEqual(
            refused[2:],
            ("LMTP", client.protocol.record.channel, delivered.queue_id, "eve@elsewhere.example",
             "bob@example.org", 452, "4.2.2", "mailbox is full"),
        )  # fmt: skip
        lines = [formatEvent(event) or "" for event in events]
        self.assertIn("delivery for 'bob': mailbox is full: of 3 octets", lines)

    def test_no_mailbox(self) -> None:
        """Mail for a user whose mailbox is missing waits, like that for one in trouble."""
        slow = Slow()
        slow.fail = {"check ann": NoSuchMailbox(), "commit bob": NoSuchMailbox()}
        factory, _, _ = world(lmtp_factory, delivery=slow)
        client = Client.on_socket(factory)
        answers = client.say(*ENVELOPE, *EVERYBODY[:2], "DATA", "a: b", ".")
        while slow.waiting:
            slow.go_on()
        answers += client.answers()
        self.assertEqual([a[:9] for a in answers[-4:]], ["451 4.3.0", "250 2.1.5", "354 go on", "451 4.3.0"])

    def test_refused_message(self) -> None:
        """A message that is refused as a whole is refused for each of them."""
        factory, store, _ = world(lmtp_factory)
        client = Client.on_socket(factory)
        client.say(*ENVELOPE, *EVERYBODY, "DATA")
        answers = client.send(b"a: b\nc: d\r\n.\r\n")
        self.assertEqual([a[:10] for a in answers], ["550 5.6.11"] * 3)
        self.assertEqual(store.messages("ann"), ())

    def test_two_addresses_of_one_user(self) -> None:
        """A user with two addresses gets one copy; both addresses have their reply."""
        factory, store, _ = world(lmtp_factory)
        client = Client.on_socket(factory)
        client.say(*ENVELOPE, EVERYBODY[0], "RCPT TO:<ann+x@example.org>", "DATA")
        self.assertEqual([a[:3] for a in client.say("a: b", ".")], ["250", "250"])
        self.assertEqual(len(store.messages("ann")), 1)

    def test_alias_for_several(self) -> None:
        """An alias is delivered when all its users have the message."""
        slow = Slow()
        slow.fail = {"commit bob": StoreTrouble()}
        recipients = RecipientResolver(find_in("ann", "bob"), aliases=lambda: {"all": ("ann", "bob")})
        factory, _, _ = world(lmtp_factory, delivery=slow, recipients=recipients)
        client = Client.on_socket(factory)
        client.say(*ENVELOPE, "RCPT TO:<all@localhost>", "RCPT TO:<ann@localhost>", "DATA", "a: b", ".")
        while slow.waiting:
            slow.go_on()
        self.assertEqual([a[:3] for a in client.answers()], ["451", "250"])

    def test_many_unknown(self) -> None:
        """A mail server with many unknown recipients is not taken for somebody who guesses names."""
        factory, _, _ = world(lmtp_factory)
        client = Client.on_socket(factory)
        client.say(*ENVELOPE, *["RCPT TO:<nobody@localhost>"] * limits.ERRORS * 2)
        self.assertFalse(client.closed)
