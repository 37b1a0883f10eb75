"""From settings to a running server: the one place that knows all parts.

:func:`server` is for other programs; ``tap`` and worker processes call
:func:`assemble` with a context of their own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
)
from twisted.logger import Logger
from zope.interface import Interface

from .. import limits
from ..clock import steady
from ..config.settings import Settings
from ..errors import BadSetting, CannotStart
from ..events import Event, Observers
from ..interfaces import (
    IDelivery,
    IGate,
    IMailStore,
    IObserver,
    IRecipientResolver,
    IStoreAdmin,
    Outgoing,
)
from ..net.accepting import wait_for_descriptors
from ..net.factory import ConnectionFactory
from ..net.proxied import ProxiedEndpoint
from ..net.threads import WorkerThreads
from ..net.transport import is_loopback
from ..net.types import IReactor
from ..pop3.factory import POP3Factory
from ..routing.quota import quota_of
from ..routing.warnings import QuotaWarnings
from ..smtp import limits as smtp_limits
from ..smtp.factory import lmtp_factory, smtp_factory, submission_factory
from ..smtp.submission import SenderRealm
from ..stores import hello
from ..stores.registry import OpenStore, StoreContext, kind_of
from .access import Access
from .checks import check_files
from .control import Notice, ServerControl
from .log.choosing import chosen_log, set_observer
from .log.file import Reopening
from .monitoring.certificates import CertificateWatch
from .monitoring.process import monitoring_of
from .ports import PASSWORDS, Port, announce, ports_of
from .process import ProcessTuning, StopSignals, TwistdOptions
from .process_context import ProcessContext, single_process
from .recipients import recipients_of_all, recipients_of_users
from .reloading.again import SettingsAgain
from .reloading.taking import Taking
from .service import LinesService, ListeningService, OrderedService, Reloadable, ReloadService, Server
from .sharing.expiry import Expiry
from .sharing.first_look import FirstLook
from .sharing.node import node_of
from .speed import sending_of
from .tls import server_tls
from .watching import watching_of

if TYPE_CHECKING:
    from ..net.tls.contexts import GivenTLS

__all__ = ["assemble", "server"]

log = Logger()

#: An endpoint that listens to more than this machine.
_PUBLIC = re.compile(r"tcp6?:(?!.*interface=(?:127\.|localhost|\\:\\:1))")


@dataclass(frozen=True)
class _OwnStore:
    """In the place of a store's settings, where another program brings the store."""

    for_each_user: ClassVar[bool] = True


def server(
    reactor: Any,
    settings: Settings,
    *,
    store: IMailStore | None = None,
    checkers: Sequence[ICredentialsChecker] = (),
    observers: Sequence[IObserver] = (),
    gate: IGate | None = None,
) -> Server:
    """A whole server as a service for another program: limits, penalties and log as the command has them.

    It is started and stopped like any service: give it a parent (``setServiceParent``), or call
    ``startService`` and ``stopService``.  No port is open and no thread runs before it is started.
    ``stopService`` gives a Deferred that fires when the last session has ended; only then it may be
    started again.  The reactor has to run for that.

    The service has an attribute ``listening``: a list of the ports that are open, each with
    ``protocol`` (``POP3``, ``SMTP``, ``submission``, ``LMTP``), ``tls`` and ``address``; POP3 comes
    first.  So ``service.listening[0].address.port`` is the number that ``Settings(port=0)`` got.
    Its attribute ``control`` is an :class:`~pop3toy.interfaces.IServerControl`: who is connected, close
    one of them, let all end.

    Nothing of the process is changed: not its signals, garbage collector, limits and environment, nor
    the reactor, nor ``store`` and ``checkers``.  Nothing blocks, but that certificates and the files of
    accounts and aliases are read here.  (A host's name in place of an address to listen on is looked up
    by the system; give an address.)  What changes later in these files is noticed within 30 seconds.

    :param reactor: opens ports, tells the time (``IReactorTime``) and takes results from threads
        (``IReactorFromThreads``).
    :param settings: what the command's options would say.  ``workers`` is for the command alone.
    :param store: where mail is, in place of what the settings say.  If it is an
        :class:`~pop3toy.interfaces.IDelivery` too, mail can come in: for the users of the settings and
        of checkers that can tell who there is, as ``MemoryAccounts``, and for whom it has a mailbox if
        it is an :class:`~pop3toy.interfaces.IStoreAdmin`.
    :param checkers: of ``twisted.cred``, besides the accounts of the settings.
    :param observers: each an :class:`IObserver`, which is told of what happens on all ports; besides the
        transcript of the settings and the log.
    :param gate: an :class:`IGate`, which may hold, change and drop commands and replies on all ports.
    :raises pop3toy.errors.CannotStart: here, with what is wrong with the settings and the files that they
        name, in one sentence with the option of the command.  ``startService`` (and ``setServiceParent``
        of a parent that runs) raises it if a port cannot be opened; what was opened before is closed in
        the reactor's next turns, and it may be started again when ``stopService``'s Deferred has fired.
    :raises TypeError: for a store, checker or observer that provides none of these interfaces.
    """
    return embedded(reactor, settings, store=store, checkers=checkers, observers=observers, gate=gate)


