"""A folder of letters, read at the start: each ``.eml`` file is in every user's maildrop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..option import PATH, check, option
from .memory import MemoryStore


@dataclass(frozen=True)
class Letters:
    """Where the letters are."""

    table: ClassVar[str] = "store"
    for_each_user: ClassVar[bool] = True

    path: str | None = option("A folder of .eml files for every user.", name="letters", kind=PATH)

    def __post_init__(self) -> None:
        """Check the values."""
        check(self)


def letters_store(path: str, users: Iterable[str]) -> MemoryStore:
    """The store; what is deleted is there again after the next start."""
    letters = [one.read_bytes() for one in sorted(Path(path).glob("*.eml"))]
    return MemoryStore(dict.fromkeys(users, letters))
