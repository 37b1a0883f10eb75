"""A message that comes into the queue: an :class:`~pop3toy.interfaces.OutgoingIncoming`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from twisted.internet.defer import Deferred

from ..errors import StoreTrouble
from ..interfaces import MaybeDeferred, OutgoingMail
from ..net.threads import RunInThread
from .entry import envelope_record
from .queue_files import Folder, Writing, trouble

__all__ = ["QueuedMessage"]

_T = TypeVar("_T")

#: Octets that gather in memory before they go to the file: a usual message costs one trip to a thread.
SPILL: Final = 256 * 1024


class QueuedMessage:
    """Gathers a message, writes it in threads, one step at a time, and puts it into the queue.

    :param queued: is called when it is in the queue.
    :param now: the time of day, in seconds.
    """

    def __init__(
        self,
        folder: Folder,
        mail: OutgoingMail,
        run: RunInThread,
        now: Callable[[], float],
        queued: Callable[[], object],
    ) -> None:
        self._folder, self._mail, self._run, self._now, self._queued = folder, mail, run, now, queued
        self._held: list[bytes] = []
        self._held_octets = 0
        self._writing: Writing | None = None
        self._busy = self._aborted = self._published = False

    def write(self, chunk: bytes) -> MaybeDeferred[None]:
        """See :class:`~pop3toy.interfaces.OutgoingIncoming`."""
        self._held.append(chunk)
        self._held_octets += len(chunk)
        if self._held_octets < SPILL:
            return None
        return self._in_thread(self._spill, self._take())

    def prepare(self) -> Deferred[None]:
        """See :class:`~pop3toy.interfaces.OutgoingIncoming`."""
        return self._in_thread(self._finish, self._take(), envelope_record(self._mail, self._now()))

    def commit(self) -> Deferred[None]:
        """See :class:`~pop3toy.interfaces.OutgoingIncoming`."""
        return self._in_thread(self._publish).addCallback(lambda _: self._is_queued())

    def abort(self) -> None:
        """See :class:`~pop3toy.interfaces.OutgoingIncoming`."""
        if self._published or self._aborted:
            return
        self._aborted = True
        self._held.clear()
        if not self._busy:
            self._forget()

    def _take(self) -> bytes:
        held, self._held, self._held_octets = b"".join(self._held), [], 0
        return held

    def _in_thread(self, function: Callable[..., None], *args: object) -> Deferred[None]:
        self._busy = True

        def done(result: _T) -> _T:
            self._busy = False
            if self._aborted:
                self._forget()
            return result

        def failed(why: object) -> None:
            error = getattr(why, "value", why)
            if isinstance(error, OSError):
                raise trouble(error) from error
            raise error if isinstance(error, BaseException) else StoreTrouble

        return self._run(function, *args).addErrback(failed).addBoth(done)

    def _forget(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            self._run(writing.abort)

    def _is_queued(self) -> None:
        self._published = True
        self._queued()

    # -- in a thread ------------------------------------------------------------------

    def _spill(self, data: bytes) -> None:
        if self._writing is None:
            self._writing = self._folder.begin(self._mail.queue_id)
        self._writing.write(data)

    def _finish(self, data: bytes, envelope: dict[str, object]) -> None:
        self._spill(data)
        assert self._writing is not None
        self._writing.finish(envelope)

    def _publish(self) -> None:
        assert self._writing is not None, "prepare comes first"
        self._writing.publish()
