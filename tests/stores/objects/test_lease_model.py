"""Whatever happens to two servers: never two sessions at once, no message lost, nothing locked for ever."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.stores.objects import lease
from pop3toy.stores.objects.lease import Held

from .lease_model import Model, Violation, every_schedule


def at_random(seeds: Iterable[int], unusual: float = 0.25) -> Iterable[Callable[[int], int]]:
    """Choosers that do something unusual now and then."""
    for seed in seeds:
        chance = random.Random(seed)
        yield lambda count, chance=chance: chance.randrange(count) if chance.random() < unusual else 0  # type: ignore[misc]


class LeaseModelTests(SynchronousTestCase):
    """What holds, and that the model would see if it did not."""

    def runs(self, choosers: Iterable[Callable[[int], int]], suspends: bool) -> int:
        """Run the model with each of them; how often."""
        count = 0
        for choose in choosers:
            count += 1
            model = Model(choose, suspends=suspends)
            try:
                model.run()
            except Violation as violation:
                raise Violation(f"{violation}: {', '.join(model.story)}") from violation
        return count

    def finds(self, what: str, suspends: bool = False) -> None:
        """The model sees that something is wrong."""
        violation = self.assertRaises(Violation, self.runs, every_schedule(2), suspends)
        self.assertIn(what, str(violation))

    def test_two_unusual_events(self) -> None:
        """All that can happen when two things are not as usual."""
        for suspends in (False, True):
            self.assertGreater(self.runs(every_schedule(2), suspends), 1000)

    def test_many_unusual_events(self) -> None:
        """What may happen when anything can go wrong, by chance."""
        for suspends in (False, True):
            self.runs(at_random(range(1000)), suspends)

    def test_no_margin(self) -> None:
        """It would see if clocks that differ were not thought of."""
        self.patch(lease, "MARGIN", 0.0)
        self.finds("two sessions have the maildrop")

    def test_no_renewal(self) -> None:
        """It would see if a removal did not begin with a renewal."""
        self.patch(Held, "renew", lambda held: None)
        self.finds("though another had the maildrop", suspends=True)

    def test_not_freed(self) -> None:
        """It would see if an acquisition of which nothing is known were left alone."""
        self.patch(Held, "free", lambda held: None)
        self.finds("it is locked")
