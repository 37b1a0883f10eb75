"""Delivery status notifications, read by Python's parser and compared with RFC 3464."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.interfaces import OutgoingRecipient
from pop3toy.outgoing.entry import Entry, Outcome, Status, applied
from pop3toy.outgoing.notices import Original, notice
from pop3toy.outgoing.schedule import GIVE_UP, Due, Notice, record_of_attempt

from .test_parts import CAME, FAILED, LATER, entry

TEXT = b"From: ann@example.org\r\nSubject: gr\xc3\xbc\xc3\x9fe\r\n\r\nbody\r\n"
PLAIN = b"From: ann@example.org\r\nSubject: x\r\n\r\nbody \xfc\r\n"


def made(one: Entry, kind: Notice, text: bytes = PLAIN, *numbers: int) -> Any:
    """The notice, parsed; its lines are as they have to be."""
    octets = notice(
        one,
        Due(kind, numbers or (0,)),
        Original(text, True),
        host="mail.example.org",
        smarthost="smart.example.net",
        now=CAME + 100,
        unique="abc.def",
    )
    assert octets.count(b"\n") == octets.count(b"\r\n"), octets
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    return email.message_from_bytes(octets, policy=email.policy.default)


def after(one: Entry, *outcomes: Outcome) -> Entry:
    """What it is behind an attempt."""
    return applied(one, record_of_attempt(one, dict(enumerate(outcomes)), CAME + 60, "busy"))


class NoticeTests(SynchronousTestCase):
    """What is in one."""

    def test_failed(self) -> None:
        """Three parts, in the order of RFC 6522, and the fields of RFC 3464."""
        one = after(
            entry(
                OutgoingRecipient("eve@x.example", (), "rfc822;Eve+2Bx@x.example"),
                OutgoingRecipient("dan@x.example"),
                envid="id+2B7",
            ),
            FAILED,
            Outcome(Status.FAILED, "5.6.3", "no 8BITMIME there", remote=False),
        )
        message = made(one, Notice.FAILED, PLAIN, 0, 1)
        self.assertEqual(message.defects, [])
        self.assertEqual(message.get_content_type(), "multipart/report")
        self.assertEqual(message["Content-Type"].params["report-type"], "delivery-status")
        self.assertEqual(message["Auto-Submitted"], "auto-replied")
        self.assertEqual(message["To"], "ann@example.org")
        text, status, returned = message.iter_parts()
        kinds = [part.get_content_type() for part in (text, status, returned)]
        self.assertEqual(kinds, ["text/plain", "message/delivery-status", "text/rfc822-headers"])
        said = text.get_content()
        for words in ("eve@x.example", "smart.example.net said: 550 5.1.1", "no 8BITMIME there", "abc123"):
            self.assertIn(words, said)
        of_all, eve, dan = status.get_payload()
        self.assertEqual(
            dict(of_all.items()) | {"Arrival-Date": ""},
            {
                "Original-Envelope-Id": "id+7",
                "Reporting-MTA": "dns; mail.example.org",
                "Arrival-Date": "",
            },
        )
        self.assertEqual(parsedate_to_datetime(of_all["Arrival-Date"]).timestamp(), CAME)
        self.assertEqual(eve["Original-Recipient"], "rfc822;Eve+x@x.example")
        self.assertEqual(eve["Final-Recipient"], "rfc822; eve@x.example")
        self.assertEqual((eve["Action"], eve["Status"]), ("failed", "5.1.1"))
        self.assertEqual(eve["Remote-MTA"], "dns; smart.example.net")
        self.assertEqual(eve["Diagnostic-Code"], "smtp; 550 5.1.1 no such user")
        self.assertEqual(parsedate_to_datetime(eve["Last-Attempt-Date"]).timestamp(), CAME + 60)
        self.assertEqual((dan["Action"], dan["Status"]), ("failed", "5.6.3"))
        self.assertIsNone(dan["Remote-MTA"])
        self.assertIn("Subject: x", returned.get_content())
        self.assertNotIn("body", returned.get_content())

    def test_returned(self) -> None:
        """RET=FULL brings the message back, octet for octet; of a delay only its header comes."""
        one = after(entry(ret="FULL"), FAILED)
        octets = notice(
            one, Due(Notice.FAILED, (0,)), Original(PLAIN, True),
            host="h", smarthost="s", now=CAME, unique="u",
        )  # fmt: skip
        self.assertIn(
            b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + PLAIN, octets
        )
        late = made(after(entry(ret="FULL"), LATER), Notice.DELAYED)
        self.assertEqual([*late.iter_parts()][2].get_content_type(), "text/rfc822-headers")

    def test_delayed(self) -> None:
        """A warning says for how long it goes on."""
        message = made(after(entry(), LATER), Notice.DELAYED)
        status = [*message.iter_parts()][1].get_payload()[1]
        self.assertEqual((status["Action"], status["Status"]), ("delayed", "4.2.1"))
        self.assertEqual(parsedate_to_datetime(status["Will-Retry-Until"]).timestamp(), CAME + GIVE_UP)

    def test_classes(self) -> None:
        """The class of Status is that of the action, whatever code came with the reply (section 2.3.4)."""
        for kind, enhanced, expected in (
            (Notice.FAILED, "4.4.7", "5.4.7"),
            (Notice.FAILED, "4.2.1", "5.0.0"),
            (Notice.DELAYED, "5.1.1", "4.0.0"),
            (Notice.RELAYED, "2.1.5", "2.1.5"),
            (Notice.DELIVERED, "", "2.0.0"),
        ):
            one = after(entry(), Outcome(Status.FAILED, enhanced, "x"))
            status = [*made(one, kind).iter_parts()][1].get_payload()[1]
            self.assertEqual(status["Status"], expected)

    def test_utf8(self) -> None:
        """Addresses and headers beyond ASCII are written as RFC 6533 has them."""
        message: EmailMessage = made(
            after(entry(OutgoingRecipient("änn@x.example")), FAILED), Notice.FAILED, TEXT
        )
        kinds = [part.get_content_type() for part in message.iter_parts()]
        self.assertEqual(kinds, ["text/plain", "message/global-delivery-status", "message/global-headers"])

    def test_nothing_slipped_in(self) -> None:
        """A reply with line ends and controls makes no fields of its own."""
        evil = Outcome(Status.FAILED, "5.0.0", "550 x\r\nAction: delivered\x1b[2J" + "y" * 5000)
        status = [*made(after(entry(), evil), Notice.FAILED).iter_parts()][1].get_payload()[1]
        self.assertEqual(status.get_all("Action"), ["failed"])
