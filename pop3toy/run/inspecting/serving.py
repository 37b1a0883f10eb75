"""The inspector, put together: in a server of one process, or beside a supervisor."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger

from ...clock import steady
from ...config.settings import Settings
from ...errors import BadSetting, CannotStart
from ...interfaces import IDelivery, IMailStore, IServerControl, IStoreAdmin
from ...net.threads import WorkerThreads
from ...net.types import IReactor
from ...observe.explain.explainer import Explainer
from ...observe.inspector.access import Access
from ...observe.inspector.api import Inspected
from ...observe.inspector.hub import Hub
from ...observe.inspector.mailboxes import Mailboxes
from ...observe.inspector.site import InspectorSite
from ...observe.inspector.stepping import Stepping
from ..ports import Port, endpoint_of
from ..service import Listening, ListeningService, OrderedService

__all__ = ["INSPECTOR", "hub_of", "inspector_port", "serve_inspector", "token_of"]

log = Logger()

#: What is spoken at its port, as ``Listening.protocol`` says it.
INSPECTOR = "inspector"


def inspector_port(settings: Settings) -> Port | None:
    """Where it listens, if it does."""
    if settings.inspector_port is not None:
        return Port(INSPECTOR, "inspector-port", f"tcp:{settings.inspector_port}:interface=127.0.0.1")
    if settings.inspector is not None:
        return Port(INSPECTOR, "inspector", settings.inspector)
    return None


def hub_of(settings: Settings, reactor: IReactor) -> Hub | None:
    """Keeps what the inspector tells, if there is one."""
    if inspector_port(settings) is None:
        return None
    return Hub(reactor, Explainer(), time.time)


def token_of(settings: Settings) -> str | None:
    """The token that the settings name; ``None`` if a new one is to be made.

    :raises pop3toy.errors.BadSetting: if the file holds none.
    """
    path = settings.inspector_token_file
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            token = file.readline(1000).strip()
    except (OSError, ValueError) as error:
        raise BadSetting("inspector-token-file", f" {path}: {getattr(error, 'strerror', error)}") from error
    if len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token:
        raise BadSetting(
            "inspector-token-file",
            f" {path}: its first line is the token, 16 characters or more, without blanks",
        )
    return token


@dataclass(frozen=True)
class _Store:
    """What there is to be said of mailboxes."""

    admin: Callable[[], IStoreAdmin | None]
    #: The toy's alone.
    toy: IMailStore | None = None
    delivery: IDelivery | None = None


def store_of_the_toy(store: IMailStore, delivery: IDelivery) -> _Store:
    """The toy's, whose messages may be put in and taken out."""
    admin = store if IStoreAdmin.providedBy(store) else None
    return _Store(lambda: admin, store, delivery)


def store_of(admin: Callable[[], IStoreAdmin | None]) -> _Store:
    """Any other."""
    return _Store(admin)


def serve_inspector(
    settings: Settings,
    reactor: IReactor,
    parts: OrderedService,
    hub: Hub,
    *,
    control: Callable[[], IServerControl],
    listening: Callable[[], Sequence[Listening]],
    store: _Store,
    opening: Callable[[Port], tuple[str, IStreamServerEndpoint]] | None = None,
    cannot_listen: Callable[[CannotStart], object],
    stepping: Stepping | None = None,
) -> None:
    """Add the inspector to a server.

    :param control: gives the server's control, when it is there.
    :param listening: gives the ports that are open.
    :param opening: gives the endpoint of a port.
    :param cannot_listen: as :class:`~pop3toy.run.service.ListeningService` has ``failed``.
    """
    port = inspector_port(settings)
    assert port is not None, "the settings ask for an inspector"
    threads = WorkerThreads(reactor, name="inspector", size=1)
    threads.setServiceParent(parts)
    given = token_of(settings)
    token = given or secrets.token_urlsafe(24)
    inspected = Inspected(
        hub=hub,
        control=control,
        # The toy's mail is in memory, which belongs to the reactor's thread.
        mailboxes=Mailboxes(
            store.admin,
            _at_once if store.toy is not None else threads.run,
            threads.run,
            store=store.toy,
            delivery=store.delivery,
            shows_mail=settings.inspector_shows_mail,
        ),
        protocols=lambda: [_as_dict(one) for one in listening() if one.protocol != INSPECTOR],
        stepping=stepping,
        toy=settings.is_toy,
    )
    names = (settings.hostname,) if settings.hostname else ()
    site = InspectorSite(inspected, Access(token, names), steady(reactor))

    def ready(name: str, opened: IListeningPort) -> None:
        link = link_to(opened.getHost(), None if given is not None else token)
        # A program that waits for this line may go on then.
        reactor.callWhenRunning(log.info, "pop3toy's inspector: {link}", link=link)

    name, endpoint = (opening or (lambda one: endpoint_of(one, settings, reactor)))(port)
    ListeningService(
        name.replace("tcp:", "port ", 1).partition(":")[0] if settings.inspector_port is not None else name,
        endpoint,
        site,
        ready=ready,
        failed=cannot_listen,
        protocol=INSPECTOR,
    ).setServiceParent(parts)


def link_to(address: IAddress, token: str | None) -> str:
    """Where a browser finds it.

    :param token: that the link is to have in it.
    """
    if isinstance(address, IPv4Address | IPv6Address):
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{address.port}/" + (f"?token={token}" if token else "")
    assert isinstance(address, UNIXAddress)
    return f"unix:{(address.name or b'').decode('utf-8', 'backslashreplace')}"


def _as_dict(one: Listening) -> Mapping[str, object]:
    address = one.address
    if isinstance(address, UNIXAddress):
        where = link_to(address, None)
    else:
        where = (
            f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
        )
    return {"protocol": one.protocol, "tls": one.tls, "address": where}


def _at_once(function: Callable[..., object], *args: object) -> Deferred[object]:
    return maybeDeferred(function, *args)
