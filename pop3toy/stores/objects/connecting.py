"""The connections to object storage: made at the first call, looked at before they are used, and kept."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import Any, Final, NamedTuple

from twisted.logger import Logger

from ...errors import BadSetting, CannotStart, StoreTrouble
from ...installation import install_hint
from .credentials import Credentials
from .engine import Engine, NoSuchObject, Tag, Taken, first_line
from .place import Place
from .probe import Unfit, bare, measured_offset, probe
from .settings import Objects

__all__ = ["Engines", "Patience"]

log = Logger()

#: Seconds until a store is tried again that could not be reached, and one that cannot be used.
AGAIN: Final = 1.0
UNFIT: Final = 10.0
#: Seconds for which the store's clock is believed, and by which ours may be set meanwhile.
KNOWN: Final = 600.0
STEP: Final = 1.0
#: Seconds for which credentials of a file are used until it is read again.
REREAD: Final = 600.0

#: The stores in memory of this process, by their names: whoever asks for one gets the same.
_memories: dict[str, Any] = {}
_making = threading.Lock()


class Patience(NamedTuple):
    """How long the storage is waited for."""

    #: Seconds for a request, and of these for the connection.
    request: float = 10.0
    connect: float = 2.0
    #: How often a request is repeated that may be, and seconds after which none is.
    retries: int = 3
    altogether: float = 15.0

    def for_large(self) -> Patience:
        """The same for a message of many megabytes: as long as a client waits for the end of one, about.

        RFC 5321 section 4.5.3.2.6 gives it ten minutes.
        """
        return self._replace(request=self.request * 12, retries=1, altogether=self.altogether * 12)


class Engines:
    """The buckets of one object storage, each as an :class:`~pop3toy.stores.objects.engine.Engine`.

    Making it asks nothing on the network.  The first call of each engine does, in the thread of the call:
    it looks whether the store can be used (``probe``), and fails like all others if not.

    :param clock: seconds of a clock that is never set.
    :param wall: seconds since the epoch, by the clock of this machine.
    :raises pop3toy.errors.BadSetting: if credentials are missing or cannot be read.
    :raises pop3toy.errors.CannotStart: if the library is not installed.
    """

    def __init__(
        self,
        settings: Objects,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        patience: Patience | None = None,
    ) -> None:
        if find_spec("obstore") is None:
            raise CannotStart(f"--store {settings.url} needs the extra 'objects': {install_hint('objects')}")
        self._settings = settings
        self._credentials = Credentials(settings.place.scheme, settings.credentials)
        self._clock = clock
        self._wall = wall
        self._patience = patience or Patience()
        #: Seconds by which the store's clock is ahead, as far as is known.
        self.offset = 0.0
        # When the offset was learned, and by how much wall and clock differed then.
        self._learned: tuple[float, float] | None = None
        self._learning = threading.Lock()
        self._engines: dict[str, Engine] = {}
        self.buckets: tuple[str, ...] = settings.buckets
        self.main: Engine = self.of("")

    def of(self, bucket: str) -> Engine:
        """The engine of a bucket; of ``""`` that of the store's own address."""
        own = self._settings.place.bucket
        with self._learning:
            name = bucket or own
            if name not in self._engines:
                connection = _Connection(self, self._settings.place._replace(bucket=name))
                self._engines[name] = Engine(connection.connect, connection.tag, connection.for_large)
            return self._engines[name]

    def wall(self) -> float:
        """The store's time of day, in seconds since the epoch: ours until the store's is known."""
        return self._wall() + self.offset

    def learn_time(self) -> None:
        """Learn the store's time again, if that was long ago, or our clock was set since; blocks.

        :raises pop3toy.errors.StoreTrouble: if that fails; the former offset goes on to hold.
        """
        if self._is_known():
            return
        key = f"p/{secrets.token_hex(16)}"
        with suppress(NoSuchObject):
            # Whoever comes first connects, and that tells the time.
            self.main.get_range(key, 0, 1)
        if self._is_known():
            return
        asked = self._wall()
        # The answer may be lost and the library try again.
        with suppress(Taken):
            self.main.create(key, b"time")
        answered = self._wall()
        try:
            self._learn(measured_offset(asked, answered, self.main.get(key).modified))
        except NoSuchObject:
            raise StoreTrouble(detail="object storage: it does not show what was just written") from None
        finally:
            with suppress(StoreTrouble):
                self.main.delete([key])

    def _is_known(self) -> bool:
        if self._learned is None:
            return False
        when, difference = self._learned
        now = self._clock()
        return now - when < KNOWN and abs(self._wall() - now - difference) < STEP

    def _learn(self, offset: float) -> None:
        now = self._clock()
        self.offset, self._learned = offset, (now, self._wall() - now)


