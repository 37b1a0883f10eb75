"""The spool of Cyrus: where a user's inbox is, and what is in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ...errors import NoSuchMailbox, StoreTrouble
from ...files import open_regular
from ...moving import cyrus
from ...moving.dovecot import NotRead
from ...moving.matching import Contents, Known
from ...stores.copying.messages import Wire
from .sources import CHUNK, read, trouble

__all__ = ["Cyrus", "Spool"]

#: Octets of the beginning of ``cyrus.header``, which is text of some lines.
_HEADER: Final = 64 * 1024


class Cyrus:
    """The folder of a mailbox in the spool of Cyrus.

    :param place: that folder, open.
    :param form: its ``uidl_format``.
    :param uidvalidity: if ``cyrus.index`` does not tell.
    :param path: where the folder is.
    """

    what = "Cyrus"

    def __init__(self, place: int, form: str, uidvalidity: int | None, path: str) -> None:
        self.address = f"cyrus {os.path.abspath(path)}"
        self._place = place
        self._form = form
        self._uidvalidity = uidvalidity
        self._names: dict[bytes, str] = {}

    def listed(self) -> Sequence[Known]:
        """See :class:`pop3toy.cli.moving.sources.Source`."""
        index = self._index()
        form = self._form if index.formatted else "uidonly"
        self._names = {cyrus.uidl(form, uid, index.uidvalidity): cyrus.file_name(uid) for uid in index.uids}
        return [Known(uid) for uid in self._names]

    def _index(self) -> cyrus.Index:
        data = read(self._place, cyrus.INDEX_NAME)
        if self._uidvalidity is None:
            if data is None:
                raise NoSuchMailbox(
                    detail=f"there is no {cyrus.INDEX_NAME} in the folder; is it the inbox of the user? If"
                    " Cyrus has it elsewhere (metapartition_files), say --uidvalidity"
                )
            return cyrus.index(data)
        try:
            if data is not None:
                return cyrus.index(data)._replace(uidvalidity=self._uidvalidity)
        except NotRead:
            pass
        try:
            return cyrus.Index(self._uidvalidity, True, cyrus.messages(os.listdir(self._place)))
        except OSError as error:
            raise trouble("the folder", error) from error

    def contents(self, uid: bytes) -> Contents | None:
        """See :class:`pop3toy.cli.moving.sources.Source`."""
        try:
            with open_regular(self._names[uid], self._place, buffering=0) as file:
                return Wire().read(iter(lambda: file.read(CHUNK) or b"", b"")).is_what
        except OSError:
            return None


class Spool:
    """Which folder is whose inbox.

    :param source: as it is given: the folder of an inbox, with ``{user}`` in it, or the spool as a whole.
    """

    def __init__(self, source: str) -> None:
        self._source = os.path.expanduser(source)
        # Is one folder the inbox of all?  Then it can be that of one user alone.
        self.is_inbox = os.path.lexists(os.path.join(self._source, cyrus.INDEX_NAME))
        self._named: dict[str, str] | None = None

    def inbox(self, user: str) -> str:
        """The folder of a user's inbox.

        :raises pop3toy.errors.NoSuchMailbox: if it is not found in the spool.
        """
        if user in (".", "..") or "/" in user:
            raise StoreTrouble(detail="this name cannot be a folder's")
        if "{user}" in self._source or self.is_inbox:
            return self._source.replace("{user}", user)
        names = cyrus.mailbox_names(user)
        by_id = self._by_name()
        for name in names:
            for path in (by_id.get(name), *(os.path.join(self._source, one) for one in cyrus.folders(name))):
                if path is not None and os.path.lexists(os.path.join(path, cyrus.HEADER_NAME)):
                    return path
        raise NoSuchMailbox(
            detail=f"no inbox {' or '.join(names)} in the spool {self._source}; Cyrus's mbpath tells where it"
            " is: give that folder to --source"
        )

    def _by_name(self) -> dict[str, str]:
        """The folders that are named after their ids, by mailbox."""
        if self._named is None:
            named = {}
            for header in Path(self._source).glob(f"uuid/?/?/*/{cyrus.HEADER_NAME}"):
                try:
                    with header.open("rb") as file:
                        name = cyrus.mailbox_name(file.read(_HEADER))
                except OSError as error:
                    raise trouble(str(header), error) from error
                if name is not None:
                    named[name] = str(header.parent)
            # In one step: several threads ask.
            self._named = named
        return self._named
