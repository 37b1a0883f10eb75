"""Whether a mailbox is the one of the last session: no flood of mail that clients have and do not recognise.

Between a snapshot and what ``beside.last_session`` has kept.  ``follows`` compares two snapshots of this
process and waits for nothing; the others run in threads.
"""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from functools import partial

from ...errors import StoreTrouble
from ...files import open_regular
from .beside import last_session, uidl_file
from .folders import open_folder
from .snapshot import Snapshot

__all__ = ["follows", "look_at", "write_note"]


def follows(before: Snapshot, snapshot: Snapshot) -> bool:
    """Whether a snapshot is that of a session before with some mail more or less; else look at it."""
    if not before.looked_at:
        return False
    uids = set(snapshot.listing.uids)
    if not last_session.are_alike(before.listing.uids, uids):
        return False
    _looked_at(snapshot, before.note, uids)
    return True


def look_at(user: str, maildir: int, snapshot: Snapshot) -> None:
    """Compare a snapshot with the last session, unless that was done.

    :param maildir: the open directory.
    :raises pop3toy.errors.StoreTrouble: if more than half of the messages have other unique-ids now, though
        they are the same.
    """
    if snapshot.looked_at:
        return
    note = last_session.load(maildir)
    listing = snapshot.listing
    if note is not None and last_session.renamed(
        note, listing.uids, listing.each, partial(_digest, maildir, snapshot)
    ):
        name = shlex.quote(user)
        raise StoreTrouble(
            detail="more than half of its messages have other unique-ids than in the last session, and the"
            " same contents: programs that leave mail on the server would fetch them all again. If"
            f" {uidl_file.FILE_NAME} was lost there, or files were renamed, put that back. If clients know"
            f" them from another server: pop3toy mailbox adopt {name} --from dovecot (or courier, cyrus,"
            f" pop3://HOST) keeps what they know. If all may be fetched again: pop3toy mailbox accept {name}."
            " Both with the -m or --config of this server"
        )
    _looked_at(snapshot, note, set(listing.uids))


def _looked_at(snapshot: Snapshot, note: last_session.Note | None, uids: set[bytes]) -> None:
    snapshot.note = note
    snapshot.note_due = last_session.is_outdated(note, uids)
    snapshot.looked_at = True


def write_note(maildir: int, snapshot: Snapshot) -> None:
    """Keep what the session that ends now has listed, unless most of it is gone by now.

    Who lays a Maildir anew may be at it.  The note would stay behind, and the mail of tomorrow be compared
    with what was there before; hence one looks when it is written.
    """
    snapshot.note_due = False
    listing = snapshot.listing
    note = last_session.sample(listing.uids, listing.each, partial(_digest, maildir, snapshot), snapshot.note)
    last_session.save(maildir, note)
    there = sum(_is_there(maildir, snapshot.paths[snapshot.position(uid)]) for uid in note.sample)
    if 2 * there < len(note.sample):
        with suppress(OSError):
            last_session.forget(maildir)
        return
    snapshot.note = note


def _is_there(maildir: int, path: str) -> bool:
    try:
        os.stat(path, dir_fd=maildir, follow_symlinks=False)
    except OSError:
        return False
    return True


def _digest(maildir: int, snapshot: Snapshot, at: int) -> bytes | None:
    """The hash of a message; ``None`` if it is gone or cannot be read."""
    part, _, name = snapshot.paths[at].partition("/")
    try:
        folder = open_folder(maildir, part)
        try:
            with open_regular(name, folder, buffering=0) as file:
                return last_session.digest(file.read(last_session.HEAD) or b"")
        finally:
            os.close(folder)
    except (OSError, StoreTrouble):
        return None
