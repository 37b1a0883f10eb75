"""What a file of options does not show: files, certificates, mailboxes and ports as they are.

Each look gives findings, a line each.  What is wrong with the options themselves is told before
(``cli.config``); nothing is changed here, and no other machine is asked unless that is wanted.
"""

from __future__ import annotations

import os
import smtplib
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Final, Literal, NamedTuple, cast
from urllib.parse import urlsplit

from twisted.internet.protocol import Factory

from ...config.settings import Settings
from ...errors import BadSetting, StoreTrouble
from ...files import check_readable, may
from ...net.types import IReactor
from ...run.ports import Port, endpoint_of, http_ports_of, ports_of
from ...run.tls import server_tls
from ...stores.registry import kind_of
from ..options import accounts_of
from .as_user import RunsAs
from .taken import Holder, Recorder, Where, first_port_for_all, holders, is_served, try_to_bind

__all__ = ["ONLINE", "Finding", "as_the_user", "as_who_starts"]

Status = Literal["ok", "note", "wrong"]

#: Days before its end from which a certificate is worth a note.
SOON: Final = 14
#: Names that a line holds before it says how many more there are.
SHOWN: Final = 5
#: Seconds for another machine to answer.
PATIENCE: Final = 15.0


class Finding(NamedTuple):
    """One line."""

    #: What was looked at: ``file``, ``certificate``, ``mailboxes``, ``port``, ``store``, ``smarthost``.
    about: str
    #: ``wrong`` keeps the server, or somebody's mail, from working.
    status: Status
    text: str


def as_the_user(settings: Settings, *, online: bool, certificates: bool = True) -> Iterator[Finding]:
    """What is to be looked at as the user that the server runs as.

    :param certificates: whether that user reads them, too.
    """
    yield from _files(settings)
    if certificates:
        yield from _certificates(settings)
    yield from _mailboxes(settings)
    yield from _unix_sockets(settings)
    if online:
        for look in ONLINE:
            yield from look(settings)
    elif kind_of(settings.store).on_network:
        yield Finding("store", "note", "it was not asked whether it answers; --online does")


def as_who_starts(settings: Settings, runs_as: RunsAs | None, *, certificates: bool) -> Iterator[Finding]:
    """What is to be looked at as the user that has started this command."""
    if certificates:
        yield from _certificates(settings)
    yield from _ports(settings, runs_as)


# -- files -----------------------------------------------------------------------------------------


def _files(settings: Settings) -> Iterator[Finding]:
    named = (
        ("accounts", settings.accounts_file),
        ("aliases", settings.aliases),
        ("inspector-token-file", settings.inspector_token_file),
    )
    for option, path in named:
        if path is None:
            continue
        try:
            check_readable(option, path)
        except BadSetting as why:
            yield Finding("file", "wrong", str(why).removeprefix("--"))
            continue
        yield Finding("file", "ok", f"{option} {path}: can be read")
        if option == "accounts" and settings.renew_hashes and not may(os.path.dirname(path), os.W_OK):
            yield Finding(
                "file",
                "note",
                f"renew-hashes: no permission to write into the folder of {path}, hence not done",
            )


