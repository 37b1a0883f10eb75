"""Metrics of several processes as those of one server, by prometheus_client's files.

Each worker writes its numbers into files of a folder that its supervisor has made, and the supervisor adds
them up when it is asked.  A file is of a worker's number, not of its process: a worker that is started again
goes on counting where the dead one was, so that no number is lost, and there are no more files than workers.
"""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

__all__ = ["add_up", "bury", "write_into"]


def write_into(folder: str, number: int) -> None:
    """Have all metrics that this process makes from now on in a folder's files.

    For a process that is a worker and nothing else.

    :param number: the worker's.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    values.ValueClass = values.MultiProcessValue(lambda: number)


def add_up(folder: str, registry: CollectorRegistry) -> None:
    """Collect what workers have written into a folder."""
    MultiProcessCollector(registry, path=folder)


def bury(folder: str, number: int) -> None:
    """A worker is dead: nobody is connected to it any more."""
    mark_process_dead(number, path=folder)
