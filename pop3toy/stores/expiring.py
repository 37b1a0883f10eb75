"""Old mail goes: which messages of a mailbox have had their time, and how they go under a session's lock."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from ..interfaces import IKeepingMailbox, IMailStore, is_deferred

__all__ = ["DAY", "Rule", "expired", "forgotten", "remove_expired"]

#: Seconds.
DAY: Final = 86400.0


class _Message(Protocol):
    """What is asked of a message: an ``Entry`` as well as a ``StoredMessage``."""

    @property
    def uid(self) -> bytes: ...
    @property
    def octets(self) -> int: ...
    @property
    def arrived(self) -> float | None: ...


_M = TypeVar("_M", bound=_Message)


@dataclass(frozen=True)
class Rule:
    """Which messages go: those for which all of it holds."""

    #: Those that came more than so many seconds ago; ``None`` for any.
    older_than: float | None = None
    #: The newest ones, so many, stay.
    keep: int = 0
    #: None but these; ``None`` for any.
    among: Collection[bytes] | None = None


def expired(messages: Iterable[_M], rule: Rule, now: float) -> Sequence[_M]:
    """The messages that go, in their order.

    One of which the store does not know when it came is taken for one that comes now: it stays wherever
    that is asked for.

    :param now: seconds since the epoch.
    """
    everything = list(messages)
    came = [now if message.arrived is None else message.arrived for message in everything]
    # What is listed later came later, if the times are the same.
    by_age = sorted(range(len(everything)), key=lambda at: (came[at], at))
    stay = (
        set(by_age[len(by_age) - rule.keep :] if rule.keep < len(by_age) else by_age) if rule.keep else set()
    )
    return [
        message
        for at, message in enumerate(everything)
        if at not in stay
        and (rule.older_than is None or now - came[at] > rule.older_than)
        and (rule.among is None or message.uid in rule.among)
    ]


def forgotten(days: float, now: float) -> float:
    """Until when messages were removed that are not kept any more; with no days at all whatever is kept.

    :param days: that removed messages are kept.
    :param now: seconds since the epoch.
    """
    return now - days * DAY if days else math.inf


async def remove_expired(store: IMailStore, user: str, rule: Rule, now: float) -> tuple[int, int]:
    """Remove what has had its time, under the lock of a session: none is open, and none opens meanwhile.

    For good, where the store keeps what clients delete: nobody has deleted it by mistake.

    :param now: seconds since the epoch.
    :return: how many messages were removed, and their octets.
    :raises pop3toy.errors.InUse: if a session holds the mailbox; nothing was removed then.
    :raises pop3toy.errors.StoreTrouble: if it cannot be opened, or not all could be removed, which its
        ``removed`` tells.
    """
    mailbox = await _result(store.open(user))
    try:
        gone = expired(mailbox.entries, rule, now)
        if gone:
            remove = mailbox.remove_for_good if IKeepingMailbox.providedBy(mailbox) else mailbox.remove
            await _result(remove([message.uid for message in gone]))
    finally:
        await _result(mailbox.release())
    return len(gone), sum(message.octets for message in gone)


async def _result(result: Any) -> Any:
    return await result if is_deferred(result) else result