class _Connection:
    """What an engine needs to connect to its bucket."""

    def __init__(self, engines: Engines, place: Place) -> None:
        self._engines = engines
        self._place = place
        # The same at each try: what one that was cut short has left behind is removed by the next.
        self._key = f"p/{secrets.token_hex(16)}"
        self._unquoted = False
        self._refused_until = float("-inf")
        self._why: StoreTrouble | None = None
        self._said: set[str] = set()

    def tag(self, tag: Tag) -> Tag:
        """A tag as the store wants it in a condition."""
        return bare(tag) if self._unquoted else tag

    def for_large(self) -> Any:
        """Make obstore's store for large bodies, where the usual one has been made."""
        engines = self._engines
        return _made(self._place, engines._settings, engines._credentials, engines._patience.for_large())

    def connect(self) -> Any:
        """Make obstore's store and look at it; one thread at a time."""
        engines = self._engines
        if self._why is not None and engines._clock() < self._refused_until:
            # Those who have waited for the same try, and whoever else asks in a flood.
            raise StoreTrouble(detail=self._why.detail)
        try:
            store = _made(self._place, engines._settings, engines._credentials, engines._patience)
            learned = probe(store, self._key, engines._wall)
        except StoreTrouble as why:
            unfit = isinstance(why, Unfit)
            self._why = why
            self._refused_until = engines._clock() + (UNFIT if unfit else AGAIN)
            if isinstance(why, Unfit) and why.kind not in self._said:
                self._said.add(why.kind)
                log.critical("{url} cannot be used: {why}", url=str(self._place), why=why.detail)
            raise
        self._unquoted = learned.unquoted
        engines._learn(learned.offset)
        self._why = None
        self._said.clear()
        return store


def _made(place: Place, settings: Objects, credentials: Credentials, patience: Patience) -> Any:
    """Make obstore's store; nothing is asked yet."""
    from obstore.exceptions import BaseError
    from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store

    if place.scheme == "memory":
        with _making:
            return _memories.setdefault(place.prefix, MemoryStore())
    if place.scheme == "file":
        # Not even looked at: the library would leave folders behind.
        raise Unfit("conditions", "folders (file://) cannot replace a file only if it is still the same")
    try:
        values = credentials.read()
        endpoint = settings.endpoint
        region = settings.region or values.get("AWS_REGION") or values.get("AWS_DEFAULT_REGION")
        options: dict[str, Any] = {
            "prefix": place.prefix or None,
            "client_options": {
                "timeout": timedelta(seconds=patience.request),
                "connect_timeout": timedelta(seconds=patience.connect),
                "allow_http": (endpoint or "").startswith("http:"),
            },
            "retry_config": {
                "max_retries": patience.retries,
                "retry_timeout": timedelta(seconds=patience.altogether),
            },
        }
        config: dict[str, Any]
        kind: Any
        if place.scheme == "s3":
            kind, config = S3Store, {"region": region or "us-east-1"}
            if endpoint is not None:
                # The second name would win if it was in the environment.
                config |= {"endpoint": endpoint, "aws_endpoint_url_s3": endpoint}
            options["credential_provider"] = _Provider(credentials, values)
        else:
            kind, named = (
                (GCSStore, "google_base_url")
                if place.scheme == "gs"
                else (AzureStore, "azure_storage_endpoint")
            )
            config = {name.lower(): value for name, value in values.items() if not name.startswith("AWS_")}
            if endpoint is not None:
                config[named] = endpoint
        return kind(place.bucket, config=config, **options)
    except BadSetting as error:
        # The file has changed since the server was started.
        raise Unfit("credentials", str(error)) from None
    except (BaseError, OSError, ValueError) as error:
        raise Unfit("address", first_line(error)) from None


class _Provider:
    """Gives S3 credentials to obstore, which asks again when they are old; its ``repr`` holds none."""

    def __init__(self, credentials: Credentials, values: dict[str, str]) -> None:
        self._credentials = credentials
        self._values = values

    def __call__(self) -> dict[str, Any]:
        try:
            self._values = self._credentials.read()
        except BadSetting as error:
            # It is being written, perhaps; those that there were may go on to do.
            log.warn("{why}", why=str(error))
        return {
            "access_key_id": self._values["AWS_ACCESS_KEY_ID"],
            "secret_access_key": self._values["AWS_SECRET_ACCESS_KEY"],
            "token": self._values.get("AWS_SESSION_TOKEN"),
            "expires_at": datetime.now(UTC) + timedelta(seconds=REREAD),
        }
