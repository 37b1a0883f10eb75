"""The contracts of a store, of delivery and of administration, on moto's server, Azurite and a real Ceph."""

from __future__ import annotations

from hypothesis import settings

from ...objects_world import ObjectStoreContract, World, WorldMixin
from .places import AzurePlace, CephPlace, MotoPlace, Place
from .test_admin import ObjectAdminContract
from .test_delivery import ObjectDeliveryContract

# Each example makes users and maildrops by requests.
settings.register_profile("on a network", settings.default, max_examples=10)


class _Real(WorldMixin, Place):
    """Worlds over storage on a network, each below a prefix of its own."""

    def setUp(self) -> None:
        super().setUp()
        self._worlds = 0
        settings.load_profile("on a network")
        self.addCleanup(settings.load_profile, "pop3toy")

    def new_world(self, *users: str) -> World:
        """An empty storage, and users with maildrops in it."""
        self._worlds += 1
        engine = self.engines(url=f"{self.url}/{self._worlds}").main
        # Connects, and looks at the storage.
        store = engine._connected()
        return World(*users, connect=lambda bucket: store, tag=engine.tag)


class MotoStoreTests(_Real, ObjectStoreContract, MotoPlace):
    """A store on moto's server."""


class MotoDeliveryTests(_Real, ObjectDeliveryContract, MotoPlace):
    """Delivery to moto's server."""


class MotoAdminTests(_Real, ObjectAdminContract, MotoPlace):
    """Administration of moto's server."""


class AzureStoreTests(_Real, ObjectStoreContract, AzurePlace):
    """A store on Azurite."""


class AzureDeliveryTests(_Real, ObjectDeliveryContract, AzurePlace):
    """Delivery to Azurite."""


class AzureAdminTests(_Real, ObjectAdminContract, AzurePlace):
    """Administration of Azurite."""


class CephStoreTests(_Real, ObjectStoreContract, CephPlace):
    """A store on Ceph."""


class CephDeliveryTests(_Real, ObjectDeliveryContract, CephPlace):
    """Delivery to Ceph."""


class CephAdminTests(_Real, ObjectAdminContract, CephPlace):
    """Administration of Ceph."""


del ObjectStoreContract, ObjectDeliveryContract, ObjectAdminContract
