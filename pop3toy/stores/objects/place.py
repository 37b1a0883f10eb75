"""Where an object store is, as an address says it: ``s3://bucket/prefix``."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["SCHEMES", "Place"]

#: What is called what: of ``file`` and ``memory`` there are no buckets.
SCHEMES = ("s3", "gs", "az", "file", "memory")


class Place(NamedTuple):
    """An object store's address in parts."""

    scheme: str
    #: Empty for ``file`` and ``memory``.
    bucket: str
    #: Without slashes at its ends; for ``file`` a path, for ``memory`` a name.
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Place:
        """Read an address.

        :param url: such as ``s3://mail/friends``.
        :raises ValueError: with what is wrong with it, to be read behind the option's name.
        """
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in SCHEMES:
            raise ValueError(" is an address such as s3://BUCKET or s3://BUCKET/PREFIX")
        if "@" in rest.partition("/")[0] or "?" in rest:
            # Everybody could read it in the list of processes.
            raise ValueError(
                " holds no credentials and no parameters: credentials come from the environment, or from"
                " --store-credentials FILE"
            )
        if scheme == "file":
            if not rest.startswith("/"):
                raise ValueError(" needs a whole path, as in file:///srv/objects")
            return cls(scheme, "", rest.rstrip("/") or "/")
        if scheme == "memory":
            return cls(scheme, "", rest.strip("/"))
        bucket, _, prefix = rest.partition("/")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,220}", bucket):
            raise ValueError(f" needs a bucket's name, as in {scheme}://BUCKET")
        prefix = prefix.strip("/")
        if not re.fullmatch(r"[A-Za-z0-9._=/-]*", prefix) or {"..", "."} & {*prefix.split("/")}:
            raise ValueError(" has a prefix of letters, digits, slashes and . _ = -")
        return cls(scheme, bucket, prefix)

    def __str__(self) -> str:
        """The address."""
        if not self.bucket:
            return f"{self.scheme}://{self.prefix}"
        return f"{self.scheme}://{self.bucket}{f'/{self.prefix}' if self.prefix else ''}"
