"""What can be seen to be wrong before a server starts, by looking at the files that its settings name."""

from __future__ import annotations

import os
import stat

from twisted.application.service import MultiService

from ..config.settings import Settings
from ..errors import BadSetting
from ..files import Owner, acting_as, check_readable, may
from ..net.types import IReactor
from ..stores.registry import kind_of
from .access import Access
from .recipients import recipients_of_users

__all__ = ["check_files", "check_sources"]


def check_files(settings: Settings, *, own_store: bool = True, owner: Owner | None = None) -> None:
    """See that what has to be there is there.

    :param own_store: whether the store is that of the settings.
    :param owner: the user that root becomes before mail is served; what is opened only then has to be in
        reach of that user.
    :raises pop3toy.errors.BadSetting: with the option that names what is not.
    """
    for option, path in (("accounts", settings.accounts_file), ("aliases", settings.aliases)):
        if path is not None:
            check_readable(option, path)
    for description in settings.auth:
        kind, _, path = description.partition(":")
        # Twisted warns of a missing password file and goes on; no user could log in.
        if kind == "file":
            check_readable("auth", os.path.abspath(path))
    if own_store:
        store = kind_of(settings.store)
        # Credentials of one on a network are read before.
        with acting_as(None if store.on_network else owner):
            store.check(settings.store)
    if settings.smarthost is not None:
        # TLS for a client, which others do not need.
        from .handing_on.credentials import check_outgoing

        check_outgoing(settings)
    if settings.inspector_token_file is not None:
        from .inspecting.serving import token_of

        check_readable("inspector-token-file", settings.inspector_token_file)
        token_of(settings)
    with acting_as(owner):
        _check_written("transcript", settings.transcript_to)
        _check_written("transcript-json", settings.transcript_json or "off")
    _check_written("log-file", settings.log_file or "off")


def check_sources(settings: Settings, reactor: IReactor) -> None:
    """See that accounts, checkers and aliases can be read and say what they should; nothing is started.

    :raises pop3toy.errors.CannotStart: if not.
    """
    parts = MultiService()
    access = Access(settings, reactor, parts)
    if settings.wants_mail and not settings.is_toy:
        recipients_of_users(settings, reactor, parts, access)


def _check_written(option: str, where: str) -> None:
    if where in ("-", "off"):
        return
    folder = os.path.dirname(where)
    if os.path.isdir(where) or not os.path.isdir(folder):
        raise BadSetting(option, f": cannot write to {where}")
    if os.path.exists(where) and stat.S_ISFIFO(os.lstat(where).st_mode):
        # To open it would wait for its reader.
        raise BadSetting(option, f": {where} is a pipe")
    if not may(where if os.path.exists(where) else folder, os.W_OK):
        raise BadSetting(option, f": no permission to write {where}")
