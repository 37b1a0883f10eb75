"""What an administrator says of a store of Maildirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...option import FLAG, REQUIRED, Kind, check, number, option

__all__ = ["Maildirs"]


def _pattern(text: str) -> str:
    if not text:
        raise ValueError(" is empty")
    if "{" in text.replace("{user}", ""):
        raise ValueError(" needs {user} in its path, where the user's name goes")
    return text


@dataclass(frozen=True)
class Maildirs:
    """Real mail, in a Maildir for each user.

    :raises pop3toy.errors.BadSetting: for a value that cannot be.
    """

    table: ClassVar[str] = "store"

    path: str = option(
        "Serve the Maildirs at this path, with {user} where the user's name goes:"
        " '/srv/mail/{user}' or '/home/{user}/Maildir'.",
        REQUIRED,
        name="maildir",
        kind=Kind(_pattern, "PATH", path=lambda text: not text.startswith("~")),
        short="m",
    )
    create: bool = option(
        "Make a user's missing mailbox at the first login or delivery, instead of refusing.",
        False,
        kind=FLAG,
    )
    max_listed_size: int = option(
        "The octets that a message's file may have to be counted when its name does not tell its size"
        " (default 2147483648); a larger one is listed by its size on the disk, and logged.",
        2 * 1024**3,
        kind=number(0, 10**14),
    )

    undo_days: int | None = option(
        "Keep messages that POP3 deletes in the Maildir for this many days, counted against no quota: until"
        " then `pop3toy mailbox undo` puts them back. Default: they are removed at once; 0 removes what is"
        " still kept, too.",
        kind=number(0, 3650),
        example=7,
    )

    def __post_init__(self) -> None:
        """Check the values."""
        check(self)

    @property
    def for_each_user(self) -> bool:
        """Whether each user has one; else all share it."""
        return "{user}" in self.path
