"""A file of faults (TOML 1.0), for ``twistd pop3toy --faults FILE``.

seed = 7

[[fault]]
kind = "drop"
command = "RETR"
nth = 2
octets = 100
"""

from __future__ import annotations

import os
import re
import stat
from typing import Any, NamedTuple

from ...config.toml import decoded, parsed
from ...errors import BadSetting, CannotStart
from .gate import Faults
from .rules import BadFault

__all__ = ["FaultFile", "check_small", "read_faults"]

#: Octets of a file.
_MOST = 1 << 20


class FaultFile(NamedTuple):
    """What a file says."""

    faults: Faults
    #: The path of the certificate and key that bad certificates are signed by, if it gives one.
    authority: str | None


def check_small(path: str) -> None:
    """See that a path is that of a file which can be read as a whole: no device, no pipe.

    :raises pop3toy.errors.CannotStart: if not.
    :raises OSError: if it is not there.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise CannotStart(f"{path}: this is no file")
    if found.st_size > _MOST:
        raise CannotStart(f"{path}: this has more than {_MOST >> 20} MiB")


def read_faults(path: str) -> FaultFile:
    """Read a file of faults.

    :raises pop3toy.errors.CannotStart: if it cannot be read, or says what cannot be: with the line.
    """
    try:
        check_small(path)
        with open(path, "rb") as file:
            text = decoded(path, file.read())
    except OSError as error:
        raise BadSetting("faults", f" {path}: {(error.strerror or str(error)).lower()}") from error
    tables = parsed(path, text)
    places = _Places(path, text)
    seed = tables.pop("seed", None)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise places.wrong("seed is a whole number", "seed")
    authority = tables.pop("authority", None)
    if authority is not None:
        if not isinstance(authority, str):
            raise places.wrong(
                "authority is the name of a PEM file with a certificate and its key", "authority"
            )
        authority = os.path.join(os.path.dirname(os.path.abspath(path)), authority)
    rules = tables.pop("fault", [])
    for key in tables:
        raise places.wrong(f"there is no {key!r} here: each fault is a table [[fault]]", key)
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise places.wrong("each fault is a table of its own: [[fault]]", "fault")
    faults = Faults(seed)
    for at, rule in enumerate(rules):
        try:
            _add(faults, dict(rule))
        except BadFault as why:
            raise places.wrong(str(why), why.key, at) from None
    return FaultFile(faults, authority)


def _add(faults: Faults, rule: dict[str, Any]) -> None:
    kind = rule.pop("kind", None)
    if not isinstance(kind, str):
        raise BadFault('a fault needs a kind, as in kind = "drop"', "kind" if kind is not None else "")
    faults.add(kind, **rule)


class _Places:
    """Which line a mistake is in; TOML's reader does not tell."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()
        self._rules = [
            number for number, line in enumerate(self._lines) if re.match(r"\s*\[\[\s*[\"']?fault\b", line)
        ]

    def wrong(self, text: str, key: str, rule: int | None = None) -> CannotStart:
        """What is wrong, with the line of a key of the n-th rule, or of the file's first tables."""
        begin, end = 0, len(self._lines)
        if rule is None:
            end = self._rules[0] if self._rules and key != "fault" else end
        elif rule < len(self._rules):
            begin = self._rules[rule]
            end = self._rules[rule + 1] if rule + 1 < len(self._rules) else end
        pattern = rf"\s*\[*\s*[\"']?{re.escape(key)}[\"']?\s*[=.\]]"
        line = next((n for n in range(begin, end) if key and re.match(pattern, self._lines[n])), begin)
        return CannotStart(f"{self._path}:{line + 1}: {text}")
