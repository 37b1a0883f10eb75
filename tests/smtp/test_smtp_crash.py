"""What is acknowledged is there: after kill -9, on a full disk, and under load."""

from __future__ import annotations

import os
import poplib
import smtplib
import threading
from collections import Counter

from tests.mailserver import LOOPBACK
from tests.realserver import wait_until
from tests.smtp.test_smtp_real import ServerTests

from ..store_world import tmpfs

#: Messages of the load test: about half a minute on two cores.
LOAD = int(os.environ.get("POP3TOY_DELIVERIES", "10000"))
#: Seconds between two sessions of one reader.
PAUSE = 0.2
#: POP3 sessions that read and delete meanwhile, each with a user of its own.
READERS = 50


def numbered(number: int) -> bytes:
    """A message that cannot be confused with another, nor a half of it with a whole."""
    return b"Subject: %d\r\n\r\n" % number + b"%d\r\n" % number * 500 + b"end\r\n"


class KillTests(ServerTests):
    """kill -9."""

    def restart(self) -> None:
        """Kill the server and start it again."""
        self.server.kill()
        self.server = self.start()
        self.addCleanup(self.server.stop)

    def test_during_data(self) -> None:
        """Killed in the middle of a message, nothing of it is seen; sent again, it is there once."""
        client = smtplib.SMTP(LOOPBACK, self.server.smtp, timeout=30)
        client.ehlo()
        client.mail("e@x.example")
        client.rcpt("ann@localhost")
        client.docmd("DATA")
        # More than is kept in memory, so that a file is there to be left.
        client.send(b"Subject: half\r\n\r\n" + b"x\r\n" * 200_000)
        spool = self.root / "mail" / "ann" / "tmp"
        wait_until(lambda: spool.is_dir() and any(spool.iterdir()), "a part of the message on the disk")
        self.restart()
        client.close()
        self.assertEqual(self.server.messages("ann"), [])
        with smtplib.SMTP(LOOPBACK, self.server.smtp, timeout=30) as again:
            again.sendmail("e@x.example", ["ann@localhost"], numbered(1))
        self.assertEqual(self.fetch("ann"), [numbered(1)])

    def test_after_250(self) -> None:
        """Killed right behind the 250, the message is there, whole."""
        client = smtplib.SMTP(LOOPBACK, self.server.smtp, timeout=30)
        client.sendmail("e@x.example", ["ann@localhost", "bob@localhost"], numbered(1))
        self.restart()
        client.close()
        self.assertEqual(self.fetch("ann"), [numbered(1)])
        self.assertEqual(self.fetch("bob"), [numbered(1)])

    def test_under_load(self) -> None:
        """Killed again and again under load, every message that was acknowledged is there, once and whole."""
        acknowledged: list[int] = []
        sent = iter(range(10**9))

        def send() -> None:
            try:
                with smtplib.SMTP(LOOPBACK, self.server.smtp, timeout=30) as client:
                    while True:
                        number = next(sent)
                        client.sendmail("", ["ann@localhost"], numbered(number))
                        acknowledged.append(number)
            except (smtplib.SMTPException, OSError):
                return

        for kill in range(1, 6):
            threads = [threading.Thread(target=send) for _ in range(4)]
            for thread in threads:
                thread.start()
            wait_until(lambda kill=kill: len(acknowledged) >= 25 * kill, "messages delivered")  # type: ignore[misc]
            self.server.kill()
            for thread in threads:
                thread.join()
            self.restart()
        delivered = Counter(self.fetch("ann"))
        self.assertEqual([number for number in acknowledged if delivered[numbered(number)] != 1], [])
        sendable = {numbered(number) for number in range(next(sent))}
        self.assertEqual([message for message in delivered if message not in sendable], [])
        self.assertEqual(set(delivered.values()), {1})


class FullDiskTests(ServerTests):
    """A disk that is full."""

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(tmpfs("size=1m", self.root / "mail"))
        # Cleanups run last first: the server goes before its disk.
        self.addCleanup(self.server.stop)

    def test_full(self) -> None:
        """What does not fit is put off with 452, what was acknowledged is there, and room helps."""
        codes = []
        with smtplib.SMTP(LOOPBACK, self.server.smtp, timeout=30) as client:
            client.ehlo()
            for number in range(40):
                text = numbered(number) + b"x" * 50_000 + b"\r\n"
                client.mail("")
                client.rcpt("ann@localhost")
                client.rcpt("bob@localhost")
                codes.append(client.data(text)[0])
        self.assertEqual(set(codes), {250, 452})
        self.assertEqual(len(self.server.messages("ann")), codes.count(250))
        self.assertEqual(len(self.server.messages("bob")), codes.count(250))
        self.assertEqual(list((self.root / "mail" / "ann" / "tmp").iterdir()), [])
        for user in ("ann", "bob"):
            self.remove_all(user)
        with smtplib.SMTP(LOOPBACK, self.server.smtp, timeout=30) as client:
            client.sendmail("", ["ann@localhost"], numbered(1))
        self.assertEqual(self.fetch("ann"), [numbered(1)])

    def remove_all(self, user: str) -> None:
        """Empty a maildrop without reading it (its lines are too long for poplib)."""
        client = poplib.POP3(LOOPBACK, self.server.pop3, timeout=30)
        client.user(user)
        client.pass_(user)
        for number in range(1, client.stat()[0] + 1):
            client.dele(number)
        client.quit()


class LoadTests(ServerTests):
    """Deliveries while many read and delete."""

    users = tuple(f"u{number}" for number in range(READERS))  # type: ignore[assignment]

    def test_nothing_lost_nothing_twice(self) -> None:
        """Every message is fetched by one session, once and whole, while deliveries go on."""
        fetched: list[bytes] = []
        over = threading.Event()

        def send(first: int) -> None:
            with smtplib.SMTP(LOOPBACK, self.server.smtp, timeout=60) as client:
                for number in range(first, LOAD, 8):
                    user = self.users[number % READERS]
                    client.sendmail("", [f"{user}@localhost"], numbered(number))

        def read(user: str) -> None:
            while True:
                # Whoever asks without a pause keeps the senders from sending.
                last = over.wait(PAUSE)
                messages = self.fetch(user)
                fetched.extend(messages)
                if last:
                    return

        senders = [threading.Thread(target=send, args=(first,)) for first in range(8)]
        readers = [threading.Thread(target=read, args=(user,)) for user in self.users]
        for thread in senders + readers:
            thread.start()
        for thread in senders:
            thread.join()
        over.set()
        for thread in readers:
            thread.join()
        counted = Counter(fetched)
        self.assertEqual(set(counted.values()), {1})
        self.assertEqual(set(counted), {numbered(number) for number in range(LOAD)})
