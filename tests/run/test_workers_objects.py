"""Workers over one object storage: a maildrop that one has open, when something happens to that one."""

from __future__ import annotations

import os
import signal

from ..realserver import RealServer
from ..stores.objects.places import MotoPlace
from ..strictclient import Refused, StrictClient, logged_in
from .test_workers import RealCase, pids


class DeadWorkerTests(MotoPlace, RealCase):
    """A session at one worker, and logins at others."""

    def where(self) -> list[str]:
        """See :meth:`RealCase.where`."""
        return [*self.options(), "--user=ann:secret"]

    def in_use(self, client: StrictClient) -> None:
        """A login hears that the maildrop is in use."""
        self.assertEqual(b"IN-USE", self.assertRaises(Refused, client.login).code)

    def killed_in_turn(self, server: RealServer) -> None:
        """One is killed that has the maildrop, then the next; the living have it for themselves."""
        for one, other in ((1, 2), (2, 1), (1, 1)):
            session = self.client(server, one)
            session.login()
            self.in_use(self.client(server, 3 - one))
            self.again(server, one)
            next_one = self.client(server, other)
            next_one.login()
            self.in_use(self.client(server, 3 - other))
            next_one.quit()

    def test_killed(self) -> None:
        """What a worker had that was killed is free for all others, also for the one in its place."""
        self.killed_in_turn(self.start("--lock-wait=0"))

    def test_killed_with_a_name(self) -> None:
        """With a name it is the same; a worker that lives keeps what it has."""
        self.killed_in_turn(self.start("--lock-wait=0", "--store-node=worker-dies"))

    def test_waited_for(self) -> None:
        """A login that comes right behind the death is let in as soon as that is known."""
        # Less than the seconds after which anybody would have it.
        server = self.start("--lock-wait=60")
        self.client(server, 1).login()
        os.kill(pids(server.log)[1], signal.SIGKILL)
        with logged_in(server.port) as client:
            self.assertEqual(0, client.stat().messages)

    def test_stopped(self) -> None:
        """A worker that is stopped keeps what it has, and goes on with it; killed then, it keeps nothing."""
        server = self.start("--lock-wait=0")
        session, first = self.client(server, 1), pids(server.log)[1]
        session.login()
        os.kill(first, signal.SIGSTOP)
        with StrictClient(server.port) as client:
            self.in_use(client)
        os.kill(first, signal.SIGCONT)
        self.assertEqual(0, session.stat().messages)
        os.kill(first, signal.SIGSTOP)
        self.again(server, 1)
        self.client(server, 2).login()