def embedded(
    reactor: Any,
    settings: Settings,
    *,
    store: IMailStore | None = None,
    checkers: Sequence[ICredentialsChecker] = (),
    observers: Sequence[IObserver] = (),
    gate: IGate | None = None,
    around_tls: Callable[[GivenTLS], GivenTLS] | None = None,
) -> Server:
    """See :func:`server`.

    :param around_tls: makes of what TLS is made with something else.
    """
    _check_provided(store, checkers, observers, gate)
    if settings.workers is not None:
        raise BadSetting("workers", " is for twistd pop3toy: a service of another program is one process")
    for name, given in (("log-file", settings.log_file), ("log-format", settings.log_format != "text")):
        if given:
            raise BadSetting(name, " is for twistd pop3toy: another program has a log of its own")
    if store is not None:
        settings = replace(settings, store=_OwnStore())
    if settings.faults is not None:
        raise BadSetting("faults", " is for twistd pop3toy: give server() a gate, as pop3toy.testing.Faults")
    settings.check_whole(other_checkers=bool(checkers))
    check_files(settings, own_store=store is None)

    def cannot_listen(why: CannotStart) -> None:
        raise why

    context = single_process(settings, reactor, server_tls(settings.tls), cannot_listen)
    if context.tls is not None and around_tls is not None:
        context = replace(context, tls=around_tls(context.tls))
    return assemble(
        settings, reactor, context, store=store, checkers=checkers, observers=observers, gate=gate
    )


def _check_provided(
    store: object, checkers: Sequence[object], observers: Sequence[object], gate: object
) -> None:
    """Find the @implementer that was forgotten here, not at the first login."""
    wanted: list[tuple[object, type[Interface]]] = [(one, ICredentialsChecker) for one in checkers]
    wanted += [(one, IObserver) for one in observers]
    if store is not None:
        wanted.append((store, IMailStore))
    if gate is not None:
        wanted.append((gate, IGate))
    for one, interface in wanted:
        if not interface.providedBy(one):
            raise TypeError(
                f"{type(one).__name__} provides no {interface.__name__}: is there an @implementer above it?"
            )


