"""What an administrator says of a store on object storage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from ...errors import BadSetting
from ...option import FLAG, PATH, REQUIRED, TEXT, Kind, check, option
from .place import Place

__all__ = ["Objects"]


def _url(text: str) -> str:
    return str(Place.parse(text))


def _endpoint(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s@/?#]+(/[^\s@?#]*)?", text):
        raise ValueError(" is an address such as https://s3.example.org or http://127.0.0.1:7480")
    return text.rstrip("/")


def _node(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", text):
        raise ValueError(" is a name of letters, digits and . _ -")
    return text


def _bucket(text: str) -> str:
    return Place.parse(f"s3://{text}").bucket if "/" not in text else _bucket(text.replace("/", " "))


@dataclass(frozen=True)
class Objects:
    """Real mail on object storage, which any number of servers share.

    :raises pop3toy.errors.BadSetting: for a value that cannot be.
    """

    table: ClassVar[str] = "store"
    #: Whether each user has a mailbox of their own.
    for_each_user: ClassVar[bool] = True

    url: str = option(
        "Keep mail in this object store, which any number of servers may share: s3://BUCKET or"
        " s3://BUCKET/PREFIX (also gs:// and az://). Credentials are taken from the environment"
        " (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY).",
        REQUIRED,
        name="store",
        kind=Kind(_url, "URL"),
    )
    create: bool = option(
        "Make a user's missing mailbox at the first login or delivery, instead of refusing.",
        False,
        kind=FLAG,
    )
    endpoint: str | None = option(
        "Where the object store is, unless it is the cloud's own: https://s3.example.org, or"
        " http://127.0.0.1:7480 for a Ceph gateway on this machine.",
        name="store-endpoint",
        kind=Kind(_endpoint, "URL"),
        example="https://s3.example.org",
    )
    credentials: str | None = option(
        "A file with the object store's credentials, which nobody else may read: lines such as"
        " AWS_ACCESS_KEY_ID=... and AWS_SECRET_ACCESS_KEY=...; in place of the environment.",
        name="store-credentials",
        kind=PATH,
    )
    region: str | None = option(
        "The object store's region (default: AWS_REGION of the environment, or us-east-1).",
        name="store-region",
        kind=TEXT,
    )
    node: str | None = option(
        "This server's name among those that share the store, which no other has: after a crash it gets its"
        " own locks back at once, in place of after 75 seconds.",
        name="store-node",
        kind=Kind(_node, "NAME"),
    )
    buckets: tuple[str, ...] = option(
        "A bucket for the mail of new mailboxes; with several each gets its share (default: that of"
        " --store). Mailboxes that there are stay where they are.",
        name="store-bucket",
        kind=Kind(_bucket, "BUCKET"),
        many=True,
    )

    def __post_init__(self) -> None:
        """Check the values, and what goes together."""
        check(self)
        scheme = self.place.scheme
        if self.endpoint is not None and scheme in ("file", "memory"):
            raise BadSetting("store-endpoint", f" is for object stores on a network, not for {scheme}://")
        if self.buckets and scheme in ("file", "memory"):
            raise BadSetting("store-bucket", f" is for object stores with buckets, not for {scheme}://")

    @property
    def place(self) -> Place:
        """The address in parts."""
        return Place.parse(self.url)
