"""The inspector, put together: in a server of one process, or beside a supervisor."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.logger import Logger

from ...clock import steady
from ...config.settings import Settings
from ...errors import BadSetting, CannotStart
from ...files import Owner
from ...interfaces import IDelivery, IGate, IMailStore, IServerControl, MaybeDeferred
from ...languages import language_of_the_locale
from ...net.accepting import wait_for_descriptors
from ...net.threads import WorkerThreads
from ...net.types import IReactor
from ...net.unix_sockets import UnixListening
from ...observe.explain.explainer import Explainer
from ...observe.inspector.access import Access
from ...observe.inspector.api import Inspected
from ...observe.inspector.hub import Hub
from ...observe.inspector.mailboxes import Mailboxes
from ...observe.inspector.site import InspectorSite
from ...observe.inspector.stepping import Stepping
from ..ports import Port, endpoint_of
from ..service import Listening, ListeningService, OrderedService, listening_of

if TYPE_CHECKING:
    from twisted.web.resource import IResource

__all__ = ["Inspection", "token_of"]

log = Logger()


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


class Inspection:
    """The inspector of a server, from before its parts are made.

    :param reactor: tells the time, and gives results of threads.
    """

    def __init__(self, settings: Settings, reactor: IReactor) -> None:
        self._settings = settings
        self._reactor = reactor
        #: Is to be told of all events.
        self.hub = Hub(reactor, Explainer(settings.language or language_of_the_locale()))
        # What else its site answers, by path, and what is wrong with the server.
        self._also: dict[bytes, IResource] = {}
        self._problems: Callable[[], MaybeDeferred[Sequence[str]]] = lambda: ()
        self._mailboxes: Mailboxes | None = None
        self._access: Access | None = None
        #: Holds sessions, once :meth:`around` was called.
        self.stepping: Stepping | None = None

    def shows(self, metrics: IResource, problems: Callable[[], MaybeDeferred[Sequence[str]]]) -> None:
        """Show metrics, and what is wrong with the server, too; called before :meth:`serve`."""
        self._also[b"metrics"] = metrics
        self._problems = problems

    def around(self, gate: IGate | None) -> IGate:
        """A gate that holds sessions, before another one."""
        self.stepping = Stepping(gate)
        self.hub.when_ended = self.stepping.forget
        stepping: IGate = self.stepping
        return stepping

    def take(self, settings: Settings, token: str | None) -> None:
        """From now on these settings.

        :param token: what :func:`token_of` has read; without one the token stays as it is.
        """
        if self._access is not None:
            self._access.use(token, _names(settings))
        if self._mailboxes is not None:
            self._mailboxes.shows_mail = settings.inspector_shows_mail or settings.is_toy

    def serve(
        self,
        parts: OrderedService,
        control: Callable[[], IServerControl],
        cannot_listen: Callable[[CannotStart], object],
        *,
        store: IMailStore | None = None,
        delivery: IDelivery | None = None,
        owner: Owner | None = None,
        ready: Callable[[str], object] = lambda link: None,
    ) -> None:
        """Add it to a server.

        :param control: gives the server's control, when that is there.
        :param cannot_listen: as :class:`~pop3toy.run.service.ListeningService` has ``failed``.
        :param store: the toy's, whose messages may be put in and taken out.
        :param owner: the user that the process becomes when it listens.
        :param ready: is told the link, when it listens.
        """
        settings, reactor = self._settings, self._reactor
        threads = WorkerThreads(reactor, name="inspector", size=1)
        threads.setServiceParent(parts)
        given = token_of(settings)
        token = given or secrets.token_urlsafe(24)
        self._mailboxes = Mailboxes(
            lambda: control().mailboxes,
            # The toy's mail is in memory, which belongs to the reactor's thread.
            maybeDeferred if store is not None else threads.run,
            threads.run,
            store=store,
            delivery=delivery,
            shows_mail=settings.inspector_shows_mail,
        )
        inspected = Inspected(
            hub=self.hub,
            control=control,
            mailboxes=self._mailboxes,
            protocols=lambda: [_as_dict(one) for one in listening_of(parts)],
            stepping=self.stepping,
            also=self._also,
            problems=self._problems,
            toy=settings.is_toy,
        )
        self._access = Access(token, _names(settings))
        site = InspectorSite(inspected, self._access, steady(reactor))

        def listens(name: str, opened: IListeningPort) -> None:
            wait_for_descriptors(opened, reactor)
            address = opened.getHost()
            ready(link_to(address, token))
            # The token of a file is no secret that a log should hold.
            link = link_to(address, token if given is None else None)
            # A program that waits for this line may go on then.
            reactor.callWhenRunning(log.info, "pop3toy's inspector: {link}", link=link)

        port = Port("", "inspector", settings.inspector or "")
        name = ""
        if settings.inspector_port is not None:
            name = f"127.0.0.1:{settings.inspector_port} (the inspector)"
            port = Port("", "inspector-port", f"tcp:{settings.inspector_port}:interface=127.0.0.1")
        listening = cast(IReactor, UnixListening(reactor, owner))
        described, endpoint = endpoint_of(port, replace(settings, workers=None), listening)
        ListeningService(
            name or described, endpoint, site, ready=listens, failed=cannot_listen
        ).setServiceParent(parts)


def _names(settings: Settings) -> tuple[str, ...]:
    return (settings.hostname,) if settings.hostname else ()


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