def assemble(
    settings: Settings,
    reactor: IReactor,
    context: ProcessContext,
    *,
    store: IMailStore | None = None,
    checkers: Sequence[ICredentialsChecker] = (),
    observers: Sequence[IObserver] = (),
    gate: IGate | None = None,
    around_store: Callable[[IMailStore], IMailStore] | None = None,
    twistd: TwistdOptions | None = None,
) -> Server:
    """The server of one process.

    Its parts are started in the order in which they are added here, and
    stopped in the other.

    :param around_store: makes of the store that maildrops are opened in another one.
    :param twistd: the options of twistd itself, whose log lines are made faster.
    """
    # Newcomers have two lines to read, and they are not Twisted's.
    starting = _until_it_runs(reactor) if settings.is_toy and context.owned else None
    inspection = None
    if settings.wants_inspector and not context.inherits:
        # HTTP costs nothing where it is not wanted.
        from .inspecting.serving import Inspection

        inspection = Inspection(settings, reactor)
        observers = [*observers, inspection.hub]
        if settings.is_toy:
            gate = inspection.around(gate)
    monitoring = monitoring_of(settings, reactor, shown=settings.wants_inspector)
    if monitoring is not None:
        observers = [*observers, *monitoring.observers]
    watching = watching_of(settings, observers, context.levels)
    chosen = chosen_log(settings, twistd or {}, context.levels)
    parts = Server(
        partial(
            set_observer,
            twistd=twistd or {},
            chosen=chosen,
            batcher=context.batcher,
            starting=starting,
            terminal=watching.terminal,
        )
    )
    if chosen.writer is not None:
        # Before all others: it ends behind them.
        LinesService(chosen.writer).setServiceParent(parts)
    notice = Notice(reactor, settings.limits.stop_delay)
    if context.owned:
        ProcessTuning().setServiceParent(parts)
        StopSignals(reactor, notice.cut_short).setServiceParent(parts)
    node = node_of(settings.store, context.cannot_listen) if store is None and not context.inherits else None
    if node is not None:
        node.setServiceParent(parts)
    if context.batcher is not None:
        context.batcher.setServiceParent(parts)
    for writer in watching.writers:
        LinesService(writer, None if context.owned else reactor).setServiceParent(parts)
    told = watching.observers
    make_threads = monitoring.threads if monitoring is not None else WorkerThreads
    shared = kind_of(settings.store).share(settings.store) if store is None else None
    access = Access(
        settings,
        reactor,
        parts,
        context.peers,
        checkers=checkers,
        strict=context.strict,
        threads=make_threads,
        shared=shared,
    )
    if store is None:
        opened = _open(settings, reactor, parts, access, context, make_threads, shared)
    else:
        opened = _given(settings, store)
    if opened.look is not None:
        FirstLook(opened.where, opened.look, reactor, tells=context.warns).setServiceParent(parts)
    _remove_old(
        settings, reactor, parts, opened, opened.admin or _admin(settings, store), context, make_threads
    )
    maildrops = opened.store if around_store is None else around_store(opened.store)
    if monitoring is not None:
        maildrops = monitoring.store(maildrops)
    source, certificates = context.source, context.certificates
    written = [one for one in (*watching.writers, chosen.writer) if one is not None and one.path is not None]
    files = Reopening(written)
    parts.reopen = files.reload
    reloads: list[Reloadable] = [files]
    if certificates is not None:
        reloads.append(certificates)
    if certificates is not None:
        CertificateWatch(reactor, certificates).setServiceParent(parts)
    if source is not None:

        def take(changed: Settings, token: str | None) -> None:
            parts.take(changed)
            if inspection is not None:
                inspection.take(changed, token)

        reloads.append(SettingsAgain(source, settings, reactor, parts, tls=certificates, take=take))
    if not settings.is_toy or context.tls is not None or source is not None or written:
        # Also with nothing to read again: SIGHUP must not end a server that others rely on.
        ReloadService(
            reactor, reloads, signals=context.owned, reopen=files.reload if written else None
        ).setServiceParent(parts)
    factories: dict[str, ConnectionFactory] = {
        "POP3": POP3Factory(
            reactor,
            access.for_maildrops(maildrops),
            observers=told,
            limiter=context.pop3_connections,
            tls_context=context.tls,
            # A beginner at telnet reads a page between two lines.
            before_login=limits.IDLE if settings.is_toy else limits.IDLE_BEFORE_LOGIN,
            expire_days=settings.expire_days,
            numbers=context.numbers,
            sending=sending_of(context.batcher),
            gate=gate,
        )
    }
    take_recipients: Callable[[Settings], object] = lambda changed: None  # noqa: E731
    if settings.wants_mail:
        if settings.is_toy:
            recipients = recipients_of_all(access.users)
        else:
            recipients, take_recipients = recipients_of_users(
                settings,
                reactor,
                parts,
                access,
                strict=context.strict,
                admin=opened.admin or _admin(settings, store),
                warns=context.warns,
            )
        outgoing = None
        if settings.smarthost is not None:
            from .handing_on.queue import queue_of

            outgoing = queue_of(
                settings,
                reactor,
                parts,
                opened.delivery,
                recipients,
                settings.hostname or context.host,
                threads=make_threads,
                observers=told,
                told=monitoring.outgoing() if monitoring is not None else None,
            )
        factories |= _mail_factories(
            settings, reactor, access, opened.delivery, recipients, context, told, gate, outgoing
        )
    _warn_of_nobody(settings, context.tls)
    if monitoring is not None and context.inherits:
        monitoring.worker(parts)
    elif monitoring is not None:
        pages = monitoring.serve(
            parts,
            lambda: parts.control.draining,
            context.tls,
            lambda: parts.control.mailboxes,
            own_store=store is None,
            failed=context.cannot_listen,
            owner=context.owner,
        )
        if inspection is not None:
            inspection.shows(pages.metrics, pages.look)
    if inspection is not None:
        # Before the ports: it shows how the sessions end when the server stops.
        toys = (opened.store, opened.delivery) if settings.is_toy else (None, None)
        inspection.serve(
            parts,
            lambda: parts.control,
            context.cannot_listen,
            store=toys[0],
            delivery=toys[1],
            owner=context.owner,
            ready=lambda link: setattr(parts, "inspector", link),
        )
    next_step = _next_step(settings, access.users, twistd or {}) if context.owned else None
    page = _password_page(reactor, access, context, told) if settings.wants_password_page else None
    for port in ports_of(settings):
        factory = page if page is not None and port.protocol == PASSWORDS else factories[port.protocol]
        _listen(port, settings, reactor, context, factory, next_step).setServiceParent(parts)
        next_step = None
    if not context.inherits:
        # The ports of workers are their supervisor's, which has a notice of its own.
        notice.setServiceParent(parts)
    parts.take = Taking(context, access, notice, factories, maildrops, take_recipients).take
    given = opened.store if settings.is_toy else store
    parts.control = ServerControl(
        list(factories.values()), lambda: opened.admin or _admin(settings, given), notice
    )
    return parts


