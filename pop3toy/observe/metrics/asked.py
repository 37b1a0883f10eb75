"""Metrics that are worked out when somebody asks, and those of the process itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from .table import NAMES

__all__ = ["Asked"]


class Asked(Collector):
    """What the process that answers knows by itself.

    :param processes: gives the ids of the processes whose memory, time and files are added up.
    """

    def __init__(self, registry: CollectorRegistry, processes: Callable[[], Sequence[int]]) -> None:
        #: By the names of the table: gives values, each with its labels.
        self.values: dict[str, Callable[[], Iterable[tuple[float, Sequence[str]]]]] = {}
        self.processes = processes
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        for name, ask in self.values.items():
            one = NAMES[name]
            made = CounterMetricFamily if one.kind == "counter" else GaugeMetricFamily
            family = made(name, one.says, labels=one.labels)
            for value, labels in ask():
                family.add_metric(labels, float(value))
            # Of nothing, such as certificates where there are none, it says nothing.
            if family.samples:
                yield family
        yield from _together(self.processes())


def _together(processes: Sequence[int]) -> Iterable[Metric]:
    """What prometheus_client tells of a process, of several: added up; the start is the first one's."""
    found: dict[str, Metric] = {}
    for process in processes:
        for family in ProcessCollector(pid=lambda process=process: process, registry=None).collect():  # type: ignore[misc]
            known = found.setdefault(family.name, family)
            if known is not family:
                for one, other in zip(known.samples, family.samples, strict=True):
                    pick = min if family.name == "process_start_time_seconds" else _sum
                    known.samples[known.samples.index(one)] = one._replace(value=pick(one.value, other.value))
    return found.values()


def _sum(one: float, other: float) -> float:
    return one + other
