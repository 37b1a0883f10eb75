"""A server that runs beside the test, in a thread of its own, on a free port of loopback."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..config.settings import TLS, Settings
from ..errors import CannotStart
from ..events import Observers
from ..installation import install_hint
from ..interfaces import IGate, IObserver
from ..run.assembly import embedded
from ..run.service import ListeningService, Server
from .mailboxes import Message
from .options import settings_of
from .reactor_thread import ReactorThread, adapt_tls
from .recorder import Recorder, Session
from .served import Served, duration
from .smtp_trap import Everybody, SMTPMessage, Trap

if TYPE_CHECKING:
    from ..net.tls.contexts import GivenTLS
    from .certificates import CertificateFolder

__all__ = ["RunningServer", "TLSMode", "running_server"]

#: Where TLS is spoken.
TLSMode: TypeAlias = Literal["stls", "implicit", "both"]

#: Seconds by which a stopping server's clock is put forward, so that nobody is waited for.
_STOP = 60.0

#: By which the threads of running servers are told apart.
_numbers = itertools.count(1)


class Clock:
    """The time of one server, which can be moved on.

    :param thread: whose reactor goes by it.
    """

    def __init__(self, thread: ReactorThread) -> None:
        self._thread = thread

    def advance(self, seconds: float) -> None:
        """Let the server's time go on, as if so many seconds had passed without anybody saying a word.

        Whoever is silent for too long is logged out (600 seconds), LOGIN-DELAY is over, a login gives up
        waiting for a locked mailbox.  All of that has happened when this returns.

        :param seconds: how many.
        :raises ValueError: if they are negative, infinite or no number.
        """
        self._thread.advance(duration(seconds))

    def seconds(self) -> float:
        """The server's time, from some moment on."""
        return float(self._thread.reactor.seconds())


