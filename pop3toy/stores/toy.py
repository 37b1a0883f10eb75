"""What may be said of the toy's store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..option import PATH, check, option

__all__ = ["Toy"]


@dataclass(frozen=True)
class Toy:
    """One built-in message for each user, in memory; what is deleted stays so until the next start.

    :raises pop3toy.errors.BadSetting: for a value that cannot be.
    """

    table: ClassVar[str] = "store"
    #: The accounts that it has without further words: everybody knows them.
    for_each_user: ClassVar[bool] = True

    messages: tuple[str, ...] = option(
        "A message for the built-in mailbox, instead of the one that says hello: a file as a mail program"
        " saves it (.eml).",
        name="message",
        kind=PATH,
        many=True,
    )

    def __post_init__(self) -> None:
        """Check the values."""
        check(self)
