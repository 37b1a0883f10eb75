"""What TLS is made with, as the settings say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted.logger import Logger

from ..config.settings import TLS
from ..errors import CannotStart
from ..installation import install_hint

if TYPE_CHECKING:
    from ..net.tls.contexts import ServerTLS

__all__ = ["server_tls"]

log = Logger()


def server_tls(settings: TLS, kept: str | None = None) -> ServerTLS | None:
    """The certificates for STLS, STARTTLS and implicit TLS; ``None`` without any.

    :param kept: the folder where a self-signed one is kept, if it is not the user's own.
    :raises pop3toy.errors.CannotStart: for certificates that are no good, or without what TLS needs.
    """
    if not settings.wanted:
        return None
    try:
        from ..net.tls.certificate_files import BadCertificate, CertificateFiles, files_in_folder
        from ..net.tls.contexts import ServerTLS
        from ..net.tls.self_signed import self_signed
    except ImportError as error:
        raise CannotStart(f"TLS needs more than is installed: {install_hint('tls')}") from error
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    folder = kept or os.path.join(data, "pop3toy")

    def find() -> list[CertificateFiles]:
        if settings.self_signed:
            try:
                return [self_signed(folder)]
            except OSError as error:
                raise BadCertificate(f"{folder}: {error.strerror}") from error
        if settings.certificates is not None:
            return files_in_folder(settings.certificates)
        assert settings.certificate is not None, "some certificate is wanted"
        return [CertificateFiles(settings.certificate, settings.key or settings.certificate)]

    try:
        tls = ServerTLS(find, client_authorities=settings.client_ca)
    except BadCertificate as why:
        raise CannotStart(str(why)) from why
    if settings.self_signed:
        log.info(
            "TLS with a certificate for localhost that this server made: {path}; for trying only",
            path=self_signed(folder).certificate,
        )
    return tls
