"""The alias file: ``name: target, target``, one alias a line, as in sendmail's."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping

from twisted.logger import Logger

from ..errors import StoreTrouble
from .envelope import Address, parse_address

__all__ = ["AliasFile", "BadAliases", "parse_aliases"]

log = Logger()


class BadAliases(ValueError):
    """The alias file cannot be used; the text says which line and why."""


def parse_aliases(text: str, ours: Callable[[Address], bool]) -> Mapping[str, Collection[str]]:
    """Read aliases.

    A ``#`` at the start of a line makes it a comment; a line that begins with
    a blank goes on with the one before.

    :param ours: whether an address is in our domains: others cannot be targets,
        because nothing is sent on.
    :return: names in lower case, and the targets of each.
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
        name, colon, rest = line.partition(":")
        name = name.strip().lower()
        if not colon or not name:
            raise BadAliases(f'line {number}: expected "name: target, target"')
        if name in aliases:
            raise BadAliases(f"line {number}: {name} is there twice")
        targets = tuple(target.strip() for target in rest.split(",") if target.strip())
        if not targets:
            raise BadAliases(f"line {number}: {name} has no target")
        for target in targets:
            try:
                address = parse_address(target)
                if address.local.startswith(("|", "/", ":")):
                    raise ValueError
            except ValueError:
                why = "is no user or address (files, commands and includes are not supported)"
                raise BadAliases(f"line {number}: {target!r} {why}") from None
            if not ours(address):
                raise BadAliases(f"line {number}: {target} is elsewhere, and this server sends nothing on")
        aliases[name] = targets
    return aliases


class AliasFile:
    """The aliases of a file, read again when it changes.

    A file that has become unusable is told in the log, and the aliases stay as
    they were: a slip in an editor must not bounce mail.

    :param at_once: whether it must be usable now; else mail waits until it is.
    :raises BadAliases: if it is unusable in the first place, and must be.
    :raises OSError: if it cannot be read in the first place, and must be.
    """

    def __init__(self, path: str, ours: Callable[[Address], bool], *, at_once: bool = True) -> None:
        self._path = path
        self._ours = ours
        self._seen: tuple[int, int, int] | None = None
        self._aliases: Mapping[str, Collection[str]] | None = None
        try:
            self._seen = self._stamp()
            self._aliases = self._read()
        except (OSError, BadAliases) as error:
            if at_once:
                raise
            self._tell(error)

    def __call__(self) -> Mapping[str, Collection[str]]:
        """The aliases as they are now.

        :raises pop3toy.errors.StoreTrouble: if they were never usable.
        """
        try:
            stamp = self._stamp()
            if stamp != self._seen:
                # Told once for each change, not for each message.
                self._seen = stamp
                self._aliases = aliases = self._read()
                log.info("aliases read again: {count}", count=len(aliases))
        except (OSError, BadAliases) as error:
            self._tell(error)
        if self._aliases is None:
            raise StoreTrouble("aliases are not known at the moment")
        return self._aliases

    def _tell(self, error: Exception) -> None:
        log.error("alias file {path} is not usable: {error}", path=self._path, error=error)

    def _stamp(self) -> tuple[int, int, int]:
        status = os.stat(self._path)
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> Mapping[str, Collection[str]]:
        with open(self._path, encoding="utf-8") as file:
            try:
                return parse_aliases(file.read(), self._ours)
            except UnicodeDecodeError:
                raise BadAliases("it is not UTF-8") from None
