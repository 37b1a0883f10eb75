"""Where the tests keep objects: in memory, on moto's server, on Azurite, on a real Ceph.

None sees another test's.
"""

from __future__ import annotations

import secrets

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.stores.objects.connecting import Engines
from pop3toy.stores.objects.settings import Objects

from ... import azurite, ceph
from ...folders import new_folder
from ...s3servers import credentials_file, moto_server

__all__ = ["AzurePlace", "CephPlace", "MemoryPlace", "MotoPlace", "Place"]


class Place(SynchronousTestCase):
    """A test case with object storage in which there is nothing yet.

    :ivar url: its address.
    :ivar endpoint: where it is on the network, if it is there.
    :ivar credentials: a file with the credentials of its endpoint.
    """

    url: str
    endpoint: str | None = None
    credentials: str | None = None

    def setUp(self) -> None:
        super().setUp()
        self.prepare()

    def prepare(self) -> None:
        """Find the storage; where there is none, skip."""
        raise NotImplementedError

    def settings(self, **more: object) -> Objects:
        """What an administrator would say.

        :param more: other values.
        """
        said = {"url": self.url, "endpoint": self.endpoint, "credentials": self.credentials}
        return Objects(**(said | more))  # type: ignore[arg-type]

    def engines(self, **more: object) -> Engines:
        """New connections to it, as another server has them.

        :param more: as for :meth:`settings`.
        """
        return Engines(self.settings(**more))

    def options(self, *, endpoint: str | None = None, node: str | None = None) -> list[str]:
        """The options of a server on a store on the network.

        :param endpoint: where the server finds it, if that is elsewhere.
        :param node: the server's name.
        """
        return [
            f"--store={self.url}",
            f"--store-endpoint={endpoint or self.endpoint}",
            f"--store-credentials={self.credentials}",
            *([f"--store-node={node}"] if node else []),
            "--create",
        ]

    def _on_network(self, endpoint: str, bucket: str = ceph.BUCKET) -> None:
        self.endpoint = endpoint
        self.url = f"s3://{bucket}/{secrets.token_hex(8)}"
        self.credentials = str(credentials_file(new_folder(self)))


class MemoryPlace(Place):
    """In the memory of this process."""

    def prepare(self) -> None:
        """A store of this name is nobody else's."""
        self.url = f"memory://{secrets.token_hex(8)}"


class MotoPlace(Place):
    """On moto's server, which speaks HTTP."""

    def prepare(self) -> None:
        """Start it, unless it runs; each listing goes through all that there is in a bucket."""
        endpoint, bucket = moto_server(), secrets.token_hex(8)
        ceph.make_bucket(endpoint, bucket)
        self._on_network(endpoint, bucket)


class AzurePlace(Place):
    """On Azurite, which speaks as Azure's blob service does."""

    def prepare(self) -> None:
        """Start it, unless it runs."""
        self.endpoint = azurite.azurite()
        self.url = f"az://{azurite.CONTAINER}/{secrets.token_hex(8)}"
        path = new_folder(self) / "credentials"
        path.touch(0o600)
        path.write_text(
            f"AZURE_STORAGE_ACCOUNT_NAME={azurite.ACCOUNT}\nAZURE_STORAGE_ACCOUNT_KEY={azurite.KEY}\n"
        )
        self.credentials = str(path)


class CephPlace(Place):
    """On a real Ceph.

    :ivar ceph: it.
    """

    def prepare(self) -> None:
        """Start it, unless it runs."""
        self.ceph = ceph.shared()
        self._on_network(self.ceph.endpoints[0])
