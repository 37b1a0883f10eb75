"""The whole server with the faults of a file around it: what ``twistd pop3toy --faults FILE`` runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from twisted.logger import Logger

from ...config.settings import Settings
from ...errors import CannotStart
from ...net.types import IReactor
from ...run.assembly import assemble
from ...run.process import TwistdOptions
from ...run.process_context import ProcessContext
from ...run.service import Server
from .file import check_small, read_faults

if TYPE_CHECKING:
    from ..certificates import Authority

__all__ = ["assemble_with_faults", "check_faults"]

log = Logger()


def check_faults(path: str) -> None:
    """See that a file of faults can be used.

    :raises pop3toy.errors.CannotStart: if not.
    """
    authority = read_faults(path).authority
    if authority is not None:
        _authority(authority)


def _authority(path: str) -> Authority:
    try:
        from ..certificates import Authority
    except ImportError as error:
        from ...installation import install_hint

        raise CannotStart(f"TLS needs more than is installed: {install_hint('tls')}") from error
    try:
        check_small(path)
        return Authority.read(path)
    except OSError as error:
        raise CannotStart(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, TypeError) as error:
        raise CannotStart(f"{path}: no certificate and key in PEM in it: {error}") from error


def assemble_with_faults(
    settings: Settings, reactor: IReactor, context: ProcessContext, *, twistd: TwistdOptions | None = None
) -> Server:
    """See :func:`pop3toy.run.assembly.assemble`.

    :raises pop3toy.errors.CannotStart: also for a file of faults that cannot be used.
    """
    assert settings.faults is not None, "there is a file of faults"
    file = read_faults(settings.faults)
    faults = file.faults
    if context.tls is not None:
        from .tls import FaultyTLS

        authority = _authority(file.authority) if file.authority is not None else None
        context = replace(context, tls=FaultyTLS(context.tls, faults, authority))
    log.warn(
        "this server is wrong on purpose, for tests only: faults of {path}, {count} of them",
        count=len(faults),
        path=settings.faults,
    )
    made = assemble(settings, reactor, context, gate=faults, around_store=faults.around_store, twistd=twistd)
    faults.attach(reactor, made.control)
    return made
