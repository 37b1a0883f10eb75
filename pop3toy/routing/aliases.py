"""The alias file: ``name: target, target``, one alias a line, as in sendmail's."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeAlias

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..addresses import Address, folded, parse_address
from ..clock import steady
from ..errors import StoreTrouble
from ..interfaces import MaybeDeferred
from ..net.threads import RunInThread
from ..net.watched_file import is_unchanged, read

__all__ = ["AliasFile", "Aliases", "BadAliases", "parse_aliases"]

#: Seconds between two looks at the alias file: an administrator hardly notices the delay of a change,
#: and a flood of mail does not become a flood of looks.
ALIAS_LOOK: Final = 1.0

log = Logger()

#: For each name in lower case (``info``, or ``info@example.org`` for that domain
#: alone) the users, aliases or addresses that stand for it.
Aliases: TypeAlias = Mapping[str, Collection[str]]

#: For :func:`is_unchanged`, and the aliases if they are known.
_Reading = tuple[object, Aliases | None]


class BadAliases(ValueError):
    """The alias file cannot be used; the text says which line and why."""


def parse_aliases(text: str, ours: Callable[[Address], bool]) -> Aliases:
    """Read aliases.

    A ``#`` at the start of a line makes it a comment; a line that begins with
    a blank goes on with the one before.

    :param ours: whether an address is in our domains: others cannot be names,
        because their mail does not come here, nor targets, because nothing is
        sent on.
    :raises BadAliases: with the number of the line.
    """
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line[0] in " \t":
            if not lines:
                raise BadAliases(f"line {number}: begins with a blank, but there is no line to go on with")
            lines[-1] = (lines[-1][0], f"{lines[-1][1]} {line}")
        else:
            lines.append((number, line))
    aliases: dict[str, tuple[str, ...]] = {}
    for number, line in lines:
        try:
            name, targets = _alias(line, ours)
            if name in aliases:
                raise ValueError(f"{name} is there twice")
        except ValueError as error:
            raise BadAliases(f"line {number}: {error}") from None
        aliases[name] = targets
    return aliases


def _alias(line: str, ours: Callable[[Address], bool]) -> tuple[str, tuple[str, ...]]:
    name, colon, rest = line.partition(":")
    name = name.strip()
    if not colon or not name:
        raise ValueError('expected "name: target, target"')
    try:
        address = parse_address(name)
    except ValueError:
        raise ValueError(f"{name!r} is no name and no address") from None
    if not ours(address):
        raise ValueError(f"{name} is elsewhere, and its mail does not come here")
    name = address.local.lower() + (f"@{folded(address.domain)}" if address.domain else "")
    targets = tuple(target.strip() for target in rest.split(",") if target.strip())
    if not targets:
        raise ValueError(f"{name} has no target")
    for target in targets:
        try:
            address = parse_address(target)
            if address.local.startswith(("|", "/", ":")):
                raise ValueError
        except ValueError:
            why = "is no user or address (files, commands and includes are not supported)"
            raise ValueError(f"{target!r} {why}") from None
        if not ours(address):
            raise ValueError(f"{target} is elsewhere, and this server sends nothing on")
    return name, targets


class AliasFile:
    """The aliases of a file: read at once, and again in a thread when it has changed.

    If the file becomes unusable the log says so, and the aliases stay as they
    were: a mistake in an editor must not bounce mail.

    :param clock: for the time between two looks.
    :param wall: the file system's time of day, in seconds.
    :param changed: called with the aliases when they have changed.
    :param strict: whether the file must be usable now; else mail waits until it is.
    :raises BadAliases: if it is ``strict`` and the file is not usable now.
    :raises OSError: if it is ``strict`` and the file cannot be read now.
    """

    def __init__(
        self,
        path: str,
        ours: Callable[[Address], bool],
        run_in_thread: RunInThread,
        clock: IReactorTime,
        *,
        strict: bool = True,
        wall: Callable[[], float] = time.time,
        changed: Callable[[Aliases], object] = lambda aliases: None,
    ) -> None:
        self._path = path
        self._changed = changed
        self._ours = ours
        self._run_in_thread = run_in_thread
        self._clock: IReactorTime = steady(clock)
        self._wall = wall
        self._looked = self._clock.seconds()
        self._looking = False
        # What the log said last of what is wrong.
        self._told = ""
        self._signature: object = None
        self._aliases: Aliases | None = None
        try:
            self._signature, self._aliases = self._read(None)
        except (OSError, BadAliases) as error:
            if strict:
                raise
            self._tell(str(error))

    def __call__(self) -> MaybeDeferred[Aliases]:
        """The aliases as they are now, or were a moment ago.

        :raises pop3toy.errors.StoreTrouble: (or fails with) if they were never usable.
        """
        now = self._clock.seconds()
        known = self._aliases is not None
        if self._looking or (known and now - self._looked < ALIAS_LOOK):
            return self._known()
        self._looked, self._looking = now, True
        return self._run_in_thread(self._read, self._signature).addCallbacks(self._seen, self._unusable)

    def read_again(self) -> None:
        """Read the file at the next look, whether it has changed or not: the domains have."""
        self._signature = None

    @property
    def known(self) -> Aliases:
        """The aliases as they were last read; none if they never were."""
        return self._aliases or {}

    def _known(self) -> Aliases:
        if self._aliases is None:
            raise StoreTrouble("aliases are not known at the moment")
        return self._aliases

    def _seen(self, reading: _Reading) -> Aliases:
        self._looking = False
        self._told = ""
        self._signature, aliases = reading
        if aliases is not None and aliases != self._aliases:
            self._aliases = aliases
            log.info("aliases read again: {count}", count=len(aliases))
            self._changed(aliases)
        return self._known()

    def _unusable(self, why: Failure) -> Aliases:
        self._looking = False
        if why.check(OSError, BadAliases) is None:
            log.failure("alias file {path}: a bug", why, path=self._path)
        elif why.getErrorMessage() != self._told:
            self._tell(why.getErrorMessage())
        return self._known()

    def _tell(self, why: str) -> None:
        self._told = why
        log.error("alias file {path} is not usable: {error}", path=self._path, error=why)

    # -- what follows runs in a thread ---------------------------------------------

    def _read(self, before: object) -> _Reading:
        if is_unchanged(self._path, before):
            return before, self._aliases
        content = read(self._path, self._wall)
        if self._aliases is not None and content.being_written:
            # It may be half there: an alias that is missing would bounce mail.
            return None, self._aliases
        try:
            return content.signature, parse_aliases(content.octets.decode("utf-8"), self._ours)
        except UnicodeDecodeError:
            raise BadAliases("it is not UTF-8") from None