class RunningServer(Served):
    """A server that :func:`running_server` has started; its parameters are the same."""

    #: Where clients connect: ``127.0.0.1``, and the port's number, 0 until it has started.  With
    #: ``tls="implicit"`` it is the same as ``tls_port``.
    host: str = "127.0.0.1"
    port: int = 0
    _stopped = False

    def __init__(
        self,
        mailboxes: Mapping[str, Iterable[Message]] | None = None,
        passwords: Mapping[str, str] | None = None,
        *,
        tls: TLSMode | None = None,
        smtp: bool = False,
        gate: IGate | None = None,
        observers: Sequence[IObserver] = (),
        **options: Any,
    ) -> None:
        if tls not in (None, "stls", "implicit", "both"):
            raise TypeError(f"tls is 'stls', 'implicit' or 'both', and not {tls!r}")
        super().__init__(mailboxes, passwords)
        self._tls = tls
        self._certificates: CertificateFolder | None = None
        self._trap = Trap(self._store, self.passwords) if smtp else None
        self._smtp_recorder = Recorder(self._settle)
        self._thread = ReactorThread(f"pop3toy-testing-{next(_numbers)}")
        #: Lets the server's time go on.
        self.clock = Clock(self._thread)
        with ExitStack() as undo:
            undo.callback(self._thread.stop)
            more: dict[str, Any] = {}
            if tls is not None:
                undo.callback(self._remove_certificates)
                more["tls"] = TLS(certificate=self._make_certificates())
            if tls in ("implicit", "both"):
                more["tls_port"] = 0
            settings = settings_of(self.passwords, options, **more)
            with warnings.catch_warnings():
                # Of what Twisted does with pyOpenSSL; where warnings are errors a test must not fail for it.
                warnings.filterwarnings("ignore", "Passing pyOpenSSL", DeprecationWarning)
                self._service = self._make_service(settings, gate, observers)
            self._thread.start()
            self._thread.call(self._service.startService)
            undo.pop_all()
        ports = {(one.protocol, one.tls): one.address for one in self._service.listening}
        # With TLS alone that is the only one.
        first = ports.get(("POP3", False)) or ports[("POP3", True)]
        self._tls_port: int | None = ports[("POP3", True)].port if ("POP3", True) in ports else None
        self._smtp_port: int | None = ports[("SMTP", False)].port if smtp else None
        self.host, self.port = first.host, first.port

    def _make_certificates(self) -> str:
        try:
            from .certificates import CertificateFolder
        except ImportError as error:
            raise CannotStart(f"TLS needs more than is installed: {install_hint('tls')}") from error
        adapt_tls()
        self._certificates = CertificateFolder()
        return self._certificates.certificate

    def _remove_certificates(self) -> None:
        if self._certificates is not None:
            self._certificates.remove()

    def _make_service(self, settings: Settings, gate: IGate | None, observers: Sequence[IObserver]) -> Server:
        reactor = self._thread.reactor
        gate = self._gate(gate)
        store: Any = self._store if self._faults is None else self._faults.around_store(self._store)
        service = embedded(
            reactor,
            settings,
            store=store,
            observers=[self._recorder, *observers],
            gate=gate,
            around_tls=self._around_tls,
        )
        if self._faults is not None:
            self._faults.attach(reactor, service.control)
        if self._tls == "implicit":
            for part in list(service):
                if isinstance(part, ListeningService) and part.protocol == "POP3" and not part.tls:
                    part.disownServiceParent()
        if self._trap is not None:
            self._smtp_service(self._trap, settings).setServiceParent(service)
        return service

    def _around_tls(self, tls: GivenTLS) -> GivenTLS:
        if self._faults is None or self._certificates is None:
            return tls
        from .faults.tls import FaultyTLS

        return FaultyTLS(tls, self._faults, self._certificates.authority)

    def _smtp_service(self, trap: Trap, settings: Settings) -> ListeningService:
        """A port that takes mail for everybody, as the server's own do not."""
        from twisted.internet.endpoints import TCP4ServerEndpoint

        from ..run.tls import server_tls
        from ..smtp.factory import smtp_factory

        made = server_tls(settings.tls)
        secure: object | None = None
        if made is not None:
            from ..net.tls.contexts import ALPN_SMTP

            secure = made.speaking(ALPN_SMTP)
        reactor = self._thread.reactor
        factory = smtp_factory(
            trap,
            Everybody(),
            reactor,
            host="localhost",
            tls=secure,
            observers=Observers(self._smtp_recorder, trap),
        )

        def failed(why: CannotStart) -> None:
            raise why

        return ListeningService(
            "127.0.0.1:0",
            TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"),
            factory,
            ready=lambda name, port: None,
            failed=failed,
            drained=factory,
            protocol="SMTP",
        )

    # -- where it listens ----------------------------------------------------------------

    @property
    def tls_port(self) -> int:
        """The port with TLS from the first octet on.

        :raises AttributeError: without ``tls="implicit"`` or ``tls="both"``.
        """
        if self._tls_port is None:
            raise AttributeError("there is no port for TLS: start the server with tls='implicit' or 'both'")
        return self._tls_port

    @property
    def ca_file(self) -> str:
        """The file (PEM) of the authority that has signed the server's certificate, made for it alone.

        ``ssl.create_default_context(cafile=server.ca_file)`` trusts it; the certificate is for
        ``localhost``, ``127.0.0.1`` and ``::1``.

        :raises AttributeError: without ``tls``.
        """
        if self._certificates is None:
            raise AttributeError("there is no TLS: start the server with tls='stls', 'implicit' or 'both'")
        return self._certificates.ca_file

    @property
    def smtp_port(self) -> int:
        """The port that takes mail for everybody.

        :raises AttributeError: without ``smtp=True``.
        """
        if self._smtp_port is None:
            raise AttributeError("there is no port for mail: start the server with smtp=True")
        return self._smtp_port

    # -- what came by SMTP ----------------------------------------------------------------

    @property
    def smtp_messages(self) -> Sequence[SMTPMessage]:
        """The messages that came in by SMTP, whomever they were for."""
        self._settle()
        return list(self._trap.messages) if self._trap is not None else []

    @property
    def smtp_sessions(self) -> Sequence[Session]:
        """The SMTP sessions so far."""
        self._settle()
        return self._smtp_recorder.sessions

    @property
    def transcript(self) -> str:
        """All conversations, POP3's first."""
        self._settle()
        both = (self._recorder.transcript(), self._smtp_recorder.transcript())
        return "\n\nSMTP, ".join(filter(None, both))

    # -- the thread ---------------------------------------------------------------------------

    def _call(self, function: Callable[[], Any]) -> Any:
        return self._thread.call(function)

    def _settle(self) -> None:
        self._thread.settle()

    def stop(self) -> None:
        """Stop it, with all connections; what it has written down can still be asked for.

        Harmless when that is done already.
        """
        if self._stopped:
            return
        self._stopped = True
        ending: list[Any] = []
        self._thread.call(lambda: ending.append(self._service.stopService()))
        # Clients that a test has forgotten to close are given time, but nobody waits for it.
        self._thread.advance(_STOP)
        self._thread.call(lambda: ending[0])
        self._thread.stop()
        self._remove_certificates()

    def __repr__(self) -> str:
        if not self.port:
            return "<RunningServer, not started>"
        return f"<RunningServer at {self.host}:{self.port}{', stopped' if self._stopped else ''}>"


