"""Checks of single values, each with a sentence that names its option."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable

from twisted.python import usage

__all__ = ["existing_file", "existing_path", "may", "port_number", "whole_number", "why_unusable"]


def whole_number(options: usage.Options, name: str, least: int, most: int) -> None:
    """Make a value a number, if it is given.

    Not left to the parameter's type: its message would not name the option.

    :raises twisted.python.usage.UsageError: if it is none between the bounds.
    """
    if options[name] is None:
        return
    text = str(options[name])
    if not re.fullmatch("[0-9]{1,15}", text) or not least <= int(text) <= most:
        raise usage.UsageError(f"--{name} is a number from {least} to {most}")
    options[name] = int(text)


def port_number(options: usage.Options, name: str) -> None:
    """Make a value a TCP port, if it is given.

    :raises twisted.python.usage.UsageError: if it is none.
    """
    whole_number(options, name, 0, 65535)


def existing_file(options: usage.Options, name: str) -> None:
    """Make a value the absolute path of a file that can be read, if it is given.

    :raises twisted.python.usage.UsageError: if there is none.
    """
    if options[name] is None:
        return
    if getattr(options, "checked", False):
        options[name] = os.path.abspath(options[name])
    else:
        options[name] = existing_path(name, options[name])


def existing_path(name: str, path: str) -> str:
    """The absolute path of a file that can be read.

    :param name: the option that named it.
    :raises twisted.python.usage.UsageError: if there is none.
    """
    path = os.path.abspath(path)
    if why := why_unusable(path, stat.S_ISREG, "file", os.R_OK, "read"):
        raise usage.UsageError(f"--{name}: {why}")
    return path


def why_unusable(path: str, is_one: Callable[[int], bool], kind: str, access: int, verb: str) -> str | None:
    """Why a path cannot be used, in words; ``None`` if it can.

    :param is_one: tells by a mode whether it is of the kind that is wanted.
    :param access: as for ``os.access``; ``verb`` says it in a word.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return f"there is no {kind} {path}"
    except OSError as error:
        # A folder above it may not be entered, for instance: then nobody knows whether it is there.
        return f"{path}: {(error.strerror or str(error)).lower()}"
    if not is_one(mode):
        return f"{path} is no {kind}"
    return None if may(path, access) else f"no permission to {verb} {path}"


def may(path: str, access: int) -> bool:
    """Whether this process may read, write or enter a path, as the user that it is now.

    :param access: as for ``os.access``.
    """
    return os.access(path, access, effective_ids=os.access in os.supports_effective_ids)
