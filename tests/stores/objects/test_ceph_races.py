"""Conditional requests that several processes make of a real Ceph at the same moment, by two gateways."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from ...realserver import environment
from .places import CephPlace

#: How many race, how often.
PROCESSES, ROUNDS = 3, 15


class RaceTests(CephPlace):
    """Many want the same."""

    def setUp(self) -> None:
        super().setUp()
        self.engine = self.engines().main
        racer = [sys.executable, "-m", "tests.stores.objects.racer", self.url, str(self.credentials)]
        self.racers = [
            subprocess.Popen(
                [*racer, *self.ceph.endpoints],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment(Path(self.mktemp())),
            )
            for _ in range(PROCESSES)
        ]
        for process in self.racers:
            self.addCleanup(process.wait, 60)
            self.addCleanup(process.stdout.close)
            self.addCleanup(process.stdin.close)

    def all_do(self, command: str, key: str) -> list[str]:
        """What came of the same command in all processes at once."""
        for process in self.racers:
            process.stdin.write(f"{command} {key}\n")
            process.stdin.flush()
        return [word for process in self.racers for word in json.loads(process.stdout.readline())]

    def test_one_creates(self) -> None:
        """Of all who make an object exactly one does, in every round, and what is there is its."""
        for number in range(ROUNDS):
            winners = self.all_do("create", f"l/{number}")
            self.assertEqual(1, len(winners), number)
            self.assertEqual(winners[0].encode(), self.engine.get(f"l/{number}").body)

    def test_one_swaps(self) -> None:
        """Of all who replace the same version exactly one does, in every round, and what is there is its."""
        self.engine.create("l/ann", b"first")
        for number in range(ROUNDS):
            self.all_do("look", "l/ann")
            winners = self.all_do("swap", "l/ann")
            self.assertEqual(1, len(winners), number)
            self.assertEqual(winners[0].encode(), self.engine.get("l/ann").body)

    def test_listed_at_once(self) -> None:
        """What one gateway has made the other lists at once, and not any more when it was removed."""
        for _ in range(ROUNDS // 2):
            self.assertEqual([], self.all_do("fill", "m/ann"))
        self.assertEqual([], self.engine.list("m/ann"))
