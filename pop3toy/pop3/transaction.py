"""The commands of the TRANSACTION state, and QUIT into UPDATE (RFC 1939 sections 5 to 7)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

from twisted.python.failure import Failure

from ..errors import Refusal, StoreTrouble
from ..events import MessageRemoved
from ..interfaces import After, Entry, IMailbox, MaybeDeferred, MessageBody, is_deferred
from . import capabilities
from .commands import Command
from .replies import Lines, Message, Reply, Status, scan_listing, unique_id_listing
from .session import Session


def stat(session: Session, command: Command) -> Reply:
    """STAT: a drop listing, two integers."""
    return Status(True, f"{session.maildrop.count} {session.maildrop.octets}")


def list_(session: Session, command: Command) -> Reply:
    """LIST: the scan listing of one message or of all."""
    maildrop = session.maildrop
    if command.args:
        number = cast(int, command.args[0])
        return Status(True, f"{number} {maildrop.entry(number).octets}")
    return Lines(maildrop.summary(), maildrop.listing(scan_listing))


def uidl(session: Session, command: Command) -> Reply:
    """UIDL: the unique-id listing of one message or of all."""
    maildrop = session.maildrop
    if command.args:
        number = cast(int, command.args[0])
        return Status(True, f"{number} {maildrop.entry(number).uid.decode('ascii')}")
    return Lines("unique-id listing follows", maildrop.listing(unique_id_listing))


def retr(session: Session, command: Command) -> MaybeDeferred[Reply]:
    """RETR: a whole message."""
    number = cast(int, command.args[0])
    entry = session.maildrop.entry(number)
    body = _mailbox(session).read(entry.uid)
    if is_deferred(body):
        return body.addCallback(lambda body: _whole(session, number, entry, body))
    return _whole(session, number, entry, body)


def _whole(session: Session, number: int, entry: Entry, body: MessageBody) -> Reply:
    session.fetched = True
    return Message(f"{entry.octets} octets", body, done=partial(session.retrieved, number, entry))


def top(session: Session, command: Command) -> MaybeDeferred[Reply]:
    """TOP: the header, the blank line, and so many lines of the body."""
    number, lines = cast("tuple[int, int]", command.args)
    entry = session.maildrop.entry(number)

    def reply(body: MessageBody) -> Reply:
        session.fetched = True
        return Message("top of message follows", body, lines)

    body = _mailbox(session).read(entry.uid)
    return body.addCallback(reply) if is_deferred(body) else reply(body)


def dele(session: Session, command: Command) -> Reply:
    """DELE: a mark; nothing is removed before UPDATE."""
    number = cast(int, command.args[0])
    if _read_only(session):
        session.maildrop.entry(number)
        # Here, because QUIT could only say that it is a temporary trouble.
        raise Refusal("this maildrop is read-only")
    session.maildrop.mark_deleted(number)
    return Status(True, f"message {number} deleted")


def noop(session: Session, command: Command) -> Reply:
    """NOOP: "the POP3 server does nothing, it merely replies"."""
    return Status(True, "")


def rset(session: Session, command: Command) -> Reply:
    """RSET: all deletion marks are taken back."""
    session.maildrop.unmark_all()
    return Status(True, f"maildrop has {session.maildrop.summary()}")


def quit_(session: Session, command: Command) -> MaybeDeferred[Reply]:
    """QUIT: enter UPDATE and remove what was marked; the answer comes when that is durable.

    RFC 1939 section 6: on an error "the POP3 server [...] in no case may
    remove any messages not marked as deleted".  The lock is given back before
    the answer leaves, so that the client's next session finds it free; see :meth:`Session.quit`.

    A client may send RETR, DELE and QUIT at once.  So what was fetched is with the kernel
    before anything is removed; if the connection ends before, nothing is.
    """
    deleted = session.maildrop.deleted_uids()
    if not deleted and not session.lock_lost:
        return session.quit("quit", Status(True, "bye", after=After.CLOSE))
    handed_over = session.handed_over() if session.fetched else True
    if is_deferred(handed_over):
        session.quitting = True
        return handed_over.addCallback(lambda yes: _update(session, deleted, yes))
    return _update(session, deleted, handed_over)


def _update(session: Session, deleted: list[bytes], handed_over: bool) -> MaybeDeferred[Reply]:
    if not handed_over or session.login is None:
        trouble = "what was fetched did not reach you, nothing was removed"
        return session.quit(session.record.ended, Status(False, trouble, "SYS/TEMP", After.CLOSE))
    if session.lock_lost:
        trouble = "the lock of this maildrop was lost, nothing was removed"
        return session.quit("store", Status(False, trouble, "SYS/TEMP", After.CLOSE))
    session.begin_update()
    try:
        removal = _mailbox(session).remove(deleted)
    except Exception:
        return _not_all_removed(session, Failure())
    if is_deferred(removal):
        return removal.addCallbacks(
            lambda _: _removed(session, deleted), lambda why: _not_all_removed(session, why)
        )
    return _removed(session, deleted)


COMMANDS: dict[str, Callable[[Session, Command], MaybeDeferred[Reply]]] = {
    "STAT": stat,
    "LIST": list_,
    "RETR": retr,
    "DELE": dele,
    "NOOP": noop,
    "RSET": rset,
    "TOP": top,
    "UIDL": uidl,
    "CAPA": capabilities.capa,
    "QUIT": quit_,
}

#: Those that do not work in every maildrop, and whether they do in this one.
WORKS: dict[str, Callable[[Session], bool]] = {"DELE": lambda session: not _read_only(session)}


def _mailbox(session: Session) -> IMailbox:
    assert session.login is not None, "there is a login in TRANSACTION"
    return session.login.mailbox


def _read_only(session: Session) -> bool:
    return bool(getattr(_mailbox(session), "read_only", False))


def _removed(session: Session, deleted: list[bytes]) -> MaybeDeferred[Reply]:
    session.record.removed = count = len(deleted)
    for uid in deleted:
        session.happened(MessageRemoved, uid)
    said = f"bye, {count} message{'s'[: count != 1]} removed"
    return session.quit("quit", Status(True, said, after=After.CLOSE))


def _not_all_removed(session: Session, why: Failure) -> MaybeDeferred[Reply]:
    if not isinstance(why.value, Refusal):
        session.log_bug(why)
        detail = ""
    else:
        detail = why.value.detail
    session.record.removed = getattr(why.value, "removed", 0)
    trouble = StoreTrouble("some deleted messages not removed", detail=detail)
    reply = cast(Status, session.refused(Failure(trouble)))
    return session.quit("quit", reply._replace(after=After.CLOSE))
