"""How this pop3toy was installed, and what brings a missing library into that installation."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

__all__ = ["install_hint"]


def install_hint(extra: str, package: Path = Path(__file__).parent) -> str:
    """The command that installs the libraries of an extra of setup.cfg, for messages about missing ones.

    No index has pop3toy: pip would find nothing by its name.

    :param extra: ``tls``, for instance.
    :param package: the folder of this package.
    """
    checkout = package.resolve().parent
    if (checkout / "setup.cfg").exists() and (checkout / "pyproject.toml").exists():
        wanted: Sequence[str] = ("-e", f"{checkout}[{extra}]")
    else:
        wanted = _libraries(extra)
        if not wanted:
            # A bare copy of the package: nothing here knows.
            return f"install the libraries that its setup.cfg names for {extra!r}"
    if find_spec("pip") is not None:
        return shlex.join([sys.executable, "-m", "pip", "install", *wanted])
    # Environments that uv has made have no pip.
    return shlex.join(["uv", "pip", "install", "--python", sys.executable, *wanted])


def _libraries(extra: str) -> list[str]:
    """What an extra consists of, as the metadata of the installed package have it."""
    from importlib import metadata

    try:
        required = metadata.requires("pop3toy") or []
    except metadata.PackageNotFoundError:
        required = []
    found = []
    for one in required:
        requirement, _, marker = one.partition(";")
        if re.search(rf"""\bextra *== *["']{re.escape(extra)}["']""", marker):
            found.append(requirement.strip())
    return found
