"""A look at object storage before it is used: does it keep conditions, and how does it want them?

All of the locking rests on two conditional requests: create what is not there yet, and replace what is still
what was seen.  A store that answers them with success whatever is there would give a mailbox to two sessions
at once, so it is refused.  That a store keeps them when many ask at once cannot be seen here:
``pop3toy store check`` tries that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from ...errors import StoreTrouble
from .engine import Denied, Engine, NoSuchBucket, NoSuchObject, Tag, Taken

__all__ = ["Learned", "Unfit", "bare", "measured_offset", "probe"]

#: Seconds of a request that tells the time, at the most: the store's may be off by half of it.
SLOW: Final = 8.0
#: Seconds by which clocks differ that are taken to be the same: S3 tells whole seconds, so what is measured
#: is off by half of one, another time by another half.
ALIKE: Final = 1.0
#: Seconds after which a look is given up, with some request's time-out on top: others wait for its end.
LONGEST: Final = 15.0


class Unfit(StoreTrouble):
    """This store cannot be used as it is: somebody has to do something about it.

    :param kind: ``bucket``, ``credentials`` or ``conditions``.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail=f"object storage: {detail}")
        self.kind = kind


class Learned(NamedTuple):
    """What a look at the store has told."""

    #: Whether an ETag stands without its quotes in ``If-Match``: Ceph before version 18 wants that, against
    #: RFC 9110 section 13.1.1, which AWS and all others keep.
    unquoted: bool
    #: Seconds by which the store's clock is ahead of ours.
    offset: float


def bare(tag: Tag) -> Tag:
    """A tag whose ETag has no quotes."""
    return tag if tag.e_tag is None else tag._replace(e_tag=tag.e_tag.strip('"'))


def probe(store: Any, key: str, wall: Callable[[], float] = time.time) -> Learned:
    """Try conditional requests with an object, and remove it; blocks.

    :param store: obstore's.
    :param key: where the object is put meanwhile; nobody else's.
    :param wall: the time of day, in seconds since the epoch.
    :raises Unfit: if it is no store for mail: there is no such bucket, the credentials are refused, or
        conditions are not kept.
    :raises pop3toy.errors.StoreTrouble: for trouble that may pass.
    """
    unquoted = False
    begun = wall()
    engine = _Hurried(store, lambda tag: bare(tag) if unquoted else tag, lambda: wall() - begun)
    made = False
    try:
        try:
            asked = wall()
            tag = _create(engine, key)
            answered = wall()
        except NoSuchBucket:
            raise Unfit("bucket", "there is no such bucket") from None
        made = True
        found = engine.get(key)
        offset = measured_offset(asked, answered, found.modified)
        if tag.e_tag is None and tag.version is None:
            raise Unfit("conditions", "it gives no ETags, so nothing can be replaced safely")
        try:
            engine.create(key, b"second")
        except Taken:
            pass
        else:
            raise Unfit("conditions", "it ignores If-None-Match: two could have a mailbox at the same time")
        try:
            second = _swap(engine, key, b"third", tag)
        except Taken:
            unquoted = True
            try:
                second = _swap(engine, key, b"third", tag)
            except Taken:
                raise Unfit("conditions", "it refuses If-Match with the right ETag") from None
        if second == tag:
            raise Unfit("conditions", "its ETags do not change with what is written")
        try:
            engine.swap(key, b"fourth", tag)
        except Taken:
            pass
        else:
            raise Unfit("conditions", "it ignores If-Match: two could have a mailbox at the same time")
        if engine.get(key).body != b"third":
            raise Unfit("conditions", "what it shows is not what was written last")
    except NoSuchObject:
        raise Unfit("conditions", "it does not show what was just written") from None
    except Denied as error:
        raise Unfit("credentials", "the credentials are refused, or do not suffice for it") from error
    except Unfit:
        raise
    except StoreTrouble as error:
        if "501" in error.detail:
            raise Unfit("conditions", "it knows no conditional requests (501)") from error
        raise
    finally:
        # From a store that hardly answers the next look removes it, which has the same key.
        if made and wall() - begun < LONGEST / 2:
            with suppress(StoreTrouble):
                engine.delete([key])
    return Learned(unquoted, offset)


class _Hurried(Engine):
    """An engine that does not go on for ever.

    :param passed: how many seconds have passed.
    """

    def __init__(self, store: Any, tag: Callable[[Tag], Tag], passed: Callable[[], float]) -> None:
        super().__init__(lambda: store, tag)
        self._passed = passed

    def call(self, function: str, *args: Any, **named: Any) -> Any:
        """See :class:`~pop3toy.stores.objects.engine.Engine`."""
        if self._passed() > LONGEST:
            raise StoreTrouble(detail=f"object storage: a first look took more than {LONGEST:.0f} s")
        return super().call(function, *args, **named)


def _create(engine: Engine, key: str) -> Tag:
    try:
        return engine.create(key, b"first")
    except Taken:
        # From a look that was cut short; or by this very call, of which an answer was lost.
        engine.delete([key])
    try:
        return engine.create(key, b"first")
    except Taken:
        raise StoreTrouble(
            detail="object storage: it says of a new object that it is there already"
        ) from None


def _swap(engine: Engine, key: str, body: bytes, tag: Tag) -> Tag:
    try:
        return engine.swap(key, body, tag)
    except Taken:
        # By this very call, of which an answer was lost?
        found = engine.get(key)
        if found.body != body:
            raise
        return found.tag


def measured_offset(asked: float, answered: float, modified: float) -> float:
    """Seconds by which the store's clock is ahead; none if that is less than can be told.

    So messages that come one after the other by several processes, or servers whose clocks agree, are listed
    in that order.

    :param asked: our time when an object was to be written.
    :param answered: our time when it had been.
    :param modified: the store's time of the object; S3 cuts it to whole seconds.
    :raises pop3toy.errors.StoreTrouble: if the answer took too long to tell.
    """
    if answered - asked > SLOW:
        raise StoreTrouble(detail=f"object storage: an answer took {answered - asked:.0f} s")
    if modified == int(modified):
        modified += 0.5
    ahead = modified - (asked + answered) / 2
    return ahead if abs(ahead) >= ALIKE else 0.0