def _certificates(settings: Settings) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory() as kept:
        tls = server_tls(settings.tls, kept)
    if tls is None:
        yield Finding("certificate", "note", "there is none, hence no TLS")
        return
    # It is installed if there is TLS.
    from ...net.tls.contexts import names_of

    now = time.time()
    covered: list[str] = []
    for pair in tls.in_use.pairs:
        leaf = pair.chain()[0]
        names = names_of(leaf)
        covered += names
        days = int((leaf.not_valid_after_utc.timestamp() - now) // 86400)
        where = "made at the first start" if settings.tls.self_signed else pair.files.certificate
        left = f"{days} {'day' if days == 1 else 'days'} left"
        what = f"{where}: fits its key, for {_some(names) or 'no name'}, {left}"
        yield Finding("certificate", "note" if days < SOON else "ok", what)
    host = settings.hostname
    if host and not any(_is_for(name, host.lower()) for name in covered):
        yield Finding("certificate", "note", f"none is for hostname, {host}: mail programs will refuse it")


def _is_for(name: str, host: str) -> bool:
    # A wildcard stands for one label (RFC 6125 section 6.4.3).
    return fnmatchcase(host, name) and host.count(".") == name.count(".")


# -- mailboxes -------------------------------------------------------------------------------------


def _mailboxes(settings: Settings) -> Iterator[Finding]:
    kind = kind_of(settings.store)
    if kind.admin is None:
        yield Finding("mailboxes", "ok", f"{kind.what}")
        return
    if kind.on_network:
        return
    admin = kind.admin(settings.store)
    # Of folders; other kinds have no place that this could look at by itself.
    path = str(getattr(settings.store, "path", ""))
    where = path or kind.what
    names = sorted(
        {*(accounts_of(settings) if settings.accounts_file else ()), *(name for name, _ in settings.users)}
    )
    missing = []
    found = 0
    for name in names if settings.store.for_each_user else [""]:
        try:
            there = admin.exists(name) if settings.store.for_each_user else True
        except StoreTrouble as why:
            yield Finding("mailboxes", "wrong", f"{name}: {why.detail}")
            continue
        if not there:
            missing.append(name)
            continue
        found += 1
        if not path:
            continue
        mailbox = os.path.abspath(os.path.expanduser(path.replace("{user}", name)))
        parts = [mailbox, *(os.path.join(mailbox, part) for part in ("new", "cur", "tmp"))]
        if locked := [
            one for one in parts if os.path.exists(one) and not may(one, os.R_OK | os.W_OK | os.X_OK)
        ]:
            yield Finding("mailboxes", "wrong", f"no permission to read, write and search {locked[0]}")
    if not names:
        yield Finding("mailboxes", "note", f"{where}: no users are known here, hence nothing was looked at")
        return
    if settings.store.for_each_user:
        yield Finding(
            "mailboxes",
            "ok",
            f"{where}: {found} of {len(names)} user{'s have' if len(names) != 1 else ' has'} one",
        )
    if missing and settings.store.create and path:
        root = os.path.dirname(os.path.expanduser(path).partition("{user}")[0])
        if not may(root, os.W_OK | os.X_OK):
            yield Finding("mailboxes", "wrong", f"no permission to make mailboxes in {root}")
    elif missing and not settings.store.create:
        yield Finding("mailboxes", "note", f"none of {_some(missing)}: create is off, so they are refused")


def _some(names: tuple[str, ...] | list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


# -- ports -----------------------------------------------------------------------------------------


def _all_ports(settings: Settings) -> Iterator[tuple[Port, Where]]:
    """Where the server would listen, HTTP too; what systemd hands over is not among it."""
    for port in (*ports_of(settings), *http_ports_of(settings)):
        if port.description.startswith("systemd:"):
            continue
        recorder = Recorder()
        _, endpoint = endpoint_of(port, settings, cast(IReactor, recorder))
        endpoint.listen(Factory())
        yield from ((port, where) for where in recorder.asked)


def _ports(settings: Settings, runs_as: RunsAs | None) -> Iterator[Finding]:
    held = []
    # What is opened for the same number before; on any address, since they may overlap.
    ours: dict[int, str] = {}
    try:
        for port, where in _all_ports(settings):
            if where.path:
                continue
            host = where.host or "0.0.0.0"
            name = f"{f'[{host}]' if ':' in host else host}:{where.port} for {port.spoken}"
            if where.port == 0:
                yield Finding("port", "ok", f"{name}: any that is free")
                continue
            if _is_for_root(where.port, runs_as):
                yield Finding(
                    "port",
                    "wrong",
                    f"{name}: only root opens ports below {first_port_for_all()}: let systemd open it (a"
                    " .socket unit), or start as root with twistd --uid",
                )
                continue
            tried = try_to_bind(where)
            if isinstance(tried, OSError):
                yield _taken(name, where.port, tried, ours.get(where.port))
            else:
                held.append(tried)
                ours[where.port] = port.spoken
                yield Finding("port", "ok", f"{name}: free")
    finally:
        for one in held:
            one.close()


def _is_for_root(port: int, runs_as: RunsAs | None) -> bool:
    """Whether the user who will open it may not; for the user of this command, trying it tells."""
    if runs_as is None or runs_as.begins_as_root or runs_as.may_bind or runs_as.user.pw_uid == 0:
        return False
    return port < first_port_for_all()


def _taken(name: str, port: int, error: OSError, ours: str | None) -> Finding:
    if isinstance(error, PermissionError):
        return Finding(
            "port", "wrong", f"{name}: no permission; only root opens ports below {first_port_for_all()}"
        )
    if ours is not None:
        return Finding("port", "wrong", f"{name}: the same port is for {ours} already; give each its own")
    found = holders(port)
    if found and all(one.is_pop3toy for one in found):
        text = f"{name}: pop3toy itself has it ({_pids(found)})"
        return Finding("port", "ok", text)
    who = f"; {_pids(found)} has it" if found else ""
    return Finding("port", "wrong", f"{name}: {(error.strerror or str(error)).lower()}{who}")


def _pids(found: list[Holder]) -> str:
    return ", ".join(f"{one.name}, process {one.pid}" for one in found)


def _unix_sockets(settings: Settings) -> Iterator[Finding]:
    for port, where in _all_ports(settings):
        if not where.path:
            continue
        name = f"{where.path} for {port.spoken}"
        folder = os.path.dirname(os.path.abspath(where.path))
        served = is_served(where.path) if os.path.exists(where.path) else False
        if served is True:
            yield Finding("port", "note", f"{name}: somebody listens there; that may be pop3toy itself")
        elif isinstance(served, OSError):
            yield Finding("port", "note", f"{name}: {(served.strerror or str(served)).lower()}")
        elif not os.path.isdir(folder):
            yield Finding("port", "note", f"{name}: there is no folder {folder} yet")
        elif not may(folder, os.W_OK | os.X_OK):
            yield Finding("port", "wrong", f"{name}: no permission to make a socket in {folder}")
        else:
            yield Finding("port", "ok", f"{name}: free")


# -- other machines --------------------------------------------------------------------------------


def _store_answers(settings: Settings) -> Iterator[Finding]:
    kind = kind_of(settings.store)
    if not kind.on_network or kind.admin is None:
        return
    try:
        kind.admin(settings.store).exists("postmaster")
    except StoreTrouble as why:
        yield Finding("store", "wrong", f"{_place(settings)}: {why.detail or why.text}")
    else:
        yield Finding("store", "ok", f"{_place(settings)}: answers")


def _place(settings: Settings) -> str:
    return str(getattr(settings.store, "url", kind_of(settings.store).what))


def _smarthost_answers(settings: Settings) -> Iterator[Finding]:
    url = settings.smarthost
    if url is None:
        return
    parts = urlsplit(url)
    host = parts.hostname or ""
    shown = f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")
    context = ssl.create_default_context(cafile=settings.smarthost_ca)
    try:
        if parts.scheme == "smtps":
            with smtplib.SMTP_SSL(host, parts.port or 465, timeout=PATIENCE, context=context) as client:
                client.ehlo()
        else:
            starttls = parts.scheme == "smtp+starttls"
            with smtplib.SMTP(host, parts.port or (587 if starttls else 25), timeout=PATIENCE) as client:
                client.ehlo()
                if starttls:
                    client.starttls(context=context)
                    client.ehlo()
    except (OSError, smtplib.SMTPException) as error:
        yield Finding("smarthost", "wrong", f"{shown}: {error}")
    else:
        yield Finding("smarthost", "ok", f"{shown}: answers; whether it lets us in was not tried")


#: What is asked of other machines, with ``--online``.
ONLINE: Final[tuple[Callable[[Settings], Iterator[Finding]], ...]] = (_store_answers, _smarthost_answers)
