"""Whatever happens to two servers: never two sessions at once, no message lost, nothing locked for ever."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.stores.objects import lease
from pop3toy.stores.objects.lease import MARGIN, TTL, Held

from .lease_model import Chooser, Model, Server, Violation, by_chance, every_schedule


class LeaseModelTests(SynchronousTestCase):
    """What holds, and that the model would see if it did not."""

    def runs(self, choosers: Iterable[Chooser], *, both: bool = True, workers: bool = False) -> int:
        """Run the model with each of them; how often."""
        count = 0
        for choose in choosers:
            count += 1
            model = Model(choose, both=both, workers=workers)
            try:
                model.run()
            except Violation as violation:
                raise Violation(f"{violation}: {', '.join(model.story)}") from violation
        return count

    def finds(self, what: str, *, workers: bool = False) -> None:
        """The model sees that something is wrong."""
        violation = self.assertRaises(Violation, self.runs, every_schedule(2), both=False, workers=workers)
        self.assertIn(what, str(violation))

    def test_two_unusual_events(self) -> None:
        """All that can happen when two things are not as usual."""
        self.assertGreater(self.runs(every_schedule(2), both=False), 2000)

    def test_many_unusual_events(self) -> None:
        """What may happen when anything can go wrong, by chance."""
        for workers in (False, True):
            self.runs((by_chance(seed) for seed in range(300)), workers=workers)

    def test_workers(self) -> None:
        """The same with two workers of one server, one of which may die."""
        self.assertGreater(self.runs(every_schedule(2), both=False, workers=True), 3000)

    def test_no_margin(self) -> None:
        """It would see if clocks that differ were not thought of."""
        self.patch(lease, "MARGIN", 0.0)
        self.finds("two sessions have the maildrop")

    def test_no_renewal(self) -> None:
        """It would see if a removal did not begin with a renewal."""
        self.patch(Held, "renew", lambda held: None)
        self.finds("though another had the maildrop")

    def test_not_freed(self) -> None:
        """It would see if a lease that may be held by nobody were left alone."""
        self.patch(Held, "free", lambda held: None)
        self.finds("it is locked")

    def test_not_dead(self) -> None:
        """It would see if a worker were called dead that is not."""
        self.patch(Server, "dies", lambda server: None)
        self.finds("two sessions have the maildrop", workers=True)

    def test_dead(self) -> None:
        """It would see if a dead worker were taken for one that is slow."""
        self.patch(lease, "may_take", lambda lease, age, node: age >= TTL + MARGIN)
        self.finds("known to be dead is locked", workers=True)
