"""RFC 1939 sections 5 and 6: DELE, RSET, UPDATE.  All of these mark a message that may be removed."""

from __future__ import annotations

from ..connection import Connection
from ..examination import Examination
from ..results import NotTested, require

__all__ = [
    "dele",
    "dropped",
    "gone_from_listings",
    "new_mail_later",
    "not_again",
    "numbers_stay",
    "quit_removes",
    "rset_unmarks",
    "uid_not_reused",
]


def _marked(server: Examination, session: Connection) -> int:
    number = server.doomed_number(session)
    found = server.mark(session, number)
    require(found.ok, str(found))
    return number


def dele(server: Examination) -> None:
    """+OK."""
    with server.session() as session:
        _marked(server, session)


def not_again(server: Examination) -> None:
    """A message that is marked is not there: RETR, LIST and DELE are refused."""
    with server.session() as session:
        number = _marked(server, session)
        for command in (f"RETR {number}", f"LIST {number}", f"DELE {number}"):
            session.ask_refused(command)


def gone_from_listings(server: Examination) -> None:
    """STAT, LIST and UIDL leave it out."""
    with server.session() as session:
        before = server.sizes(session)
        number = _marked(server, session)
        left = {one: octets for one, octets in before.items() if one != number}
        require(server.sizes(session) == left, "LIST is not what it was without the marked message")
        require(
            list(server.uids(session)) == list(left), "UIDL is not what it was without the marked message"
        )
        found = session.ask_ok("STAT")
        wanted = [b"%d" % len(left), b"%d" % sum(left.values())]
        require(found.text.split()[:2] == wanted, f"{found}, though the marked message counts no more")


def numbers_stay(server: Examination) -> None:
    """The others keep their numbers."""
    with server.session() as session:
        before = server.uids(session)
        number = _marked(server, session)
        after = server.uids(session)
        if number == max(before):
            raise NotTested("there is no message behind the marked one")
        require(
            all(before[one] == uid for one, uid in after.items() if one in before)
            and set(after) <= set(before),
            "behind DELE other messages have other numbers",
        )


def rset_unmarks(server: Examination) -> None:
    """RSET takes the mark back."""
    with server.session() as session:
        before = server.sizes(session)
        _marked(server, session)
        session.ask_ok("RSET")
        require(server.sizes(session) == before, "behind RSET LIST is not what it was before DELE")


def dropped(server: Examination) -> None:
    """Without QUIT nothing is removed."""
    with server.session() as session:
        uid = _marked_uid(server, session)
        session.drop()
    with server.session() as session:
        require(uid in server.uids(session).values(), "the message is gone, though there was no QUIT")


def _marked_uid(server: Examination, session: Connection) -> bytes:
    uids = server.uids(session)
    return uids[_marked(server, session)]


def new_mail_later(server: Examination) -> None:
    """Mail that comes during a session changes nothing in it."""
    if server.target.smtp is None or not server.brought:
        raise NotTested("it needs new mail: --destructive --deliver-smtp")
    with server.session() as session:
        before = session.listing("UIDL").raw
        # Whether it has come cannot be asked while the mailbox is locked; so some time passes.
        server.deliver()
        server.pause(0.5)
        session.ask_ok("NOOP")
        require(session.listing("UIDL").raw == before, "mail that came during the session is in its UIDL")
        known = set(server.uids(session).values())
    server.collect(known)


def quit_removes(server: Examination) -> None:
    """QUIT removes what was marked, and nothing else."""
    with server.session() as session:
        before = set(server.uids(session).values())
        uid = _marked_uid(server, session)
        found = session.ask("QUIT")
        require(found.ok, str(found))
        session.ended()
    server.doomed = [one for one in server.doomed if one.uid != uid]
    with server.session() as session:
        after = set(server.uids(session).values())
    require(uid not in after, "the message is there, though QUIT said that it went well")
    others = len(before - after - {uid})
    require(not others, f"of those that were not marked {others} {'is' if others == 1 else 'are'} gone")


def uid_not_reused(server: Examination) -> None:
    """A unique-id is never given to another message."""
    if server.target.smtp is None or not server.brought:
        raise NotTested("it needs new mail: --destructive --deliver-smtp")
    with server.session() as session:
        uids = server.uids(session)
        old = set(server.brought)
        number = _marked(server, session)
        found = session.ask("QUIT")
        if not found.ok:
            raise NotTested(str(found))
        session.ended()
    server.doomed = [one for one in server.doomed if one.uid != uids[number]]
    removed = old - {one.uid for one in server.doomed}
    for uid in removed:
        del server.brought[uid]
    left = set(uids.values()) - removed
    server.deliver()
    server.collect(left)
    again = removed & set(server.brought)
    require(not again, "a new message has the unique-id of one that was removed")
