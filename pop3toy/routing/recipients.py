"""From an address to the users who get its mail: domains, aliases, subaddresses (``+``), catch-all.

Knows no SMTP and no store; the users are found by a function that is handed in.
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

#: Aliases that may lead to one another before they count as a loop.
ALIAS_DEPTH: Final = 10

log = Logger()

#: An alias, and a target of it that leads to no user.
_DeadEnd: TypeAlias = tuple[str, str]


@implementer(IRecipientResolver)
class RecipientResolver:
    """Resolves addresses to users.

    :param find: the user whom a name means, as the accounts spell it, or ``None``.
        It is called with ``local@domain`` first, then with the local part alone, and decides whether
        case counts.
    :param domains: whose mail is taken, at least one; an address without a domain
        is in the first.
    :param aliases: the aliases as they are now.
    :param catch_all: the user who gets mail for addresses in our domains that have no user.
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
        self._aliases = aliases
        self._any_domain = any_domain
        self.use(domains, catch_all)

    def use(self, domains: Sequence[str], catch_all: str | None) -> None:
        """From now on these domains and this user, for the meaning of which see above."""
        self._first_domain = domains[0]
        self._domains = frozenset(_spelled(domain) for domain in domains)
        self._catch_all = catch_all

    def ours(self, address: Address) -> bool:
        """Whether mail for this address is taken at all."""
        domain = address.domain
        # Most senders write a domain as it is spelled here.
        return self._any_domain or not domain or domain in self._domains or _spelled(domain) in self._domains

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
        return Address(address.local, self._first_domain, f"{address.written}@{self._first_domain}")

    async def resolve(self, address: Address) -> tuple[str, ...]:
        """The users who get mail for this address, each once, at least one.

        :raises pop3toy.errors.NotOurs: if it would have to be sent on: there is no relaying.
        :raises pop3toy.errors.NoSuchMailbox: if it is in our domains and has no user.
        :raises pop3toy.errors.StoreTrouble: if accounts or aliases cannot be read now, or for an
            alias that leads to no user.
        """
        if not self.ours(address):
            raise NotOurs
        aliases = self._aliases()
        if isinstance(aliases, Deferred):
            aliases = await aliases
        dead: list[_DeadEnd] = []
        users = await self._users(address.local, address.domain or self._first_domain, aliases, (), dead)
        for alias, target in dead:
            log.error("alias {alias!r} names {target!r}, which leads to no user", alias=alias, target=target)
        if dead and not users:
            # A mistake of the administrator's: no reason to return mail, or to give it to catch-all.
            raise StoreTrouble(detail=f"the alias {dead[-1][0]!r} leads to no user")
        if not users and self._catch_all is not None:
            user = self._find(self._catch_all)
            if isinstance(user, Deferred):
                user = await user
            if user is None:
                # An account may go while the server runs; its mail waits.
                raise StoreTrouble(detail=f"the user of catch-all, {self._catch_all!r}, is no user")
            users = (user,)
        if not users:
            raise NoSuchMailbox
        return tuple(dict.fromkeys(users))

    async def dead_ends(self, alias: str, aliases: Aliases) -> Sequence[str]:
        """The targets of an alias that lead to no user in any domain; some lead to themselves.

        :raises pop3toy.errors.StoreTrouble: if the accounts cannot be read now.
        """
        dead = list(aliases[alias])
        _, at, own_domain = alias.rpartition("@")
        for domain in [own_domain] if at else self._domains:
            found: list[_DeadEnd] = []
            await self._behind(alias, domain, aliases, (), found)
            dead = [target for target in dead if (alias, target) in found]
        return dead

    async def _users(
        self, local: str, domain: str, aliases: Aliases, through: tuple[str, ...], dead: list[_DeadEnd]
    ) -> tuple[str, ...]:
        """The users behind an address.

        :param through: the aliases that led to it.
        :param dead: is given the targets of aliases that lead to no user.
        """
        # As it is written first: a user may have a plus in the name.  Then
        # without "+detail" (RFC 5233 calls it subaddressing).
        for name in filter(None, dict.fromkeys((local, local.partition("+")[0]))):
            in_full = f"{name}@{folded(domain)}"
            for alias in (in_full.lower(), name.lower()):
                # "ann: ann, bob" gives ann's mail to both: within itself an alias is the user.
                if alias in aliases and alias not in through and len(through) < ALIAS_DEPTH:
                    if users := await self._behind(alias, domain, aliases, through, dead):
                        return users
                    break
            else:
                # RFC 5321 section 2.4 leaves it to us whether the case of a local part counts.
                for spelling in (in_full, name):
                    user = self._find(spelling)
                    if isinstance(user, Deferred):
                        user = await user
                    if user is not None:
                        return (user,)
        return ()

    async def _behind(
        self, alias: str, domain: str, aliases: Aliases, through: tuple[str, ...], dead: list[_DeadEnd]
    ) -> tuple[str, ...]:
        users: tuple[str, ...] = ()
        for target in aliases[alias]:
            address = parse_address(target)
            found = await self._users(
                address.local, address.domain or domain, aliases, (*through, alias), dead
            )
            if not found:
                dead.append((alias, target))
            users += found
        return users


def _spelled(domain: str) -> str:
    """One spelling for a domain, which may be an IP address in brackets."""
    literal = ip_literal(domain)
    return str(literal) if literal is not None else folded(domain)


def _is_own(address: str) -> bool:
    """Whether it is an IP address that means this host on every host."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    return ip.is_loopback or ip.is_unspecified