def _listen(
    port: Port,
    settings: Settings,
    reactor: IReactor,
    context: ProcessContext,
    factory: IProtocolFactory,
    next_step: Callable[[IAddress], str] | None = None,
) -> ListeningService:
    """A service that listens on a port, and lets the sessions of its factory end when it stops.

    :param factory: of the protocol.
    :param next_step: says what people may do next, given the address of the port.
    :raises pop3toy.errors.BadSetting: for an endpoint that cannot be read.
    """
    listening: IProtocolFactory = factory
    if port.tls and context.tls is not None:
        from twisted.protocols.tls import TLSMemoryBIOFactory

        # Without a clock it would import the reactor of the process, which may be another one.
        listening = TLSMemoryBIOFactory(_speaking(context.tls, port.protocol), False, listening, reactor)
    public = settings.is_toy and not settings.users and port.protocol == "POP3" and not port.tls
    hint = f" (user `{hello.USER}`, password `{hello.PASSWORD}`)" if public else ""

    def ready(name: str, opened: IListeningPort) -> None:
        wait_for_descriptors(opened, reactor)
        if not context.inherits:
            announce(port, opened, name, reactor, hint)
            if next_step is not None:
                reactor.callWhenRunning(log.info, "{text}", text=next_step(opened.getHost()))

    counted = {"POP3": context.pop3_connections, "LMTP": context.lmtp_connections}.get(
        port.protocol, context.smtp_connections
    )
    name, endpoint = context.endpoint(port)
    if port.proxied:
        endpoint = ProxiedEndpoint(endpoint, reactor, counted)
    return ListeningService(
        name,
        endpoint,
        listening,
        ready=ready,
        failed=context.cannot_listen,
        drained=factory if isinstance(factory, ConnectionFactory) else None,
        protocol=port.protocol,
        tls=port.tls,
    )


