"""Several checkers as one, because a Portal takes one checker for each kind of credentials.

A login that the first checker refuses is tried with the next, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IAnonymous, IUsernameHashedPassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.interface import InterfaceClass

from ..errors import StoreTrouble
from ..interfaces import Channel, MaybeDeferred
from .accounts.verifier import Verifier
from .accounts.watched import not_now
from .credentials import AvatarId
from .maybe_deferred import maybe_deferred, resolved
from .sources import IAccountSource, make_dummy_verifier
from .strcred import repaired

__all__ = ["AnyOf"]


@implementer(ICredentialsChecker, IAccountSource)
class AnyOf:
    """Accepts credentials that one of these checkers accepts.

    A failure goes through all of them, so that it takes the same time for a
    user of the first and of none.

    :param checkers: any checkers; those that provide
        :class:`~pop3toy.auth.sources.IAccountSource` are asked as such too.
    """

    def __init__(self, checkers: Iterable[ICredentialsChecker]) -> None:
        self._checkers: list[Any] = [repaired(checker) for checker in checkers]
        self._sources: list[IAccountSource] = [c for c in self._checkers if IAccountSource.providedBy(c)]
        interfaces = (interface for checker in self._checkers for interface in _takes(checker))
        self.credentialInterfaces = tuple(dict.fromkeys(interfaces))
        #: The exact name if one of them has it, else as they spell it, if they do so in one way alone.
        #: Raises (or fails with) :class:`~pop3toy.errors.StoreTrouble` if one of them is in trouble and
        #: no other has the exact name.
        self.canonical_name: Callable[[str], MaybeDeferred[str | None]] = (
            self._sources[0].canonical_name if len(self._sources) == 1 else self._canonical_name
        )

    @property
    def knows_all(self) -> bool:
        """Whether every user that can log in, visitors aside, is known to ``canonical_name``."""
        return bool(self._sources) and all(
            checker.knows_all
            if isinstance(checker, AnyOf)
            else checker in self._sources or _takes(checker) == (IAnonymous,)
            for checker in self._checkers
        )

    def requestAvatarId(self, credentials: object) -> AvatarId:
        """What the first checker says that does not refuse; at once or as a Deferred.

        :raises twisted.cred.error.UnauthorizedLogin: (or fails with) if all refuse.
        """
        able = [c for c in self._checkers if any(taken.providedBy(credentials) for taken in _takes(c))]
        return _ask(able, credentials)

    def has_plaintext(self) -> bool:
        """Whether some user's password is known to one of them.

        A checker that does not say more is believed what it says it takes.
        """
        return any(
            checker.has_plaintext()
            if checker in self._sources
            else IUsernameHashedPassword in _takes(checker)
            for checker in self._checkers
        )

    def cram_md5(self) -> bool:
        """Whether CRAM-MD5 can work for some user of one of them, as far as they say."""
        return self.has_plaintext() or any(source.cram_md5() for source in self._sources)

    def scram_hashes(self) -> frozenset[str]:
        """The hashes with which SCRAM can work for some user of one of them."""
        return frozenset().union(*(source.scram_hashes() for source in self._sources))

    @maybe_deferred
    async def verifier(self, user: str, hash_name: str) -> Verifier | None:
        """The first one's that has one.  All are asked, so that it takes the same time for everybody."""
        found = [await resolved(source.verifier(user, hash_name)) for source in self._sources]
        return next((verifier for verifier in found if verifier is not None), None)

    def dummy_verifier(self, user: str, hash_name: str) -> Verifier:
        """As the first source makes it that has users of SCRAM."""
        for source in self._sources:
            if hash_name in source.scram_hashes():
                dummy: Verifier = source.dummy_verifier(user, hash_name)
                return dummy
        return make_dummy_verifier(b"", user, hash_name)

    @maybe_deferred
    async def _canonical_name(self, user: str) -> str | None:
        # As the sources give them: a name may bring along what was found with it.
        names: dict[str, str] = {}
        troubles: list[StoreTrouble] = []
        for source in self._sources:
            try:
                name = await resolved(source.canonical_name(user))
            except StoreTrouble as trouble:
                # The user may be another's.
                troubles.append(trouble)
            else:
                if name is not None:
                    names[name] = name
        if user in names:
            return names[user]
        if troubles:
            raise troubles[0]
        return next(iter(names.values())) if len(names) == 1 else None

    def has_addresses(self) -> bool:
        """Whether some user's name is a mail address."""
        return any(source.has_addresses() for source in self._sources)

    @maybe_deferred
    async def login_allowed(self, user: str, channel: Channel | None) -> bool:
        """Whether the user may log in by all of them."""
        return all([await resolved(source.login_allowed(user, channel)) for source in self._sources])

    def in_doubt(self) -> bool:
        """Whether one of them is."""
        return any(source.in_doubt() for source in self._sources)

    def be_sure(self) -> None:
        """Called before a login is refused: that is certain only while no accounts are being written.

        :raises pop3toy.errors.StoreTrouble: if some are, which does not count as a wrong guess.
        """
        if self.in_doubt():
            raise not_now("the accounts are being written")


def _takes(checker: object) -> tuple[InterfaceClass, ...]:
    return tuple(getattr(checker, "credentialInterfaces", ()))


def _ask(checkers: list[ICredentialsChecker], credentials: object) -> AvatarId:
    if not checkers:
        raise UnauthorizedLogin
    first, *others = checkers
    try:
        answer = first.requestAvatarId(credentials)
    except UnauthorizedLogin:
        return _ask(others, credentials)
    if isinstance(answer, Deferred):
        answer.addErrback(_ask_others, others, credentials)
    return answer


def _ask_others(why: Failure, others: list[ICredentialsChecker], credentials: object) -> AvatarId:
    why.trap(UnauthorizedLogin)
    return _ask(others, credentials)
