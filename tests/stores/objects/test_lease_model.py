"""Whatever happens to two servers: never two sessions at once, no message lost, nothing locked for ever."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.stores.objects import lease
from pop3toy.stores.objects.lease import Held

from .lease_model import Chooser, Model, Violation, by_chance, every_schedule


class LeaseModelTests(SynchronousTestCase):
    """What holds, and that the model would see if it did not."""

    def runs(self, choosers: Iterable[Chooser], *, both: bool = True) -> int:
        """Run the model with each of them; how often."""
        count = 0
        for choose in choosers:
            count += 1
            model = Model(choose, both=both)
            try:
                model.run()
            except Violation as violation:
                raise Violation(f"{violation}: {', '.join(model.story)}") from violation
        return count

    def finds(self, what: str) -> None:
        """The model sees that something is wrong."""
        violation = self.assertRaises(Violation, self.runs, every_schedule(2), both=False)
        self.assertIn(what, str(violation))

    def test_two_unusual_events(self) -> None:
        """All that can happen when two things are not as usual."""
        self.assertGreater(self.runs(every_schedule(2), both=False), 2000)

    def test_many_unusual_events(self) -> None:
        """What may happen when anything can go wrong, by chance."""
        self.runs(by_chance(seed) for seed in range(300))

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
