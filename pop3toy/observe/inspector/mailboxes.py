"""The mailboxes of a store, and in the toy their messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from ...errors import InUse, MessageGone, NoSuchMailbox, StoreTrouble
from ...interfaces import IDelivery, IMailStore, IStoreAdmin, StoredMessage
from .problem import Problem
from .told import when

__all__ = ["Ask", "Mailboxes", "parsed"]

#: Calls a function in a thread.
Ask = Callable[..., Deferred[Any]]

#: Mailboxes that are counted for one answer; messages that are listed; octets of a message that are read.
MAILBOXES = 200
MESSAGES = 500
HEADER = 32 * 1024
WHOLE = 50 * 1024 * 1024
#: Characters of a text, and of a raw message, within JSON.
SHOWN = 1024 * 1024


class Mailboxes:
    """What the API tells of mailboxes.

    :param admin: gives the store's administrator.
    :param ask: calls its methods, which may wait for a disk.
    :param think: calls what takes time to think: in a thread.
    :param store: whose messages may be put in and taken out; only the toy's.
    :param shows_mail: whether messages are shown.
    """

    def __init__(
        self,
        admin: Callable[[], IStoreAdmin | None],
        ask: Ask,
        think: Ask,
        *,
        store: IMailStore | None = None,
        delivery: IDelivery | None = None,
        shows_mail: bool = False,
    ) -> None:
        self._admin = admin
        self._ask = ask
        self._think = think
        self._store = store
        self._delivery = delivery
        #: Whether messages are shown.
        self.shows_mail = shows_mail or store is not None

    @property
    def admin(self) -> IStoreAdmin:
        """The store's administrator.

        :raises Problem: if there is none.
        """
        admin = self._admin()
        if admin is None:
            raise Problem(404, "This store does not tell of its mailboxes.")
        return admin

    async def all(self, holder: Callable[[str], int | None]) -> dict[str, Any]:
        """The first mailboxes, and how many more there are.

        :param holder: says which session has a user's mailbox open.
        """
        counted, more = await self._ask(_count, self.admin)
        for one in counted:
            one["locked_by"] = holder(one["user"])
        return {"mailboxes": counted, "more": more}

    async def messages(self, user: str) -> dict[str, Any]:
        """The messages of a user, with what their headers say."""
        found, more = await self._ask(_headers, self._shown(), user)
        return {"messages": await self._think(_listed, found), "more": more}

    async def message(self, user: str, uid: str) -> bytes:
        """A whole message, as it is kept."""
        whole: bytes = await self._ask(_whole, self._shown(), user, uid)
        return whole

    async def message_as_dict(self, user: str, uid: str) -> dict[str, Any]:
        """A message taken apart."""
        told: dict[str, Any] = await self._think(parsed, uid, await self.message(user, uid))
        return told

    async def attachment(self, user: str, uid: str, part: int) -> tuple[str, bytes]:
        """A part of a message: its name, and its octets."""
        found: tuple[str, bytes] = await self._think(_part, await self.message(user, uid), part)
        return found

    async def add(self, user: str, message: bytes) -> str:
        """Put a message in; its unique-id."""
        delivery = self._delivery
        if delivery is None:
            raise _read_only()
        if not await self._ask(self.admin.exists, user):
            raise Problem(404, "There is no such mailbox.")
        incoming: Any = await maybeDeferred(delivery.begin, [user], len(message))
        await maybeDeferred(incoming.write, message)
        (uid,) = await incoming.commit()
        if isinstance(uid, StoreTrouble):
            raise uid
        return str(uid, "ascii")

    async def remove(self, user: str, uid: str | None) -> int:
        """Remove a message, or all of them; how many.  Nobody may have the mailbox open."""
        if self._store is None:
            raise _read_only()
        if not await self._ask(self.admin.exists, user):
            raise Problem(404, "There is no such mailbox.")
        mailbox: Any = await maybeDeferred(self._store.open, user)
        try:
            uids = [one.uid for one in mailbox.entries if uid in (None, one.uid.decode("ascii"))]
            if uid is not None and not uids:
                raise MessageGone
            await maybeDeferred(mailbox.remove, uids)
        finally:
            await maybeDeferred(mailbox.release)
        return len(uids)

    def _shown(self) -> IStoreAdmin:
        if not self.shows_mail:
            raise Problem(403, "Real mail is shown only with --inspector-shows-mail.")
        return self.admin


def _read_only() -> Problem:
    return Problem(403, "Mail is put in and taken out here only in the toy.")


def problem_of(error: Exception) -> Problem | None:
    """What a store's refusal is by HTTP."""
    match error:
        case InUse():
            return Problem(409, "A session has this mailbox open.")
        case NoSuchMailbox():
            return Problem(404, "There is no such mailbox.")
        case MessageGone():
            return Problem(404, "There is no such message.")
        case StoreTrouble():
            return Problem(503, "The store cannot be read now; the server's log may tell more.")
    return None


