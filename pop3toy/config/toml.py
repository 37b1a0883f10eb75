"""A file of options (TOML 1.0): the names of the options, in tables.

    [pop3]
    port = 110
    interface = "0.0.0.0"

    [store]
    maildir = "/srv/mail/{user}"

A file or folder that is not named in full is looked for beside the file.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from ..errors import BadSetting, CannotStart
from ..option import Option
from .table import OPTIONS, TABLES

__all__ = ["decoded", "located", "parsed", "read"]

#: Another option in the text of what is wrong with one, with the word for its value.
_MENTIONED = re.compile(r"--(?P<name>[a-z][a-z0-9-]*)(?P<value> [A-Z]{2,}\b| -(?![^,;.\s]))?")

_CALLED = {str: "a text in quotes", int: "a number", bool: "true or false"}


def decoded(path: str, data: bytes) -> str:
    """The text of a file.

    :raises pop3toy.errors.CannotStart: if it is not UTF-8, with the line.
    """
    try:
        # Some editors of Windows begin a file with a mark of its encoding.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CannotStart(f"{path}: line {line} is not UTF-8: save the file in that encoding") from error


def parsed(path: str, text: str) -> dict[str, Any]:
    """The tables of a text.

    :raises pop3toy.errors.CannotStart: if it is not TOML, with the line.
    """
    try:
        return tomllib.loads(text)
    # Also of a number of thousands of digits, and of brackets by the thousand.
    except (ValueError, RecursionError) as error:
        raise CannotStart(f"{path}: this is not TOML: {error}") from error


def read(path: str) -> dict[str, object]:
    """What a file says, by the options' names.

    :raises pop3toy.errors.CannotStart: if it cannot be read or says something that is no option; the values
        are not checked here.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise CannotStart(f"--config {path}: {(error.strerror or str(error)).lower()}") from error
    tables = parsed(path, decoded(path, data))
    found: dict[str, object] = {}
    for table, values in tables.items():
        if table not in TABLES:
            raise CannotStart(_unknown_table(path, table, values))
        if not isinstance(values, Mapping):
            raise CannotStart(f"{path}: {table} is a table: write [{table}] and its options below")
        for key, value in values.items():
            one = OPTIONS.get(key)
            if one is None or one.table != table:
                raise CannotStart(_unknown_key(path, table, key))
            found[key] = _value(path, one, value)
    return found


def located(
    why: CannotStart, path: str | None, in_file: Mapping[str, object], given: Mapping[str, object]
) -> str:
    """What is wrong, with its place if it is in the file, and all options as whoever wrote them did."""
    if not isinstance(why, BadSetting):
        return str(why)
    of_file = why.option in in_file and why.option not in given

    def called(found: re.Match[str]) -> str:
        name, value = found["name"], found["value"] or ""
        known = name in OPTIONS and name not in given and (of_file or name in in_file)
        # What it is to say there is a text in quotes, and not the word for one.
        quoted = ' = "-"' if value == " -" else ""
        return f"[{OPTIONS[name].table}] {name}{quoted}" if known else found[0]

    text = _MENTIONED.sub(called, why.text)
    if of_file:
        return f"{path}: [{OPTIONS[why.option].table}] {why.option}{text}"
    return f"--{why.option}{text}"


def _value(path: str, one: Option, value: object) -> object:
    where = f"{path}: [{one.table}] {one.name}"
    if one.many:
        if not isinstance(value, list):
            raise CannotStart(f"{where} is a list, as in {one.name} = [...]")
        return [_single(where, path, one, each) for each in value]
    return _single(where, path, one, value)


def _single(where: str, path: str, one: Option, value: object) -> object:
    # A bool is an int to Python.
    if not isinstance(value, one.kind.types) or (isinstance(value, bool) and bool not in one.kind.types):
        wanted = " or ".join(_CALLED[kind] for kind in one.kind.types)
        raise CannotStart(f"{where} is {wanted}")
    if one.kind.path is not None and isinstance(value, str) and value and one.kind.path(value):
        return os.path.join(os.path.dirname(os.path.abspath(path)), value)
    return value


def _unknown_table(path: str, table: str, values: object) -> str:
    if not isinstance(values, Mapping) and table in OPTIONS:
        return f"{path}: {table} belongs into the table [{OPTIONS[table].table}]"
    return f"{path}: there is no table [{table}]{_nearest(table, TABLES)}; there are {', '.join(TABLES)}"


def _unknown_key(path: str, table: str, key: str) -> str:
    if key in OPTIONS:
        return f"{path}: [{table}] {key}: this belongs into the table [{OPTIONS[key].table}]"
    here = [one.name for one in OPTIONS.values() if one.table == table]
    return f"{path}: [{table}] {key}: there is no such option{_nearest(key, here) or _nearest(key, OPTIONS)}"


def _nearest(word: str, words: Iterable[str]) -> str:
    found = get_close_matches(word.replace("_", "-"), list(words), 1, 0.5)
    return f"; did you mean {found[0]}?" if found else ""
