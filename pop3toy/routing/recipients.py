"""From an address to the users who get the mail: domains, aliases, plus, catch-all.

Knows no SMTP and no store.  Who is a user says ``find``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from ipaddress import ip_address
from typing import Final, TypeAlias

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from ..addresses import Address, folded, ip_literal, parse_address
from ..errors import NoSuchMailbox, NotOurs, StoreTrouble
from ..interfaces import IRecipientResolver, MaybeDeferred
from .aliases import Aliases

__all__ = ["RecipientResolver"]

#: Names that an alias may lead through before it counts as a circle.
ALIAS_DEPTH: Final = 10

log = Logger()

#: An alias, and a target of it that leads to no user.
_DeadEnd: TypeAlias = tuple[str, str]


@implementer(IRecipientResolver)
class RecipientResolver:
    """Says whose an address is.

    :param find: the user whom a name means, as the accounts spell it, or ``None``.
        It is asked for ``local@domain`` first, then for the local part alone; in
        which case names are found is its own affair.
    :param domains: whose mail is taken, at least one; an address without a domain
        is in the first.
    :param aliases: the aliases as they are now.
    :param catch_all: the user who gets what nobody else in our domains gets.
    :param any_domain: take mail for every domain there is: a mail trap.
    """

    def __init__(
        self,
        find: Callable[[str], MaybeDeferred[str | None]],
        *,
        domains: Sequence[str] = ("localhost",),
        aliases: Callable[[], MaybeDeferred[Aliases]] = dict,
        catch_all: str | None = None,
        any_domain: bool = False,
    ) -> None:
        self._find = find
        self._first_domain = domains[0]
        self._domains = frozenset(_spelled(domain) for domain in domains)
        self._aliases = aliases
        self._catch_all = catch_all
        self._any_domain = any_domain

    def ours(self, address: Address) -> bool:
        """Whether mail for this address is taken at all."""
        return self._any_domain or not address.domain or _spelled(address.domain) in self._domains

    def at_home(self, address: Address, here: Collection[str]) -> Address:
        """The address in our first domain if its own is another name of this host, else as it is.

        :param here: this host's names and IP addresses, beside ``localhost`` and the loopback addresses.
        """
        domain = _spelled(address.domain)
        names = {"localhost", *map(_spelled, here)}
        if self.ours(address) or not (domain in names or _is_own(domain)):
            return address
        return self.in_full(address._replace(domain="", written=address.local))

    def in_full(self, address: Address) -> Address:
        """The address with its domain, for headers: RFC 5322 knows none without."""
        if address.domain:
            return address
        domain = self._first_domain
        return Address(address.local, domain, f"{address.written}@{domain}")

    async def resolve(self, address: Address) -> tuple[str, ...]:
        """The users who get mail for this address, each once, at least one.

        :raises pop3toy.errors.NotOurs: if it would have to be sent on: there is no relaying.
        :raises pop3toy.errors.NoSuchMailbox: if it is ours and nobody's.
        :raises pop3toy.errors.StoreTrouble: if nobody can say so now, or if it is an alias that
            leads to no user.
        """
        if not self.ours(address):
            raise NotOurs
        aliases = self._aliases()
        if isinstance(aliases, Deferred):
            aliases = await aliases
        dead: list[_DeadEnd] = []
        users = await self._users(self.in_full(address), aliases, (), dead)
        for alias, target in dead:
            log.error("alias {alias!r} names {target!r}, which leads to no user", alias=alias, target=target)
        if dead and not users:
            # A slip of the administrator's: it is no sender's fault, and nobody else's mail.
            raise StoreTrouble(detail=f"the alias {dead[-1][0]!r} leads to no user")
        if not users and self._catch_all is not None:
            users = (await self._found(self._catch_all),)
        if not users:
            raise NoSuchMailbox
        return tuple(dict.fromkeys(users))

    async def dead_ends(self, alias: str, aliases: Aliases) -> Sequence[str]:
        """The targets of an alias that lead to no user, in a circle for example, whatever the domain.

        :raises pop3toy.errors.StoreTrouble: if nobody can say so now.
        """
        dead = list(aliases[alias])
        _, at, own_domain = alias.rpartition("@")
        for domain in [own_domain] if at else self._domains:
            found: list[_DeadEnd] = []
            await self._behind(alias, domain, aliases, (), found)
            dead = [target for target in dead if (alias, target) in found]
        return dead

    async def _found(self, catch_all: str) -> str:
        user = await self._asked(catch_all)
        if user is None:
            # An account may go while the server runs; what it was meant for waits.
            raise StoreTrouble(detail=f"the user who gets what nobody else gets, {catch_all!r}, is no user")
        return user

    async def _asked(self, name: str) -> str | None:
        user = self._find(name)
        return await user if isinstance(user, Deferred) else user

    async def _users(
        self, address: Address, aliases: Aliases, through: tuple[str, ...], dead: list[_DeadEnd]
    ) -> tuple[str, ...]:
        # As it is written first: somebody may have a plus in the name.  Then
        # without "+detail" (RFC 5233 calls it subaddressing).
        for name in dict.fromkeys((address.local, address.local.partition("+")[0])):
            users = await self._named(name, address.domain, aliases, through, dead) if name else ()
            if users:
                return users
        return ()

    async def _named(
        self, name: str, domain: str, aliases: Aliases, through: tuple[str, ...], dead: list[_DeadEnd]
    ) -> tuple[str, ...]:
        in_full = f"{name}@{folded(domain)}"
        for alias in (in_full.lower(), name.lower()):
            # "ann: ann, bob" gives ann's mail to both: within itself an alias is the user.
            if alias in aliases and alias not in through and len(through) < ALIAS_DEPTH:
                return await self._behind(alias, domain, aliases, through, dead)
        # RFC 5321 section 2.4 leaves it to us whether the case of a local part counts.
        for spelling in (in_full, name):
            user = await self._asked(spelling)
            if user is not None:
                return (user,)
        return ()

    async def _behind(
        self, alias: str, domain: str, aliases: Aliases, through: tuple[str, ...], dead: list[_DeadEnd]
    ) -> tuple[str, ...]:
        users: tuple[str, ...] = ()
        for target in aliases[alias]:
            address = parse_address(target)
            if not address.domain:
                address = address._replace(domain=domain)
            found = await self._users(address, aliases, (*through, alias), dead)
            if not found:
                dead.append((alias, target))
            users += found
        return users


def _spelled(domain: str) -> str:
    """One spelling for a domain, which may be an IP address, with or without brackets."""
    literal = ip_literal(domain)
    return str(literal) if literal is not None else folded(domain)


def _is_own(address: str) -> bool:
    """Whether it is an IP address that means this host wherever it is said."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    return ip.is_loopback or ip.is_unspecified
