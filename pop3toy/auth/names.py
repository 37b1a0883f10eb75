"""Which account is meant by the name that a client claims.

The one place that says when two names are the same user's: for every mechanism,
for addresses, and for whatever is counted by user.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection

from ..addresses import folded as folded_domain
from ..interfaces import MaybeDeferred
from .maybe_deferred import maybe_deferred, resolved

__all__ = ["LoginNames", "NameIndex", "folded"]

#: Characters of a name that are looked at: no account and no address has more, and
#: normalizing thousands of combining characters would take the reactor's time.
_LONGEST = 1000


def folded(name: str) -> str:
    """One spelling for all that differ by case or by Unicode form alone (NFC, NFD, full width)."""
    if name.isascii():
        return name.lower()
    if len(name) > _LONGEST:
        return name
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


class NameIndex:
    """Finds names: as they are written, else however they are spelled, where one name alone is.

    :param names: all there are; looked at once, and kept.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        # Those that are written otherwise than :func:`folded` writes them; few, as a rule.
        self._others: dict[str, tuple[str, ...]] = {}
        #: Whether some are mail addresses.
        self.has_addresses = False
        for name in names:
            self.has_addresses |= "@" in name
            if (key := folded(name)) != name:
                self._others[key] = (*self._others.get(key, ()), name)

    def find(self, name: str) -> str | None:
        """The name as it stands in the index, or ``None``."""
        if name in self._names:
            return name
        key = folded(name)
        found = self._others.get(key, ())
        if key in self._names:
            found = (*found, key)
        return found[0] if len(found) == 1 else None


class LoginNames:
    """Says which account a claimed name means.

    :param canonical_name: finds the account of a name in whatever case, as
        :class:`~pop3toy.auth.sources.IAccountSource` does.
    :param has_addresses: whether some accounts are named by mail addresses.
    :param domains: mail domains of the users: behind an account's name, ``@`` and
        one of these may stand.
    """

    def __init__(
        self,
        canonical_name: Callable[[str], MaybeDeferred[str | None]],
        has_addresses: Callable[[], bool],
        domains: Collection[str] = (),
    ) -> None:
        self._canonical_name = canonical_name
        self._has_addresses = has_addresses
        self._domains = frozenset(map(folded_domain, domains))

    def account(self, claimed: str) -> MaybeDeferred[str | None]:
        """The account's name; ``None`` if there is none of which that can be said.

        As deliveries find a user: the whole address first, then what stands before
        the domain.  All are asked for, so that it takes the same time for everybody.

        :raises pop3toy.errors.StoreTrouble: (or fails with) if the accounts cannot be read.
        """
        if "@" in claimed:
            local, domain = self._split(claimed)
            if domain:
                return self._address(claimed, local, domain)
        return self._canonical_name(claimed)

    @maybe_deferred
    async def _address(self, claimed: str, local: str, domain: str) -> str | None:
        names = dict.fromkeys((claimed, f"{local}@{domain}", local))
        found = [await resolved(self._canonical_name(name)) for name in names]
        return next(filter(None, found), None)

    def key(self, claimed: str) -> str:
        """One word for all spellings of a name, to count by; of no meaning beyond that."""
        claimed = claimed[:_LONGEST]
        return folded(self._split(claimed)[0] if "@" in claimed else claimed)

    def dummy_name(self, claimed: str) -> str:
        """One word for all spellings that would mean the same account, if there were one.

        With accounts that are named by addresses, a local part alone means another.
        """
        local, domain = self._split(claimed)
        return folded(f"{local}@{domain}" if domain and self._has_addresses() else local)

    def _split(self, claimed: str) -> tuple[str, str]:
        """The local part and the folded domain, if it is one of ours; else the whole and nothing."""
        if self._domains:
            local, _, domain = claimed.rpartition("@")
            # RFC 1035 section 2.3.4 has 255 octets for a domain.
            if local and len(domain) <= 255 and (domain := folded_domain(domain)) in self._domains:
                return local, domain
        return claimed, ""
