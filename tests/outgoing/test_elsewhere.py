"""What submission takes for addresses elsewhere, from whom, and with which words it refuses the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import StoreFull, StoreTrouble
from pop3toy.events import Observers, Queued
from pop3toy.interfaces import OutgoingMail, OutgoingRecipient
from pop3toy.routing.recipients import RecipientResolver
from pop3toy.smtp.factory import lmtp_factory, smtp_factory, submission_factory

from ..pop3_world import Watcher
from ..smtp.test_submission import LOCAL, plain
from ..smtp_world import Accounts, Client, find_in, world


class Queue:
    """A queue that keeps what it is given, and fails where a test says so."""

    def __init__(self) -> None:
        self.mails: list[tuple[OutgoingMail, bytes]] = []
        self.log: list[str] = []
        self.limit: str | None = None
        self.counted: list[tuple[str, int]] = []
        self.fail: dict[str, Exception] = {}

    async def refusal(self, user: str, recipients: int) -> str | None:
        if "limit" in self.fail:
            raise self.fail["limit"]
        return self.limit

    async def count(self, user: str, recipients: int) -> str | None:
        self.counted.append((user, recipients))
        return self.limit

    def begin(self, mail: OutgoingMail) -> Any:
        return _Incoming(self, mail)


class _Incoming:
    def __init__(self, queue: Queue, mail: OutgoingMail) -> None:
        self.queue, self.mail, self.text = queue, mail, b""

    def write(self, chunk: bytes) -> None:
        if "write" in self.queue.fail:
            raise self.queue.fail["write"]
        self.text += chunk

    def _step(self, name: str) -> Deferred[None]:
        self.queue.log.append(name)
        return fail(self.queue.fail[name]) if name in self.queue.fail else succeed(None)

    def prepare(self) -> Deferred[None]:
        return self._step("prepare")

    def commit(self) -> Deferred[None]:
        return self._step("commit").addCallback(lambda _: self.queue.mails.append((self.mail, self.text)))

    def abort(self) -> None:
        self.queue.log.append("abort")


class ElsewhereTests(SynchronousTestCase):
    """A client that has logged in as ann."""

    def setUp(self) -> None:
        self.queue = Queue()
        self.client, self.store = self.connected(self.queue)

    def connected(self, queue: Queue | None, **options: Any) -> tuple[Client, Any]:
        """A client that has logged in, and its server's store."""
        recipients = RecipientResolver(find_in("ann", "bob"), domains=("example.org",))
        self.watcher = Watcher(Queued)
        factory, store, _ = world(
            submission_factory, Accounts(), recipients=recipients, outgoing=queue,
            observers=Observers(self.watcher), **options,
        )  # fmt: skip
        client = Client(factory, IPv4Address("TCP", "127.0.0.1", 4711))
        client.say("EHLO x", "AUTH PLAIN " + plain("ann", "nna"))
        return client, store

    def send(self, mail: str, *rcpt: str, text: Sequence[str] = ("Subject: x", "", "y")) -> list[str]:
        """One message; the last replies of RCPT, DATA and text."""
        commands = [f"MAIL FROM:{mail}", *(f"RCPT TO:{one}" for one in rcpt), "DATA"]
        return [*self.client.say(*commands)[1:], *self.client.say(*text, ".")]

    def test_queued(self) -> None:
        """It is queued with its envelope, and with Received and no Return-Path before it."""
        answers = self.send("<ann@example.org>", "<eve@x.example>", "<dan@x.example>")
        self.assertRegex(answers[-1], r"^250 2\.0\.0 queued as [0-9a-f]{12}$")
        [(mail, text)] = self.queue.mails
        self.assertEqual((mail.user, mail.sender), ("ann", "ann@example.org"))
        self.assertEqual([one.address for one in mail.recipients], ["eve@x.example", "dan@x.example"])
        self.assertTrue(text.startswith(b"Received: from x"), text)
        self.assertTrue(text.endswith(b"Subject: x\r\n\r\ny\r\n"), text)
        self.assertNotIn(b"Return-Path", text)
        self.assertNotIn(b"eve@", text)
        self.assertEqual(mail.queue_id, answers[-1].split()[-1])
        [queued] = self.watcher.events
        self.assertEqual((queued.queue_id, queued.user), (mail.queue_id, "ann"))
        self.assertEqual((queued.sender, queued.octets), (mail.sender, len("Subject: x\r\n\r\ny\r\n")))
        self.assertEqual(queued.recipients, ["eve@x.example", "dan@x.example"])

    def test_bare_carriage_return(self) -> None:
        """It does not go elsewhere, where it may end the message and begin another one; here it is kept."""
        smuggled = "\r.\r\nMAIL FROM:<boss@example.org>\r\nRCPT TO:<eve@x.example>\r\nDATA\r\n"
        for fake in (smuggled, "one\rtwo", "two\r"):
            answers = self.send("<ann@example.org>", "<eve@x.example>", text=("Subject: x", "", fake))
            self.assertEqual(answers[-1][:10], "550 5.6.11")
        self.assertEqual(self.queue.mails, [])
        self.assertEqual(
            self.send("<ann@example.org>", "<bob@example.org>", text=("a: b", "", "x\ry"))[-1][:3], "250"
        )

    def test_mixed(self) -> None:
        """250 comes when both are durable: the queue's file first, then the mailbox, then its name."""
        answers = self.send("<ann@example.org>", "<bob@example.org>", "<eve@x.example>")
        self.assertIn("delivered and queued as", answers[-1])
        self.assertEqual(self.queue.log, ["prepare", "commit"])
        [message] = self.store.messages("bob")
        self.assertTrue(message.startswith(b"Return-Path: <ann@example.org>\r\n"))
        self.assertEqual([one.address for one in self.queue.mails[0][0].recipients], ["eve@x.example"])

    def test_queue_fails(self) -> None:
        """If the queue cannot keep it, nobody here gets it either; a full disk is 452."""
        for step, error, reply in (
            ("write", StoreFull(), "452 4.3.1"),
            ("prepare", StoreFull(), "452 4.3.1"),
            ("prepare", StoreTrouble(), "451 4.3.0"),
        ):
            self.queue.fail = {step: error}
            answers = self.send("<ann@example.org>", "<bob@example.org>", "<eve@x.example>")
            self.assertEqual(answers[-1][:9], reply)
            self.assertEqual(self.store.messages("bob"), ())
        self.assertEqual(self.queue.mails, [])
        self.queue.fail = {}
        self.assertIn("queued as", self.send("<ann@example.org>", "<eve@x.example>")[-1])

    def test_store_fails(self) -> None:
        """If somebody here cannot have it, it is not queued."""
        self.client, store = self.connected(self.queue)

        def gone(users: Sequence[str], octets: int = 0) -> Any:
            raise StoreTrouble(detail="gone")

        store.begin = gone
        self.client.say("MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.org>", "RCPT TO:<eve@x.example>")
        self.assertEqual(self.client.say("DATA")[0][:3], "451")
        self.assertEqual(self.queue.mails, [])

    def test_whose_sender(self) -> None:
        """From an address of the user's own, or from none; localhost is written as the domain."""
        for sender, code in (("<ann@example.org>", "250"), ("<ann+x@example.org>", "250"), ("<>", "250")):
            self.client.say("RSET", f"MAIL FROM:{sender}")
            self.assertEqual(self.client.say("RCPT TO:<eve@x.example>")[0][:3], code, sender)
        self.client.say("RSET", "MAIL FROM:<ann@elsewhere.example>")
        [answer] = self.client.say("RCPT TO:<eve@x.example>")
        self.assertEqual(answer[:9], "553 5.7.1")
        self.assertIn("from an address of yours here", answer)
        # Within the house it may.
        self.assertEqual(self.client.say("RCPT TO:<bob@example.org>")[0][:3], "250")
        self.client.say("RSET")
        self.assertEqual(self.client.say("MAIL FROM:<bob@example.org>")[0][:3], "553")
        self.send("<ann@localhost>", "<eve@x.example>")
        self.assertEqual(self.queue.mails[0][0].sender, "ann@example.org")

    def test_own_host(self) -> None:
        """Names of this host that are no domain of its users go nowhere: the smarthost would send it back."""
        self.client.say("MAIL FROM:<ann@example.org>")
        for host in ("localhost", "mx.example.org", "[127.0.0.1]"):
            [answer] = self.client.say(f"RCPT TO:<bob@{host}>")
            self.assertEqual(answer[:9], "550 5.7.1", host)

    def test_no_relay(self) -> None:
        """Without a login nothing goes out, by whatever port; nor without a smarthost, which is said."""
        for make in (smtp_factory, lmtp_factory):
            factory, _, _ = world(make, outgoing=self.queue)
            client = Client(factory, LOCAL)
            hello = "LHLO x" if make is lmtp_factory else "EHLO x"
            self.assertNotIn("DSN", " ".join(client.say(hello)))
            client.say("MAIL FROM:<ann@example.org>")
            self.assertEqual(client.say("RCPT TO:<eve@x.example>")[0][:9], "550 5.7.1")
        client, _ = self.connected(None)
        self.assertNotIn("DSN", " ".join(client.say("EHLO x")))
        client.say("MAIL FROM:<ann@example.org>")
        [answer] = client.say("RCPT TO:<eve@x.example>")
        self.assertEqual(answer[:9], "550 5.7.1")
        self.assertIn("--smarthost", answer)
        client.say("RSET")
        self.assertEqual(client.say("MAIL FROM:<ann@example.org> RET=FULL")[0][:3], "555")

    def test_limit(self) -> None:
        """A user who has sent too much hears so, and may go on later; mail without a sender counts, too."""
        for sender in ("<ann@example.org>", "<>"):
            self.queue.counted.clear()
            self.queue.limit = "you may write to 10 recipients elsewhere within an hour"
            self.client.say(f"MAIL FROM:{sender}")
            self.assertEqual(self.client.say("RCPT TO:<eve@x.example>"), [f"450 4.7.1 {self.queue.limit}"])
            self.queue.limit = None
            self.client.say("RCPT TO:<eve@x.example>")
            self.queue.limit = "too much meanwhile"
            self.assertEqual(self.client.say("DATA"), ["450 4.7.1 too much meanwhile"])
            self.assertEqual(self.queue.counted, [("ann", 1)])

    def test_limit_unknown(self) -> None:
        """Where the queue's folder cannot be read, a recipient elsewhere is put off; one here is taken."""
        self.queue.fail["limit"] = StoreTrouble(detail="the queue: Input/output error")
        self.client.say("MAIL FROM:<ann@example.org>")
        self.assertEqual(self.client.say("RCPT TO:<eve@x.example>")[0][:9], "451 4.3.0")
        self.assertEqual(self.client.say("RCPT TO:<bob@example.org>")[0][:3], "250")

    def test_too_many(self) -> None:
        """A hundred recipients, wherever they are."""
        self.client.say("MAIL FROM:<ann@example.org>")
        for number in range(100):
            self.assertEqual(self.client.say(f"RCPT TO:<e{number}@x.example>")[0][:3], "250")
        self.assertEqual(self.client.say("RCPT TO:<eve@x.example>")[0][:9], "452 4.5.3")

    def test_notices(self) -> None:
        """RFC 3461: what the sender wants to be told goes along; of those here, too."""
        self.assertIn("250 DSN", self.client.say("EHLO x"))
        self.send(
            "<ann@example.org> RET=hdrs ENVID=a+2Bb",
            "<eve@x.example> NOTIFY=success,DELAY ORCPT=rfc822;eve@x.example",
            "<bob@example.org> NOTIFY=SUCCESS",
            "<ann@example.org> NOTIFY=NEVER",
            "<fay@x.example> NOTIFY=NEVER",
        )
        [(mail, _)] = self.queue.mails
        self.assertEqual((mail.ret, mail.envid), ("HDRS", "a+2Bb"))
        self.assertEqual(
            mail.recipients,
            [
                OutgoingRecipient("eve@x.example", ("SUCCESS", "DELAY"), "rfc822;eve@x.example"),
                OutgoingRecipient("fay@x.example", ("NEVER",)),
                OutgoingRecipient("bob@example.org", ("SUCCESS",), "", here=True),
            ],
        )

    def test_only_told(self) -> None:
        """A message for somebody here alone is delivered, and in the queue for its notice."""
        answers = self.send("<ann@example.org>", "<bob@example.org> NOTIFY=SUCCESS")
        self.assertIn("delivered as", answers[-1])
        self.assertEqual([one.here for one in self.queue.mails[0][0].recipients], [True])

    def test_bad_parameters(self) -> None:
        """What RFC 3461 does not allow is refused in a sentence."""
        for parameter in ("RET=ALL", "ENVID=", "ENVID=a=b", "ENVID=a+zz", "RET=FULL RET=FULL"):
            answers = self.client.say(f"MAIL FROM:<ann@example.org> {parameter}")
            self.assertEqual(answers[0][:9], "501 5.5.4", parameter)
        self.client.say("MAIL FROM:<ann@example.org>")
        for parameter in (
            "NOTIFY=",
            "NOTIFY=NEVER,DELAY",
            "NOTIFY=DELAY,DELAY",
            "NOTIFY=X",
            "ORCPT=x",
            "ORCPT=;x",
        ):
            answers = self.client.say(f"RCPT TO:<eve@x.example> {parameter}")
            self.assertEqual(answers[0][:9], "501 5.5.4", parameter)

    def test_rset(self) -> None:
        """RSET and a client that goes leave nothing behind."""
        self.client.say("MAIL FROM:<ann@example.org>", "RCPT TO:<eve@x.example>", "DATA")
        self.client.protocol.connectionLost(None)  # type: ignore[arg-type]
        self.assertEqual((self.queue.log, self.queue.mails), (["abort"], []))
