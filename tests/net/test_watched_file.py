"""Files that others change: when one is another than the one that was read."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.net.watched_file import is_unchanged, read


class ChangeTests(SynchronousTestCase):
    """A file that changes in ways that are hard to see."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_bytes(b"old")
        self.changed = self.path.stat().st_mtime

    def test_same_size_and_time(self) -> None:
        """A change that leaves all as it was can come while the time is fresh: such a file is read again."""
        for seconds, settled in ((-1.0, False), (1.0, False), (1000.0, True)):
            content = read(self.path, lambda: self.changed + seconds)  # noqa: B023
            self.assertEqual((content.octets, is_unchanged(self.path, content.signature)), (b"old", settled))

    def test_changed_while_read(self) -> None:
        """One that changes while it is read is read again, whatever another machine's clock says."""
        fstat = os.fstat

        def change(descriptor: int) -> os.stat_result:
            status = fstat(descriptor)
            self.patch(os, "fstat", fstat)
            with self.path.open("ab") as file:
                file.write(b"!")
            return status

        self.patch(os, "fstat", change)
        content = read(self.path, lambda: self.changed + 1000.0)
        self.assertIsNotNone(content.signature)
        self.assertFalse(is_unchanged(self.path, content.signature))
