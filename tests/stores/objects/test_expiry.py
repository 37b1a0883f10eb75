"""Old mail in object storage goes under the lease of its maildrop."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.errors import InUse
from pop3toy.stores.expiring import DAY, Rule, remove_expired
from pop3toy.stores.objects.records import new_name

from ...objects_world import World, WorldMixin


class ExpiryTests(WorldMixin, SynchronousTestCase):
    """A maildrop that two servers share."""

    def setUp(self) -> None:
        self.world = World("ann")
        self.server = self.world.server("a")

    def remove(self) -> Deferred[tuple[int, int]]:
        """Remove what is older than a day."""
        rule = Rule(older_than=DAY)
        return Deferred.fromCoroutine(remove_expired(self.server.store, "ann", rule, self.world.now))

    def test_removed(self) -> None:
        """What is old goes, what is new stays, and the maildrop is free behind it."""
        self.world.deliver("ann", b"A: b\n\n", new_name(round((self.world.now - 2 * DAY) * 1e6), "x"))
        new = self.world.deliver("ann", b"new\n")
        self.assertEqual(len(self.world.names("ann")), 2)
        self.assertEqual(self.wait(self.remove()), (1, 8))
        self.assertEqual(self.world.names("ann"), [new])
        self.assertEqual(self.wait(self.remove()), (0, 0))

    def test_in_use(self) -> None:
        """Nothing goes while a session of another server has it open."""
        name = new_name(round((self.world.now - 2 * DAY) * 1e6), "x")
        self.world.deliver("ann", b"A: b\n\n", name)
        session = self.wait(self.world.server("b").store.open("ann"))
        self.fails(InUse, self.remove)
        self.assertEqual(self.world.names("ann"), [name])
        self.wait(session.release())
        self.assertEqual(self.wait(self.remove()), (1, 8))