def _open(
    settings: Settings,
    reactor: IReactor,
    parts: OrderedService,
    access: Access,
    context: ProcessContext,
    make_threads: Callable[..., WorkerThreads],
    shared: object,
) -> OpenStore:
    """The store that the settings say."""

    def threads(name: str, size: int) -> WorkerThreads:
        pool = make_threads(reactor, name=name, **({"size": size} if size else {}))
        pool.setServiceParent(parts)
        return pool

    def nearly_full(user: str, octets: int, quota: int) -> None:
        # Told in a thread.
        if opened.notice is not None:
            warnings = QuotaWarnings(settings.mail_domains[0], opened.notice)
            reactor.callFromThread(warnings.nearly_full, user, octets, quota)

    opened = kind_of(settings.store).open(
        settings.store,
        StoreContext(
            clock=reactor,
            threads=threads,
            # A Deferred of an account is one of something with settings, but Deferreds are invariant.
            quota=quota_of(access.accounts.find if access.accounts is not None else lambda user: None),  # type: ignore[arg-type]
            users=list(access.users),
            host=context.host,
            process=context.process,
            nearly_full=nearly_full,
            shared=shared,
        ),
    )
    return opened


def _remove_old(
    settings: Settings,
    reactor: IReactor,
    parts: OrderedService,
    opened: OpenStore,
    admin: IStoreAdmin | None,
    context: ProcessContext,
    make_threads: Callable[..., WorkerThreads],
) -> None:
    """Have old mail removed where the settings say so, and what was kept; by one of several processes."""
    undo_days = getattr(settings.store, "undo_days", None)
    if settings.expire_days is None and undo_days is None:
        return
    if admin is None:
        raise BadSetting("expire-days", " needs a store that can list its mailboxes (IStoreAdmin)")
    if not context.warns:
        return
    threads = make_threads(reactor, name="expiry", size=1)
    threads.setServiceParent(parts)
    users = None if settings.store.for_each_user else [name for name, _ in settings.users]
    expiry = Expiry(
        opened.store,
        admin,
        settings.expire_days,
        threads.run,
        reactor,
        undo_days=undo_days,
        users=users,
    )
    expiry.setServiceParent(parts)


def _given(settings: Settings, store: IMailStore) -> OpenStore:
    if settings.wants_mail and not IDelivery.providedBy(store):
        raise CannotStart(
            "this store takes no mail: it is no IDelivery, and the settings open ports for mail"
        )
    return OpenStore(store, cast(IDelivery, store))


def _admin(settings: Settings, store: object) -> IStoreAdmin | None:
    """The administrator of the store, where it has one."""
    if store is None:
        administer = kind_of(settings.store).admin
        return administer(settings.store) if administer is not None else None
    return store if IStoreAdmin.providedBy(store) else None


