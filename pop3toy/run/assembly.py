"""Puts the server together: the only room that knows all others.

``twistd pop3toy`` finds :class:`Options` and :func:`makeService` here.  A server
with workers is put together by ``supervised``, and each worker by ``as_worker``.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet.address import UNIXAddress
from twisted.logger import Logger

from ..clock import use_monotonic_time
from ..config.cmdline import Options
from ..interfaces import IDelivery, IMailStore
from ..net.fast.reply_batcher import turns_of
from ..net.threads import WorkerThreads
from ..net.transport import is_loopback
from ..observe.session_log import LogMeter
from ..observe.transcript import WriterTranscript
from ..pop3.factory import POP3Factory, SilentMeter
from ..stores import hello
from ..stores.maildir.count import MAX_LISTED_SIZE
from ..stores.maildir.store import MaildirStore
from .access import Access, server_tls
from .log_lines import set_observer
from .mail_in import listen_for_mail, maildir_delivery
from .ports import Ports, refuse_to_start
from .process import ProcessTuning, StopSignals
from .process_context import Premises, alone
from .recipients import recipients_of_all, recipients_of_users
from .service import OrderedService, ReloadService, TranscriptService

__all__ = ["Options", "makeService"]

log = Logger()

#: An endpoint that listens to more than this machine.
_PUBLIC = re.compile(r"tcp6?:(?!.*interface=(?:127\.|localhost|\\:\\:1))")

#: Threads that write mail: the more there are, the more fsyncs the file system
#: can join into one.
DELIVERY_THREADS = 16


def makeService(options: Options, reactor: Any = None) -> IService:
    """The whole server as one service.

    :param options: parsed options.
    :param reactor: the global one if not given.

    Where ``twistd pop3toy`` runs, the reactor is told to measure durations by a clock that
    nobody sets; in another program it is left as it is.
    """
    if reactor is None:
        from twisted.internet import reactor as installed

        reactor = installed
        if options.parent is not None:
            use_monotonic_time(reactor)
    if options["workers"] is not None:
        from .supervised import supervised

        return supervised(options, reactor)
    return assemble(options, reactor, alone(options, reactor, server_tls(options), turns=turns_of(reactor)))


def assemble(options: Options, reactor: Any, premises: Premises) -> OrderedService:
    """The server of one process.

    Its parts are started in the order in which they are added here, and
    stopped in the other.
    """
    toy = options.maildirs is None
    # Newcomers have two lines to read, and they are not Twisted's.
    starting = _until_it_runs(reactor) if toy else None
    server = OrderedService(
        partial(set_observer, twistd=options.twistd, turns=premises.turns, starting=starting)
    )
    ProcessTuning().setServiceParent(server)
    StopSignals(reactor).setServiceParent(server)
    if premises.turns is not None:
        premises.turns.setServiceParent(server)
    ports = Ports(options, premises.listening, server)
    accounts = dict(options["user"])
    if toy and not accounts:
        accounts = {hello.USER: hello.PASSWORD}
    transcript = _transcript(options, server)
    access = Access(options, reactor, server, accounts, premises.counts, at_once=premises.at_once)
    store, delivery = _stores(options, reactor, server, access, accounts)
    tls = premises.tls
    if not toy or tls is not None:
        # Also with nothing to read again: SIGHUP must not end a server that others rely on.
        ReloadService(reactor, premises.reloads).setServiceParent(server)
    factory = POP3Factory(
        reactor,
        access.for_maildrops(store),
        transcript=transcript,
        meter=SilentMeter() if toy else LogMeter(),
        gatekeeper=premises.readers,
        tls_context=tls,
        numbers=premises.numbers,
        turns=premises.turns,
    )
    hint = f" (user `{hello.USER}`, password `{hello.PASSWORD}`)" if toy and not options["user"] else ""
    _warn_of_nobody(options, tls)
    crowd = premises.readers
    plain = [ports.described("listen", one, crowd) for one in options["listen"]] or [
        ports.tcp(options["port"])
    ]
    # With telnet nobody gets through TLS, or past the header of a proxy.
    talkable = not options["listen"] or options["listen"][0].startswith(("tcp:", "tcp6:", "unix:"))
    next_step = partial(_next_step, options, accounts) if toy and talkable else None
    ports.listen(plain, factory, f"POP3{hint}", next_step=next_step)
    encrypted = [ports.described("tls-listen", one, crowd) for one in options["tls-listen"]]
    if options["tls-port"] is not None:
        encrypted.append(ports.tcp(options["tls-port"]))
    if encrypted:
        ports.listen(encrypted, factory, "POP3 over TLS", tls=tls)
    if options.wants_mail:
        if options.maildirs is None:
            recipients = recipients_of_all(next(iter(accounts)))
        else:
            recipients = recipients_of_users(options, reactor, server, access, at_once=premises.at_once)
        listen_for_mail(
            options,
            reactor,
            ports,
            access,
            delivery,
            recipients,
            transcript=transcript,
            premises=premises,
            tls=tls,
        )
    return server


def _next_step(options: Options, accounts: dict[str, str], address: Any) -> str:
    """What somebody who has just started the toy may type, and what ends it."""
    if isinstance(address, UNIXAddress):
        client = f"nc -CU {os.fsdecode(address.name or b'')}"
    else:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
        client = f"telnet {host} {address.port}"
    user, password = next(iter(accounts.items()))
    known = password if not options["user"] else "..."
    end = "; Ctrl-C here ends the server" if options.twistd.get("nodaemon") else ""
    typed = f"USER {user}, PASS {known}, LIST, RETR 1, QUIT"
    return f"next, in another terminal, type {client} and then {typed}{end}"


def _until_it_runs(reactor: Any) -> Callable[[], bool]:
    """True as long as the reactor has not begun to run."""
    begun: list[bool] = []
    reactor.callWhenRunning(begun.append, True)
    return lambda: not begun


def _warn_of_nobody(options: Options, tls: Any) -> None:
    """Say that nobody on the network can log in, though the port is open to it."""
    if options["listen"]:
        public = any(_PUBLIC.match(one) for one in options["listen"])
    else:
        public = not is_loopback(options["interface"])
    if public and tls is None and not options["allow-cleartext"]:
        log.warn(
            "only clients on this machine can log in with a password: from a network that takes TLS; give a"
            " certificate with --certificate (--self-signed to try it), or --allow-cleartext"
        )


def _transcript(options: Options, server: OrderedService) -> WriterTranscript | None:
    where = options["transcript"]
    if where == "off":
        return None
    # Only the built-in account, which everybody knows, is shown with its password.
    masked = options.maildirs is not None or bool(options["user"])
    if where == "-" and not options.twistd.get("nodaemon", True):
        log.warn(
            "nobody will see the conversation: a daemon has no terminal; use twistd -n, or --transcript FILE"
        )
    if where == "-":
        transcript = WriterTranscript.to_terminal(masked=masked)
    else:
        transcript = WriterTranscript.to_file(where, masked=masked)
    TranscriptService(transcript).setServiceParent(server)
    return transcript


def _messages(paths: Sequence[str]) -> list[bytes] | None:
    """The toy's own messages, if there are any."""
    messages = []
    for path in paths:
        try:
            messages.append(Path(path).read_bytes())
        except OSError as error:
            refuse_to_start(f"--message {path}: {error.strerror}")
    return messages or None


def _stores(
    options: Options, reactor: Any, server: OrderedService, access: Access, accounts: dict[str, str]
) -> tuple[IMailStore, IDelivery]:
    """Where mail is read and where it is written."""
    if options.maildirs is None:
        toy: Any = hello.hello_store(time.time(), accounts, _messages(options["message"]))
        return toy, toy
    reading = WorkerThreads(reactor)
    scanning = WorkerThreads(reactor, name="scans")
    writing = WorkerThreads(reactor, name="delivery", size=DELIVERY_THREADS)
    for threads in (reading, scanning, writing):
        threads.setServiceParent(server)
    largest = options["max-listed-size"]
    store: Any = MaildirStore(
        options.maildirs,
        reading.run,
        scan_in_thread=scanning.run,
        max_listed_size=MAX_LISTED_SIZE if largest is None else largest,
        is_over=scanning.is_over,
    )
    delivery = maildir_delivery(options.maildirs, writing.run, reactor, access, socket.gethostname())
    return store, delivery
