"""Tells a user by mail, once a week, that the mailbox is nearly full, and the administrator by the log.

When it is nearly full, and whether that was told this week, is found by the store behind a delivery, which
knows both without counting again.  What is said, and that it is delivered beyond the quota, is here.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import SMTPUTF8
from email.utils import formatdate

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..interfaces import Incoming

__all__ = ["QuotaWarnings", "warning"]

log = Logger()

_TEXT = """\
Your mailbox {address} is {percent} % full: it holds {octets:,} of {quota:,} octets.

When it is full, no more mail can come in, and whoever writes to you is told
that it could not be delivered. Please make room: delete what you do not need,
or let your mail program fetch your mail and remove it from the server. Some
programs keep mail there for weeks, which can be changed in their settings.

This message comes once a week as long as the mailbox is so full. A program
has written it; your postmaster can tell you more, or give you more room.
"""


class QuotaWarnings:
    """Writes and delivers the warnings.

    :param domain: of the users, and of the postmaster.
    :param deliver: begins a message for a user that no quota keeps out.
    :param wall: the time of day, in seconds.
    """

    def __init__(
        self,
        domain: str,
        deliver: Callable[[str], Deferred[Incoming]],
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._domain = domain
        self._deliver = deliver
        self._wall = wall

    def nearly_full(self, user: str, octets: int, quota: int) -> Deferred[None]:
        """A user's mailbox is nearly full, which has not been told for a week.

        :param octets: that it holds, of ``quota``.
        :return: fires when it was told, or could not be; never fails.
        """
        log.warn(
            "the mailbox of {user!r} is {percent} % full: {octets} of {quota} octets",
            user=user,
            percent=_percent(octets, quota),
            octets=octets,
            quota=quota,
        )
        telling = Deferred.fromCoroutine(self._tell(user, octets, quota))
        return telling.addErrback(
            lambda why: log.warn(
                "{user!r} could not be told that the mailbox is nearly full: {why}",
                user=user,
                why=getattr(why.value, "detail", "") or why.getErrorMessage(),
            )
        )

    async def _tell(self, user: str, octets: int, quota: int) -> None:
        message = await self._deliver(user)
        try:
            written = message.write(warning(user, self._domain, octets, quota, self._wall()))
            if isinstance(written, Deferred):
                await written
        except BaseException:
            message.abort()
            raise
        await message.commit()


def warning(user: str, domain: str, octets: int, quota: int, now: float) -> bytes:
    """The message, with CRLF line ends.

    :param domain: of a user whose name is no address, and of the postmaster.
    :param now: the time of day, in seconds.
    """
    address = user if "@" in user else f"{user}@{domain}"
    percent = _percent(octets, quota)
    message = EmailMessage(policy=SMTPUTF8)
    message["Return-Path"] = "<>"
    message["From"] = f"postmaster@{domain}"
    # A name that is no address in the end is no reason to be silent.
    message["To"] = (
        address if address.isascii() and not set(address) & set(' <>()[]:;,"\\') else "undisclosed:;"
    )
    message["Subject"] = f"Your mailbox is {percent} % full"
    message["Date"] = formatdate(now, localtime=True)
    message["Message-ID"] = f"<{secrets.token_hex(16)}@{domain}>"
    # RFC 3834 section 5: nothing is to answer it.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(_TEXT.format(address=address, percent=percent, octets=octets, quota=quota))
    return message.as_bytes()


def _percent(octets: int, quota: int) -> int:
    return 100 * octets // quota if quota else 100
