"""Who copies to a maildrop in object storage: whoever has begun last, and nobody else any more.

Two who copy at once could give a message two names, since a name depends on what else is copied; or bring
again what its owner has removed.  An object says who has begun last, and under which names something is
being put.  It changes by compare-and-swap alone, and so whoever is not the last one any more finds that out
before the next batch.  Of the batch that is under way then the next one knows the names, and gives the same:
a message that is put twice, or late, is put to one place, where it is once.

There is no time in this: whoever was killed holds up nobody, and whoever was frozen does no harm later.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from typing import Final

from ...errors import InUse, StoreTrouble
from ..objects.engine import Engine, NoSuchObject, Tag, Taken
from ..objects.records import copying_key, is_message_name, uid_of

__all__ = ["Fence"]

#: How often others may begin in the moment in which we do.
_TRIES: Final = 20


class Fence:
    """That we have begun to copy to a maildrop, and are the last one; each call blocks.

    :raises pop3toy.errors.StoreTrouble: if that cannot be written down.
    """

    def __init__(self, engine: Engine, drop: str) -> None:
        self._engine = engine
        self._key = copying_key(drop)
        self._nonce = secrets.token_hex(8)
        self._changes = 0
        self._names: list[str] = []
        self._tag: Tag | None = None
        self._look()
        for _ in range(_TRIES):
            if self._is_written(self._names):
                #: Names by unique-id under which others may be putting something still, or have done so
                #: without anybody being told.
                self.under_way = {uid_of(name): name for name in self._names}
                return
        raise StoreTrouble(detail="others begin to copy to it all the while")

    def begin(self, names: Iterable[str]) -> None:
        """Say that something is about to be put under these names, and that what was begun before is there.

        :raises pop3toy.errors.InUse: if somebody else has begun since we did.
        :raises pop3toy.errors.StoreTrouble: if that is not known to be done.
        """
        # Whoever comes next has to know also those that others have left, until all is done.
        if not self._is_written([*dict.fromkeys([*self.under_way.values(), *names])]):
            raise InUse(detail="somebody else has begun to copy to it; what was copied until then is there")

    def end(self) -> None:
        """Say that nothing is being put any more, unless somebody else has begun meanwhile.

        :raises pop3toy.errors.StoreTrouble: if that is not known to be done.
        """
        if self._names:
            self._is_written([])

    def _look(self) -> bytes | None:
        try:
            found = self._engine.get(self._key)
        except NoSuchObject:
            self._tag, self._names = None, []
            return None
        try:
            _, _, names = json.loads(found.body)
            if not all(is_message_name(name) for name in names):
                raise ValueError
        except (ValueError, TypeError):
            raise StoreTrouble(detail=f"{self._key} cannot be read") from None
        self._tag, self._names = found.tag, names
        return found.body

    def _is_written(self, names: list[str]) -> bool:
        # No two versions are alike: a request that is late changes nothing.
        self._changes += 1
        body = json.dumps([self._nonce, self._changes, names]).encode("ascii")
        try:
            if self._tag is None:
                self._tag = self._engine.create(self._key, body)
            else:
                self._tag = self._engine.swap(self._key, body, self._tag)
        except Taken:
            # By this very call, of which an answer was lost; or by somebody else.
            return self._look() == body
        self._names = names
        return True
