"""Whose mail is taken, put together from the options: domains, accounts, Maildirs, aliases, catch-all."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeAlias

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..auth.names import NameIndex, folded
from ..config.cmdline import Options
from ..errors import NoSuchMailbox, StoreTrouble
from ..interfaces import MaybeDeferred
from ..net.threads import RunInThread, WorkerThreads
from ..routing.aliases import AliasFile, BadAliases
from ..routing.recipients import Recipients
from ..smtp.envelope import parse_address
from ..stores.maildir.paths import MaildirPaths
from .access import Access
from .ports import refuse_to_start

log = Logger()

__all__ = ["look_for_postmaster", "recipients_of_all", "recipients_of_users"]

_Find: TypeAlias = Callable[[str], MaybeDeferred[str | None]]

#: Threads that look for Maildirs and at the alias file: small work, but on a disk
#: that may be slow, and apart from the threads that write mail.
NAME_THREADS = 4


def recipients_of_all(user: str) -> Recipients:
    """A mail trap: whatever the address, one user gets it."""
    return Recipients(lambda name: name if name == user else None, catch_all=user, any_domain=True)


def recipients_of_users(
    options: Options, reactor: Any, server: MultiService, access: Access, *, at_once: bool = True
) -> Recipients:
    """The users of the accounts, or, where a checker cannot tell who they are, of the Maildirs.

    :param server: whose parts the threads become that look for them.
    :param at_once: whether an alias file that cannot be used ends the start.
    """
    threads = WorkerThreads(reactor, name="names", size=NAME_THREADS)
    threads.setServiceParent(server)
    find: _Find = access.sources.spelled
    catch_all = options["catch-all"]
    if options["credCheckers"]:
        find = _or_maildir(find, MaildirPaths(options["maildir"]), threads.run)
    elif at_once and catch_all is not None and not _is_known(catch_all, options, access):
        refuse_to_start(f"--catch-all {catch_all}: there is no such user")
    domains = options.mail_domains
    plain = Recipients(find, domains=domains, catch_all=catch_all)
    if options["aliases"] is None:
        return plain
    try:
        aliases = AliasFile(options["aliases"], plain.ours, threads.run, reactor, at_once=at_once)
    except (BadAliases, OSError) as error:
        refuse_to_start(f"--aliases {options['aliases']}: {getattr(error, 'strerror', None) or error}")
    return Recipients(find, domains=domains, aliases=aliases, catch_all=catch_all)


def _is_known(user: str, options: Options, access: Access) -> bool:
    """Whether there is this user now, as far as that can be said before anything runs."""
    given = NameIndex({name for name, _ in options["user"]})
    file = access.file
    return given.find(user) is not None or (file is not None and file.spelled_at_start(user) is not None)


def _or_maildir(find: _Find, paths: MaildirPaths, run_in_thread: RunInThread) -> _Find:
    """Whom the accounts do not know may have a Maildir.

    :param paths: which make none: strangers would, for every name they can think of.
    """

    def look(name: str) -> str | None:
        for spelling in dict.fromkeys((name, folded(name))):
            try:
                with paths.opened(spelling) as maildir:
                    # Other folders may be there as well, such as lost+found.
                    if not {"new", "cur"}.isdisjoint(os.listdir(maildir)):
                        return spelling
            except NoSuchMailbox:
                continue
        return None

    def find_or_look(name: str) -> MaybeDeferred[str | None]:
        def unless_known(user: str | None) -> MaybeDeferred[str | None]:
            return run_in_thread(look, name) if user is None else user

        user = find(name)
        return user.addCallback(unless_known) if isinstance(user, Deferred) else unless_known(user)

    return find_or_look


def look_for_postmaster(recipients: Recipients) -> None:
    """RFC 5321 section 4.5.1: there MUST be somebody who reads mail for postmaster."""

    def nobody(why: Failure) -> None:
        why.trap(NoSuchMailbox)
        log.warn("mail for postmaster is refused: give it to somebody with --aliases or --catch-all")

    def trouble(why: Failure) -> None:
        why.trap(StoreTrouble)
        log.warn("mail for postmaster is put off: {why}", why=getattr(why.value, "detail", ""))

    resolving = Deferred.fromCoroutine(recipients.resolve(parse_address("postmaster")))
    resolving.addErrback(nobody).addErrback(trouble)
    resolving.addErrback(lambda why: log.failure("looking for postmaster", why))
