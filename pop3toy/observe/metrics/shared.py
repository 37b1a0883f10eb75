"""Metrics of several processes as those of one server, by prometheus_client's files.

Each worker writes its numbers into files of a folder that its supervisor has made, and the supervisor adds
them up when it is asked.  A file is of a worker's number, not of its process: a worker that is started again
goes on counting where the dead one was, so that no number is lost, and there are no more files than workers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

__all__ = ["add_up", "bury", "write_into"]


def write_into(folder: str, number: int) -> None:
    """Have all metrics that this process makes from now on in a folder's files.

    For a process that is a worker and nothing else.

    :param number: the worker's.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    values.ValueClass = values.MultiProcessValue(lambda: number)


class _Files(MultiProcessCollector):
    """Reads no file that a worker has just made and not begun, which prometheus_client could not."""

    def __init__(self, folder: str, registry: CollectorRegistry) -> None:
        super().__init__(registry, path=folder)
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        with os.scandir(self._folder) as found:
            files = [one.path for one in found if one.name.endswith(".db") and one.stat().st_size]
        merged: Iterable[Metric] = self.merge(files)
        return merged


def add_up(folder: str, registry: CollectorRegistry) -> None:
    """Collect what workers have written into a folder."""
    _Files(folder, registry)


def bury(folder: str, number: int) -> None:
    """A worker is dead: nobody is connected to it any more."""
    mark_process_dead(number, path=folder)
