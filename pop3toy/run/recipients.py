"""For which addresses mail is taken, as the settings say: domains, accounts, Maildirs, aliases, catch-all."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple, TypeAlias

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..addresses import parse_address
from ..auth.accounts.accounts_file import AccountsFile
from ..auth.maybe_deferred import map_maybe_deferred
from ..auth.names import NameIndex, folded
from ..config.settings import Settings
from ..errors import BadSetting, NoSuchMailbox, StoreTrouble
from ..interfaces import IStoreAdmin, MaybeDeferred
from ..net.threads import Share, Threads, WorkerThreads
from ..net.types import IReactor
from ..routing.aliases import Aliases, AliasFile, BadAliases
from ..routing.recipients import RecipientResolver
from .access import Access

log = Logger()

__all__ = ["UsersRecipients", "or_mailbox", "recipients_of_all", "recipients_of_users"]

_Find: TypeAlias = Callable[[str], MaybeDeferred[str | None]]

#: Threads that look for Maildirs and at the alias file: small work, but on a disk
#: that may be slow or hang, and apart from the threads that write mail.  Started when there is work.
NAME_THREADS = 32

#: Threads that look for the mailbox of one name, and may hang.
THREADS_OF_A_NAME = 1

#: Seconds that such a look may take.
LOOKING = 10.0

#: Aliases that are looked through before others have their turn: a millisecond's work.
ALIASES_IN_TURN = 50


class UsersRecipients(NamedTuple):
    """For whom mail comes in."""

    resolver: RecipientResolver
    #: Is called with settings that differ in domains and catch-all.
    take: Callable[[Settings], object]


def recipients_of_all(users: Collection[str]) -> RecipientResolver:
    """A mail trap: whatever the domain, users get what is for them, and the first one all the rest."""
    return RecipientResolver(NameIndex(users).find, catch_all=next(iter(users)), any_domain=True)


def recipients_of_users(
    settings: Settings,
    reactor: IReactor,
    server: MultiService,
    access: Access,
    *,
    strict: bool = True,
    admin: IStoreAdmin | None = None,
    warns: bool = False,
) -> UsersRecipients:
    """The users of the accounts, or, where a checker cannot tell who they are, those with a mailbox.

    :param server: whose parts the threads become that look for them.
    :param strict: whether an alias file that cannot be used ends the start.
    :param admin: of the store, where it can tell who has a mailbox.
    :param warns: whether mail that cannot come is told of, when the reactor runs and when aliases change.
    :raises pop3toy.errors.BadSetting: if something that the settings name cannot be used.
    """
    threads = WorkerThreads(reactor, name="names", size=NAME_THREADS)
    threads.setServiceParent(server)
    find: _Find = access.sources.canonical_name
    if isinstance(access.accounts, AccountsFile):
        find = unless_unclear(find, access.accounts)
    catch_all = settings.catch_all
    if not access.sources_know_all and admin is not None:
        find = or_mailbox(find, admin, threads)
    elif strict and catch_all is not None and access.sources_know_all and not access.knows(catch_all):
        raise BadSetting("catch-all", f" {catch_all}: there is no such user")
    aliases: AliasFile | None = None

    def known_aliases() -> MaybeDeferred[Aliases]:
        return {} if aliases is None else aliases()

    recipients = RecipientResolver(
        find, domains=settings.mail_domains, aliases=known_aliases, catch_all=catch_all
    )

    def look_through(changed: Aliases) -> None:
        if warns:
            looking = Deferred.fromCoroutine(_warn_of_dead_ends(recipients, changed, reactor))
            looking.addErrback(lambda why: log.failure("looking through the aliases", why))

    def look() -> None:
        if aliases is not None:
            look_through(aliases.known)
        _look_for_postmaster(recipients)

    if settings.aliases is not None:
        try:
            aliases = AliasFile(
                settings.aliases, recipients.ours, threads.run, reactor, strict=strict, changed=look_through
            )
        except (BadAliases, OSError) as error:
            why = getattr(error, "strerror", None) or error
            raise BadSetting("aliases", f" {settings.aliases}: {why}") from error
    if warns:
        # Names may have to be looked for in threads, which start with the server.
        reactor.callWhenRunning(look)

    def take(new: Settings) -> None:
        recipients.use(new.mail_domains, new.catch_all)
        if aliases is not None:
            aliases.read_again()

    return UsersRecipients(recipients, take)


def unless_unclear(find: _Find, accounts: AccountsFile) -> _Find:
    """Finds a user; mail for one whose line cannot be read waits for somebody to mend it."""

    def find_or_doubt(name: str) -> MaybeDeferred[str | None]:
        def judged(user: str | None) -> str | None:
            if user is None and accounts.is_unclear(name):
                raise StoreTrouble(detail=f"the line of {name} in the accounts file is not understood")
            return user

        return map_maybe_deferred(find(name), judged)

    return find_or_doubt


def or_mailbox(find: _Find, mailboxes: IStoreAdmin, threads: Threads) -> _Find:
    """Finds a user in the accounts, else by a mailbox; a look that hangs holds up that name alone."""

    def look(name: str) -> str | None:
        return next((one for one in dict.fromkeys((name, folded(name))) if mailboxes.exists(one)), None)

    def find_or_look(name: str) -> MaybeDeferred[str | None]:
        def unless_known(user: str | None) -> MaybeDeferred[str | None]:
            if user is not None:
                return user
            return threads.shared([Share(folded(name), THREADS_OF_A_NAME)], within=LOOKING)(look, name)

        user = find(name)
        return user.addCallback(unless_known) if isinstance(user, Deferred) else unless_known(user)

    return find_or_look


async def _warn_of_dead_ends(recipients: RecipientResolver, aliases: Aliases, clock: IReactorTime) -> None:
    """Tell of targets that lead to no user: a slip, unless the user is still to come."""
    for number, alias in enumerate(aliases, 1):
        try:
            dead = await recipients.dead_ends(alias, aliases)
        except StoreTrouble:
            # It is not known now; each mail for the alias tells again.
            return
        for target in dead:
            log.warn(
                "alias {alias!r} names {target!r}, which leads to no user; as long as no target of an alias"
                " does its mail is put off",
                alias=alias,
                target=target,
            )
        if number % ALIASES_IN_TURN == 0:
            await deferLater(clock, 0)


def _look_for_postmaster(recipients: RecipientResolver) -> None:
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
