"""One message to several users, whether the store helps with it or not.

Knows :class:`~pop3toy.interfaces.IDelivery` and nothing of SMTP or any store.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, gatherResults

from ..errors import StoreTrouble
from ..interfaces import IDelivery, Incoming, ISharedDelivery, MaybeDeferred, SharedIncoming

__all__ = ["fan_out"]


def fan_out(delivery: IDelivery, incomings: Sequence[Incoming]) -> SharedIncoming:
    """Join deliveries that have just begun into one.

    A store that provides :class:`~pop3toy.interfaces.ISharedDelivery` writes the
    message once; for any other each delivery gets all octets.
    """
    if len(incomings) > 1 and ISharedDelivery.providedBy(delivery):
        shared: SharedIncoming = ISharedDelivery(delivery).share(incomings)
        return shared
    return _Each(incomings)


class _Each:
    """Several deliveries side by side.

    What happens if they stand together and one of them fails?  While the message
    is being written, all are given up and nobody has anything.  At the end the
    first one is made durable alone: a store in trouble shows it there, and still
    nobody has anything.  If it fails at a later one, those before have the message
    and the sender is told that it failed: it will send again, and some users get
    it twice.  The other way round, to say that all is well, would lose mail, and
    there is no queue from which a bounce could be sent.
    """

    def __init__(self, incomings: Sequence[Incoming]) -> None:
        self._incomings = incomings
        self._refused: dict[int, StoreTrouble] = {}

    def write(self, chunk: bytes) -> MaybeDeferred[None]:
        """See :class:`SharedIncoming`; fails when there is nobody left to write for."""
        waiting = []
        for number, incoming in enumerate(self._incomings):
            if number not in self._refused:
                try:
                    result = incoming.write(chunk)
                except StoreTrouble as error:
                    self._refuse(number, error)
                else:
                    if isinstance(result, Deferred):
                        waiting.append(Deferred.fromCoroutine(self._written(number, result)))
        if waiting:
            return Deferred.fromCoroutine(self._all_written(waiting))
        self._anybody()
        return None

    async def _all_written(self, waiting: Sequence[Deferred[None]]) -> None:
        await gatherResults(waiting, consumeErrors=True)
        self._anybody()

    async def _written(self, number: int, result: Deferred[None]) -> None:
        try:
            await result
        except StoreTrouble as error:
            self._refuse(number, error)

    def _refuse(self, number: int, error: StoreTrouble) -> None:
        self._refused[number] = error
        self._incomings[number].abort()

    def _anybody(self) -> None:
        if len(self._refused) == len(self._incomings):
            raise self._refused[0]

    def commit(self, *, together: bool) -> Deferred[Sequence[bytes | StoreTrouble]]:
        """See :class:`SharedIncoming`."""
        return Deferred.fromCoroutine(self._commit(together))

    async def _commit(self, together: bool) -> Sequence[bytes | StoreTrouble]:
        if together and self._refused:
            self.abort()
            raise next(iter(self._refused.values()))
        try:
            first = [await self._committed(0)]
            if together and isinstance(first[0], StoreTrouble):
                raise first[0]
            rest = [
                Deferred.fromCoroutine(self._committed(number)) for number in range(1, len(self._incomings))
            ]
            results = first + list(await gatherResults(rest, consumeErrors=True))
        finally:
            # Harmless for those that are committed.
            self.abort()
        refused = [result for result in results if isinstance(result, StoreTrouble)]
        if refused and (together or len(refused) == len(results)):
            raise refused[0]
        return results

    async def _committed(self, number: int) -> bytes | StoreTrouble:
        if number in self._refused:
            return self._refused[number]
        try:
            return await self._incomings[number].commit()
        except StoreTrouble as error:
            return error

    def abort(self) -> None:
        """See :class:`SharedIncoming`."""
        for incoming in self._incomings:
            incoming.abort()
