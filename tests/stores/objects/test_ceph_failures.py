"""Whole servers on a real Ceph, while parts of it are killed or the network hangs: nothing is lost or twice.

Senders and readers work all the while, and what they were told is compared (``tests/ledger.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from ...ledger import Ledger, Reader, Writer
from ...realserver import RealServer, wait_until
from .places import CephPlace

#: Seconds in which everybody has an answer whatever hangs, on a busy machine.
BOUNDED = 45.0
USERS = ("ann", "bob")


class FailureCase(CephPlace):
    """Servers, and ledgers of their users.

    :ivar servers: two of them, each with a gateway of its own.
    """

    def setUp(self) -> None:
        super().setUp()
        # Before the servers end: they free what they hold.
        self.addCleanup(self.ceph.start)
        self.ledgers = [Ledger(user) for user in USERS]
        self.servers = [self.serve(endpoint=endpoint) for endpoint in self.ceph.endpoints]

    def serve(self, **where: str) -> RealServer:
        """Start one more server.

        :param where: as for ``options``.
        """
        server = RealServer(
            *self.options(**where),  # type: ignore[arg-type]
            *(f"--user={user}:secret" for user in USERS),
            "--smtp-port=0",
            "--domain=localhost",
            "--lock-wait=0",
            "--max-per-address=1000",
        )
        self.addCleanup(server.terminate)
        server.smtp = server.port_for("SMTP")  # type: ignore[attr-defined]
        return server

    def load(self) -> ExitStack:
        """Senders and readers for each user at each server, until the end of the block."""
        stack = ExitStack()
        for ledger in self.ledgers:
            for server in self.servers:
                stack.enter_context(Writer(ledger, lambda server=server: server.smtp))  # type: ignore[misc]
                stack.enter_context(Reader(ledger, lambda server=server: server.port))  # type: ignore[misc]
        return stack

    def more(self, what: Callable[[Ledger], int], count: int, why: str) -> None:
        """Wait until something happened so often more for each user."""
        before = [what(ledger) for ledger in self.ledgers]

        def happened() -> bool:
            for ledger in self.ledgers:
                self.assertEqual([], ledger.wrong[:3])
            return all(what(one) >= had + count for one, had in zip(self.ledgers, before, strict=True))

        wait_until(happened, why, pause=0.05)

    def works(self) -> None:
        """Wait until mail comes and is read again, without a restart."""
        self.more(lambda ledger: len(ledger.acknowledged), 20, "messages are delivered")
        self.more(lambda ledger: len(ledger.deleted), 5, "messages are deleted")

    def verdict(self) -> None:
        """Nothing is wrong: in all that was seen, and in what is there now."""
        for ledger in self.ledgers:
            last = Reader(ledger, lambda: self.servers[0].port, share=0, again=True)
            wait_until(last.once, "a last look", pause=0.2)
            self.assertEqual([], ledger.wrong[:3])
            self.assertLess(ledger.slowest, BOUNDED)
            # Else the test has looked at nothing.
            self.assertGreater(len(ledger.acknowledged), 40)
            self.assertGreater(len(ledger.deleted), 10)
            self.assertGreater(len(ledger.sessions), 5)


class KilledTests(FailureCase):
    """kill -9 of what keeps the mail."""

    def test_one_osd(self) -> None:
        """Without one of three OSDs all goes on; and when it is back, with another one away."""
        with self.load():
            self.works()
            for osd in self.ceph.osds[:2]:
                osd.kill()
                self.works()
                osd.start()
                self.ceph.wait_for_osds()
                self.works()
        self.verdict()

    def test_everything(self) -> None:
        """All killed at once and started again: what was acknowledged is there, and the servers go on."""
        with self.load():
            self.works()
            self.ceph.kill()
            self.more(lambda ledger: ledger.troubles, 2, "everybody is told")
            self.ceph.start()
            self.works()
        self.verdict()
