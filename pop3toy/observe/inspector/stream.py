"""Server-sent events: what happens, as it happens, to one who follows."""

from __future__ import annotations

import json

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.web.http import Request
from zope.interface import implementer

from .hub import TURN, Hub
from .told import event_as_json

__all__ = ["EventStream"]

#: Seconds that an event may wait for others to go with it: writing each by itself costs more than the events.
BATCH = 0.05
#: Octets that are written in one turn.
MOST = 128 * 1024
#: Seconds between two comments that tell proxies and browsers that the connection is alive.
PING = 15.0


@implementer(IPushProducer)
class EventStream:
    """Writes events to a request, as fast as its reader reads.

    It has no queue: it remembers how far it is in what the hub keeps.  One that is too slow finds that what
    it wanted next is gone, and tells so.

    :param session: the only one to be told of; ``None`` for all.
    :param since: the number of the last event that the reader knows.
    """

    def __init__(self, request: Request, hub: Hub, session: int | None, since: int) -> None:
        self._request = request
        self._hub = hub
        self._session = session
        self._seq = since
        self._paused = False
        self._over = False
        self._timer: IDelayedCall | None = None
        self._ping: IDelayedCall | None = None

    def start(self) -> None:
        """Begin with what is known already."""
        self._request.setHeader("Content-Type", "text/event-stream; charset=utf-8")
        self._request.setHeader("X-Accel-Buffering", "no")
        self._request.notifyFinish().addBoth(lambda _: self._end())
        self._request.write(b"retry: 2000\n\n")
        self._request.registerProducer(self, True)
        self._hub.follow(self.wake)
        self._beat()
        self.wake()

    def wake(self, pause: float = BATCH) -> None:
        """There is something new.

        :param pause: seconds until it is written.
        """
        if self._timer is None and not self._paused and not self._over:
            self._timer = self._hub.clock.callLater(pause, self._write)

    def _beat(self) -> None:
        if not self._paused:
            self._request.write(b": \n\n")
        self._ping = self._hub.clock.callLater(PING, self._beat)

    def _write(self) -> None:
        self._timer = None
        missed, records = self._hub.behind(self._seq)
        out: list[str] = []
        octets = 0
        if missed:
            self._seq += missed
            # Nobody knows any more whose they were.
            out.append(f"event: missed\nid: {self._seq}\ndata: {json.dumps({'events': missed})}\n\n")
        until = self._hub.clock.seconds() + TURN
        for at, record in enumerate(records):
            if octets > MOST or (at % 10 == 9 and self._hub.clock.seconds() >= until):
                break
            self._seq = record.seq
            if self._session is None or record.event.session == self._session:
                out.append(f"id: {record.seq}\ndata: {event_as_json(record)}\n\n")
                octets += len(out[-1])
        if out:
            self._request.write("".join(out).encode("ascii"))
        if self._seq < self._hub.seq:
            # The connections have their turn; then there is more to write.
            self.wake(TURN)

    def pauseProducing(self) -> None:
        """See ``IPushProducer``: the reader is slow."""
        self._paused = True

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = False
        self.wake()

    def stopProducing(self) -> None:
        """See ``IPushProducer``: the reader is gone."""
        self._end()

    def finish(self) -> None:
        """Write what there is yet, and end; whoever does not read is not waited for."""
        if self._paused:
            self._request.channel.forceAbortClient()
        elif not self._over:
            self._write()
            self._request.unregisterProducer()
            self._request.finish()

    def _end(self) -> None:
        self._over = True
        self._hub.unfollow(self.wake)
        for call in (self._timer, self._ping):
            if call is not None and call.active():
                call.cancel()
        self._timer = None