@contextmanager
def running_server(
    mailboxes: Mapping[str, Iterable[Message]] | None = None,
    passwords: Mapping[str, str] | None = None,
    *,
    tls: TLSMode | None = None,
    smtp: bool = False,
    gate: IGate | None = None,
    observers: Sequence[IObserver] = (),
    **options: Any,
) -> Iterator[RunningServer]:
    """A POP3 server on a free port of loopback, as long as the ``with`` block lasts.

    It runs in a thread of its own, so that the test may block, and beside whatever else runs in the
    process: other servers, a reactor, an event loop of asyncio.  It stops with the block, whatever
    clients have left open.  What the block raises, a failed assertion too, gets the conversation as a note.

    :param mailboxes: messages for each user, the oldest first, each as bytes, str, an ``email.message``
        or a path.  If neither this nor ``passwords`` is given, the toy's: ``user`` with the password
        ``pass``, and one message with the subject ``Hello World!``.
    :param passwords: of the users; ``pass`` of those who have none here.  Who has a password and no
        mailbox has an empty one.
    :param tls: ``"stls"`` offers STLS; ``"implicit"`` speaks TLS from the first octet on, and nothing
        else; ``"both"`` does both, on two ports.
    :param smtp: whether a second port takes mail for everybody: see ``smtp_messages``.  What is for one
        of the users, whatever its domain, is in the user's mailbox as well.
    :param gate: an :class:`~pop3toy.IGate` that holds, changes or drops what either side says in POP3;
        called in the server's thread.
    :param observers: each an :class:`~pop3toy.IObserver` of POP3; called there as well.
    :param options: fields of :class:`~pop3toy.Settings`, :class:`~pop3toy.Limits` and
        :class:`~pop3toy.TLS`, such as ``login_delay=60``.  Other than elsewhere a locked mailbox is
        refused at once (``lock_wait=0``), and failed logins make nobody wait.
    :raises pop3toy.errors.CannotStart: for options that cannot be, or a port that is taken.
    :raises TypeError: for what is no message, and for an option that does not exist.
    """
    running = RunningServer(
        mailboxes, passwords, tls=tls, smtp=smtp, gate=gate, observers=observers, **options
    )
    try:
        yield running
    except Exception as error:
        # Whoever shows the traceback shows the conversation.
        error.add_note(
            f"POP3 at {running.host}:{running.port}\n{running.transcript or 'nobody has connected'}"
        )
        raise
    finally:
        running.stop()
