"""From an address to the users who get the mail: domains, aliases, plus, catch-all.

Knows no SMTP and no store.  Who is a user says ``find``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..errors import NoSuchMailbox
from ..interfaces import MaybeDeferred
from . import limits
from .envelope import Address, parse_address

__all__ = ["NotOurs", "Recipients", "find_by"]

log = Logger()


def find_by(exists: Callable[[str], MaybeDeferred[bool]]) -> Callable[[str], MaybeDeferred[str | None]]:
    """The ``find`` of :class:`Recipients`, by accounts that only say whether somebody exists."""

    def find(name: str) -> MaybeDeferred[str | None]:
        known = exists(name)
        if isinstance(known, Deferred):
            return known.addCallback(lambda yes: name if yes else None)
        return name if known else None

    return find


class NotOurs(Exception):
    """The address is in a domain that this server does not take mail for."""


class Recipients:
    """Says whose an address is.

    :param find: the user whom a local part names, as the accounts spell the
        name, or ``None``.  It is asked with the local part as it was written,
        and then in lower case.
    :param domains: whose mail is taken; an address without a domain is ours.
    :param aliases: the aliases as they are now: names in lower case, and for
        each the users, aliases or addresses that stand for it.
    :param catch_all: the user who gets what nobody else in our domains gets.
    :param any_domain: take mail for every domain there is: a mail trap.
    """

    def __init__(
        self,
        find: Callable[[str], MaybeDeferred[str | None]],
        *,
        domains: Collection[str] = ("localhost",),
        aliases: Callable[[], Mapping[str, Collection[str]]] = dict,
        catch_all: str | None = None,
        any_domain: bool = False,
    ) -> None:
        self._find = find
        self._domains = frozenset(_folded(domain) for domain in domains)
        self._aliases = aliases
        self._catch_all = catch_all
        self._any_domain = any_domain

    def ours(self, address: Address) -> bool:
        """Whether mail for this address is taken at all."""
        return self._any_domain or not address.domain or _folded(address.domain) in self._domains

    async def resolve(self, address: Address) -> tuple[str, ...]:
        """The users who get mail for this address, each once, at least one.

        :raises NotOurs: if it would have to be sent on: there is no relaying.
        :raises pop3toy.errors.NoSuchMailbox: if it is ours and nobody's.
        """
        if not self.ours(address):
            raise NotOurs
        users = await self._users(address.local, ())
        if not users and self._catch_all is not None:
            users = (self._catch_all,)
        if not users:
            raise NoSuchMailbox
        return tuple(dict.fromkeys(users))

    async def _users(self, local: str, through: tuple[str, ...]) -> tuple[str, ...]:
        # As it is written first: somebody may have a plus in the name.  Then
        # without "+detail" (RFC 5233 calls it subaddressing).
        for name in dict.fromkeys((local, local.partition("+")[0])):
            users = await self._named(name, through)
            if users:
                return users
        return ()

    async def _named(self, name: str, through: tuple[str, ...]) -> tuple[str, ...]:
        alias = name.lower()
        targets = self._aliases().get(alias, ())
        # "ann: ann, bob" gives ann's mail to both: within itself an alias is the user.
        if targets and alias not in through and len(through) < limits.ALIAS_DEPTH:
            users: tuple[str, ...] = ()
            for target in targets:
                found = await self._users(parse_address(target).local, (*through, alias))
                if not found:
                    log.error("alias {alias!r} names {target!r}, who is no user", alias=alias, target=target)
                users += found
            return users
        # RFC 5321 section 2.4 leaves it to us whether the case of a local part counts.
        for spelling in dict.fromkeys((name, name.lower())):
            user = self._find(spelling) if spelling else None
            if isinstance(user, Deferred):
                user = await user
            if user is not None:
                return (user,)
        return ()


def _folded(domain: str) -> str:
    """One spelling for a domain: lower case, IDNA's ASCII form, no final dot."""
    domain = domain.rstrip(".").lower()
    try:
        return domain.encode("idna").decode("ascii")
    except UnicodeError:
        return domain