def _mail_factories(
    settings: Settings,
    reactor: IReactor,
    access: Access,
    delivery: IDelivery,
    resolver: IRecipientResolver,
    context: ProcessContext,
    observers: Observers,
    gate: IGate | None,
    outgoing: Outgoing | None = None,
) -> dict[str, ConnectionFactory]:
    """Factories for SMTP, submission and LMTP."""
    shared: dict[str, Any] = {
        "host": settings.hostname or context.host,
        "observers": observers,
        "gate": gate,
        "numbers": context.numbers,
        "sending": sending_of(context.batcher),
        "original_to": settings.is_toy,
        # A beginner who types a mail looks things up.
        "idle": limits.IDLE if settings.is_toy else smtp_limits.IDLE,
        "largest_message": settings.limits.max_message_size or smtp_limits.MESSAGE,
    }
    tls = _speaking(context.tls, "SMTP") if context.tls is not None else None
    limited: dict[str, Any] = {"tls": tls, "limiter": context.smtp_connections}
    return {
        "SMTP": smtp_factory(delivery, resolver, reactor, **limited, **shared),
        "submission": submission_factory(
            delivery,
            resolver,
            reactor,
            access.for_senders(SenderRealm()),
            outgoing=outgoing,
            **limited,
            **shared,
        ),
        # The client is a mail server that is trusted, and brings much.
        "LMTP": lmtp_factory(
            delivery, resolver, reactor, limiter=context.lmtp_connections, **shared
        ),
    }  # fmt: skip


def _password_page(
    reactor: IReactor, access: Access, context: ProcessContext, observers: Observers
) -> IProtocolFactory:
    """Where users change their password."""
    # HTTP costs nothing where it is not wanted.
    from .passwords.site import PasswordPage, PasswordSite

    clock = steady(reactor)

    def happened(kind: type[Event], *what: object) -> None:
        observers.happened(kind, clock.seconds(), *what)

    owners = access.for_owners(SenderRealm())
    page = PasswordPage(owners, access.change_password, context.numbers, happened)
    return cast(IProtocolFactory, PasswordSite(page, reactor))


def _speaking(tls: GivenTLS, protocol: str) -> IOpenSSLServerConnectionCreator:
    """What TLS is made with where this is spoken: each port agrees by ALPN on its own."""
    if protocol == "POP3":
        return tls
    # What TLS needs is there if there is TLS.
    from ..net.tls.contexts import ALPN_HTTP, ALPN_SMTP

    return tls.speaking(ALPN_HTTP if protocol == PASSWORDS else ALPN_SMTP)


def _next_step(
    settings: Settings, users: Mapping[str, str], twistd: TwistdOptions
) -> Callable[[IAddress], str] | None:
    """Says what may be typed after the toy's start, and what ends it."""
    # With telnet one gets neither through TLS nor past the header of a proxy.
    talkable = not settings.listen or settings.listen[0].startswith(("tcp:", "tcp6:", "unix:"))
    if not (settings.is_toy and talkable):
        return None

    def say(address: IAddress) -> str:
        if isinstance(address, UNIXAddress):
            client = f"nc -CU {os.fsdecode(address.name or b'')}"
        else:
            assert isinstance(address, IPv4Address | IPv6Address)
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
            client = f"telnet {host} {address.port}"
        user, password = next(iter(users.items()))
        known = "..." if settings.users else password
        end = "; Ctrl-C here ends the server" if twistd.get("nodaemon") else ""
        typed = f"USER {user}, PASS {known}, LIST, RETR 1, QUIT"
        return f"next, in another terminal, type {client} and then {typed}{end}"

    return say


def _until_it_runs(reactor: IReactor) -> Callable[[], bool]:
    """True as long as the reactor has not begun to run."""
    begun: list[bool] = []
    reactor.callWhenRunning(begun.append, True)
    return lambda: not begun


def _warn_of_nobody(settings: Settings, tls: object | None) -> None:
    """Warn that no client on the network can log in, though a port is open to it."""
    public = any(
        not is_loopback(settings.interface) if isinstance(port.where, int) else _PUBLIC.match(port.where)
        for port in ports_of(settings)
        if port.protocol in ("POP3", "submission")
    )
    if public and tls is None and not settings.allow_cleartext:
        log.warn(
            "only clients on this machine can log in with a password: from a network that takes TLS; give a"
            " certificate with --certificate (--self-signed to try it), or --allow-cleartext"
        )