# -- in a thread ----------------------------------------------------------------------------


def _count(admin: IStoreAdmin) -> tuple[list[dict[str, Any]], int]:
    users = admin.users()
    counted: list[dict[str, Any]] = []
    for user in users[:MAILBOXES]:
        one: dict[str, Any] = {"user": user, "messages": None, "octets": None}
        try:
            listed = admin.list(user)
            one |= {"messages": len(listed), "octets": sum(message.octets for message in listed)}
        except StoreTrouble:
            # Others are told all the same.
            pass
        counted.append(one)
    return counted, max(len(users) - MAILBOXES, 0)


def _headers(admin: IStoreAdmin, user: str) -> tuple[list[tuple[StoredMessage, bytes]], int]:
    listed = admin.list(user)
    found = []
    for message in listed[-MESSAGES:]:
        try:
            with admin.read(user, message) as file:
                found.append((message, file.read(HEADER)))
        except MessageGone:
            continue
    return found, max(len(listed) - MESSAGES, 0)


def _whole(admin: IStoreAdmin, user: str, uid: str) -> bytes:
    wanted = uid.encode("utf-8", "surrogateescape")
    for message in admin.list(user):
        if message.uid == wanted:
            with admin.read(user, message) as file:
                return file.read(WHOLE)
    raise MessageGone


def _listed(found: Sequence[tuple[StoredMessage, bytes]]) -> list[dict[str, Any]]:
    told = []
    for message, start in found:
        headers = dict(reversed([(name.lower(), value) for name, value in _header_fields(_parse(start))]))
        told.append(
            {
                "uid": message.uid.decode("ascii"),
                "octets": message.octets,
                "arrived": None if message.arrived is None else when(message.arrived),
                "subject": headers.get("subject"),
                "from": headers.get("from"),
                "date": headers.get("date"),
            }
        )
    return told


def _parse(message: bytes) -> EmailMessage:
    return BytesParser(policy=policy.default).parsebytes(message)


def _header_fields(message: EmailMessage) -> list[tuple[str, str]]:
    fields = []
    for name, raw in message.raw_items():
        try:
            value = str(message.policy.header_fetch_parse(name, raw))
        except Exception:
            # Python's parser of headers raises many things for what nobody should write.
            value = str(raw)
        fields.append((name, value))
    return fields


def parsed(uid: str, message: bytes) -> dict[str, Any]:
    """A message taken apart: texts as text, whatever is in them.

    :return: ``uid``, ``headers``, ``text``, ``html``, ``attachments``, ``raw``.
    """
    whole = _parse(message)
    text = html = None
    attachments = []
    for number, part in enumerate(_leaves(whole)):
        kind = part.get_content_type()
        name = _name(part)
        if name is None and text is None and kind == "text/plain":
            text = _text(part)
        elif name is None and html is None and kind == "text/html":
            html = _text(part)
        else:
            attachments.append({"name": name, "type": kind, "octets": len(_octets(part)), "part": number})
    return {
        "uid": uid,
        "headers": [list(field) for field in _header_fields(whole)],
        "text": text,
        "html": html,
        "attachments": attachments,
        "raw": message[:SHOWN].decode("utf-8", "surrogateescape"),
    }


def _leaves(message: EmailMessage) -> list[Any]:
    return [part for part in message.walk() if not part.is_multipart()]


def _name(part: Any) -> str | None:
    try:
        name = part.get_filename()
        attached = part.get_content_disposition() == "attachment"
    except Exception:
        return None
    return str(name) if name is not None else ("" if attached else None)


def _octets(part: Any) -> bytes:
    try:
        return bytes(part.get_payload(decode=True) or b"")
    except Exception:
        return b""


def _text(part: Any) -> str:
    octets = _octets(part)
    try:
        text = octets.decode(part.get_content_charset("utf-8"), "replace")
    except LookupError:
        text = octets.decode("utf-8", "replace")
    return text[:SHOWN]


def _part(message: bytes, number: int) -> tuple[str, bytes]:
    leaves = _leaves(_parse(message))
    if number >= len(leaves):
        raise Problem(404, "The message has no such part.")
    return _name(leaves[number]) or f"part-{number}", _octets(leaves[number])
