"""Where settings were written down: a file and a command line, which can be read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import CannotStart
from . import toml
from .settings import Settings
from .table import merged, settings_of

__all__ = ["Said", "Source"]


class Said(NamedTuple):
    """What was read."""

    settings: Settings
    #: What the file says, by the options' names.
    in_file: Mapping[str, object]


@dataclass(frozen=True)
class Source:
    """A file of options, and a command line that wins over it."""

    file: str
    #: By the options' names; may hold passwords.
    given: Mapping[str, object] = field(default_factory=dict, repr=False)

    def read(self) -> Said:
        """Read it now.

        :raises pop3toy.errors.CannotStart: with what is wrong, and where.
        """
        in_file = toml.read(self.file)
        try:
            settings = settings_of(merged(in_file, self.given))
            settings.check_whole()
        except CannotStart as why:
            raise CannotStart(self.located(why, in_file)) from None
        return Said(settings, in_file)

    def located(self, why: CannotStart, in_file: Mapping[str, object]) -> str:
        """What is wrong, with its place if it is in the file."""
        return toml.located(why, self.file, in_file, self.given)
