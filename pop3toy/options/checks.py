"""Checks of single values, each with a sentence that names its option."""

from __future__ import annotations

import os
import re

from twisted.python import usage

__all__ = ["existing_file", "port_number", "whole_number"]


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
    options[name] = path = os.path.abspath(options[name])
    if getattr(options, "checked", False):
        return
    if not os.path.isfile(path):
        raise usage.UsageError(f"--{name}: there is no file {path}")
    if not os.access(path, os.R_OK):
        raise usage.UsageError(f"--{name}: no permission to read {path}")
