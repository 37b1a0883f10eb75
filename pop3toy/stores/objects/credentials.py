"""With which credentials object storage is asked: from the environment or from a file, and never shown.

They are always handed over explicitly: without any, the library would ask the cloud's metadata address for
some by itself.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import Final

from ...errors import BadSetting

__all__ = ["Credentials"]

#: By scheme: the variables that give credentials, in the order in which they are looked for.  A store needs
#: all names of one group; what is in brackets is taken along where it is given.
_NEEDED: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "s3": (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "[AWS_SESSION_TOKEN]"),),
    "gs": (
        ("GOOGLE_SERVICE_ACCOUNT_KEY",),
        ("GOOGLE_SERVICE_ACCOUNT",),
        ("GOOGLE_APPLICATION_CREDENTIALS",),
        ("GOOGLE_BEARER_TOKEN",),
    ),
    "az": (
        ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_SAS_TOKEN"),
        ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"),
    ),
}
#: What may stand beside them.
_BESIDE: Final = ("AWS_REGION", "AWS_DEFAULT_REGION")
#: Octets that a file with credentials may have; a service account's key has two thousand.
_MOST: Final = 65536


class Credentials:
    """The credentials for one kind of store.  Its ``repr`` holds none.

    :param scheme: of the store's address.
    :param path: the file that has them; ``None`` if they are in the environment.
    :param environ: the environment; that of the process if not given.
    :raises pop3toy.errors.BadSetting: if there are none, or the file cannot be used.
    """

    def __init__(self, scheme: str, path: str | None, environ: Mapping[str, str] | None = None) -> None:
        self._scheme = scheme
        self._path = path
        self._environ = os.environ if environ is None else environ
        self.read()

    def read(self) -> dict[str, str]:
        """Read them: of a file what it says by now.

        :return: values by the names of their variables, a region among them if there is one.
        :raises pop3toy.errors.BadSetting: if there are none, or the file cannot be used.
        """
        if self._scheme not in _NEEDED:
            return {}
        said = self._environ if self._path is None else _file(self._path)
        for group in _NEEDED[self._scheme]:
            if all(said.get(name) for name in group if not name.startswith("[")):
                names = (*(name.strip("[]") for name in group), *_BESIDE)
                return {name: said[name] for name in names if said.get(name)}
        first = [name for name in _NEEDED[self._scheme][0] if not name.startswith("[")]
        missing = [name for name in first if not said.get(name)]
        if self._path is not None:
            raise BadSetting("store-credentials", f" {self._path}: {' and '.join(missing)} is missing in it")
        raise BadSetting(
            "store",
            f" {self._scheme}:// needs credentials: {' and '.join(missing)} in the environment, or"
            " --store-credentials FILE with such lines",
        )


def _file(path: str) -> dict[str, str]:
    """Read lines such as ``AWS_REGION=eu-central-1``, as systemd's environment files have them."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                raise BadSetting("store-credentials", f" {path}: others may read it, use chmod 600")
            text = file.read(_MOST + 1).decode("utf-8")
    except OSError as error:
        raise BadSetting("store-credentials", f" {path}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise BadSetting("store-credentials", f" {path}: this is not text in UTF-8") from None
    if len(text) > _MOST:
        raise BadSetting("store-credentials", f" {path}: this is too long for credentials")
    said = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        # Nothing of the line is shown: it may be the secret.
        found = re.fullmatch(r"(?:export\s+)?([A-Z][A-Z0-9_]*)\s*=\s*(.*)", line)
        if found is None:
            raise BadSetting("store-credentials", f" {path}, line {number}: a line is NAME=VALUE")
        value = found[2]
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        said[found[1]] = value
    return said
