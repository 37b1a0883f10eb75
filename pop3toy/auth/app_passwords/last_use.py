"""When app passwords were used last: a small file beside the accounts file, a line for each.

``user:name:2026-11-30``.  The accounts file itself is not written for it, so that whoever keeps that under
version control, or lets the server read it alone, finds it as it was.  Days, because nobody needs more, and
so that a program that polls each minute causes one write a day.  Blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..accounts.edit import edit_file

__all__ = ["file_of", "forget", "note", "read"]


def file_of(accounts: str | Path) -> Path:
    """The file for this accounts file; beside the file itself where that is a link."""
    target = Path(accounts).resolve()
    return target.with_name(f"{target.name}.last-use")


def note(path: Path, user: str, name: str, day: str) -> None:
    """Take down that an app password was used on this day.

    :raises OSError: if the file cannot be written.
    """

    def change(text: bytes) -> bytes:
        said = {(one, app): when for one, app, when in _lines(text)}
        if said.get((user, name), "") >= day:
            return text
        said[user, name] = day
        return _text(said)

    edit_file(path, change)


def forget(path: Path, user: str, name: str | None = None, *, new: str | None = None) -> None:
    """A user's app password is gone, or all of them, or the user has a new name.

    :raises OSError: if the file cannot be written.
    """

    def change(text: bytes) -> bytes:
        said = {}
        for one, app, when in _lines(text):
            if one == user and name in (None, app):
                if new is None:
                    continue
                one = new
            said[one, app] = when
        return _text(said)

    if path.exists():
        edit_file(path, change)


def read(path: Path, user: str) -> dict[str, str]:
    """The last day of each app password of a user, as far as it is known.

    :raises OSError: if the file is there and cannot be read.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    return {app: when for one, app, when in _lines(text) if one == user}


def _lines(text: bytes) -> Iterator[tuple[str, str, str]]:
    for line in text.decode("utf-8", "replace").splitlines():
        user, _, rest = line.partition(":")
        name, _, day = rest.partition(":")
        if day:
            yield user, name, day


def _text(said: dict[tuple[str, str], str]) -> bytes:
    return "".join(f"{user}:{name}:{day}\n" for (user, name), day in sorted(said.items())).encode("utf-8")
