"""``/metrics`` and ``/healthz`` by HTTP: resources, and the site of an endpoint that has nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from ...clock import steady
from ..site import EndingSite, QuietSite
from .health import Health

__all__ = ["HealthResource", "MetricsResource", "site_of"]

log = Logger()


class MetricsResource(Resource):
    """All metrics, in the format that is asked for: Prometheus' text or OpenMetrics.

    :param health: is looked at as well, but only waited for the first time.
    :param before: is called before the metrics are collected.
    """

    isLeaf = True

    def __init__(
        self, registry: CollectorRegistry, health: Health, before: Callable[[], object] = lambda: None
    ) -> None:
        super().__init__()
        self._registry = registry
        self._before = before
        self._health = health

    def render_GET(self, request: Request) -> int:
        """Answer with the metrics."""
        looking = self._health.look()

        def send(_: object) -> None:
            self._before()
            encode, kind = choose_encoder(request.getHeader("accept") or "")
            _send(request, 200, kind, encode(self._registry))

        return _later(request, looking if self._health.known is None else succeed(None), send)


class HealthResource(Resource):
    """``{"healthy": true, "problems": []}`` with 200, or what is wrong with 503.

    ``"warnings"`` has what will be wrong if nobody does anything; it is there if there are any.
    """

    isLeaf = True

    def __init__(self, health: Health) -> None:
        super().__init__()
        self._health = health

    def render_GET(self, request: Request) -> int:
        """Answer with what is wrong."""

        def send(problems: Sequence[str]) -> None:
            said: dict[str, object] = {"healthy": not problems, "problems": list(problems)}
            if warnings := self._health.warnings():
                said["warnings"] = list(warnings)
            octets = json.dumps(said, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
            _send(request, 503 if problems else 200, "application/json", octets)

        return _later(request, self._health.look(), send)


def _later(request: Request, result: Deferred[Any], send: Callable[[Any], object]) -> int:
    """Send when the result is there, unless the client has gone."""
    gone: list[object] = []
    request.notifyFinish().addBoth(gone.append)

    def failed(why: Failure) -> None:
        log.failure("{path} cannot be answered", why, path=request.path)
        if not gone:
            _send(request, 500, "text/plain; charset=utf-8", b"a bug: see the log\n")

    result.addCallback(lambda value: None if gone else send(value)).addErrback(failed)
    return NOT_DONE_YET


def _send(request: Request, code: int, kind: str, octets: bytes) -> None:
    request.setResponseCode(code)
    request.setHeader("content-type", kind)
    request.setHeader("content-length", str(len(octets)))
    request.setHeader("cache-control", "no-store")
    request.write(octets)
    request.finish()


def site_of(clock: IReactorTime, resources: Mapping[bytes, IResource]) -> EndingSite:
    """A site with these resources.

    :param clock: of its timers.
    :param resources: by their names: ``metrics``, ``healthz``.
    """
    root = Resource()
    for name, resource in resources.items():
        root.putChild(name, resource)
    return EndingSite(QuietSite(root, reactor=steady(clock)))
