"""The files of a smarthost and of the queue: whether they can be used, and what stands in them."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...config.settings import Settings
from ...errors import BadSetting
from ...files import check_readable, why_unusable
from ...installation import install_hint
from ...net.watched_file import being_written
from ...outgoing.smarthost import Credentials, Smarthost, credentials_in, smarthost

__all__ = ["check_outgoing", "credentials_again", "credentials_of", "tls_of"]

#: Octets that a file of credentials may have.
_MOST = 4096

_USER, _PASSWORD = "POP3TOY_SMARTHOST_USER", "POP3TOY_SMARTHOST_PASSWORD"


def credentials_of(settings: Settings, environ: Mapping[str, str] | None = None) -> Credentials | None:
    """With which name and password the smarthost is asked: those of the file, or of the environment.

    :param environ: the environment; that of the process if not given.
    :return: ``None`` if there are none, as for a smarthost that knows this machine.
    :raises pop3toy.errors.BadSetting: for a file that cannot be used, or half of them.
    """
    path = settings.smarthost_credentials
    if path is None:
        environ = os.environ if environ is None else environ
        user, password = environ.get(_USER), environ.get(_PASSWORD)
        if bool(user) != bool(password):
            missing = _PASSWORD if user else _USER
            raise BadSetting("smarthost", f": {missing} is missing in the environment")
        return Credentials(user, password) if user and password else None
    check_readable("smarthost-credentials", path)
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                raise BadSetting(
                    "smarthost-credentials", f" {path}: others may read it; chmod 600 {path} ends that"
                )
            return credentials_in(file.read(_MOST))
    except OSError as error:
        raise BadSetting("smarthost-credentials", f" {path}: {error.strerror or error}") from None
    except ValueError as why:
        # Of undecodable text the message would hold a part.
        said = "it is no UTF-8" if isinstance(why, UnicodeError) else str(why)
        raise BadSetting("smarthost-credentials", f" {path}: {said}") from None


def credentials_again(
    settings: Settings, wall: Callable[[], float], before: Credentials | None
) -> Credentials | None:
    """What the file says now; in the environment nothing changes.

    :param wall: the file system's time of day, in seconds.
    :param before: what is known; stays while the file is being written, and if it can be read only once.
    :raises pop3toy.errors.BadSetting: as :func:`credentials_of`.
    """
    if settings.smarthost_credentials is None:
        return before
    with suppress(OSError):
        status = os.stat(settings.smarthost_credentials)
        if not stat.S_ISREG(status.st_mode) or being_written(status, wall()):
            return before
    return credentials_of(settings)


def tls_of(smarthost: Smarthost, ca: str | None) -> Any:
    """What TLS to the smarthost is made with: its certificate is verified, for its name.

    :param ca: a file of authorities (PEM), in place of the system's.
    :raises pop3toy.errors.BadSetting: if it cannot be used, or TLS is not installed.
    """
    if smarthost.scheme == "smtp":
        return None
    try:
        from twisted.internet.ssl import (
            Certificate,
            optionsForClientTLS,
            platformTrust,
            trustRootFromCertificates,
        )
    except ImportError:
        raise BadSetting("smarthost", f" needs TLS: {install_hint('tls')}") from None
    if ca is None:
        return optionsForClientTLS(smarthost.host, trustRoot=platformTrust())
    try:
        pem = Path(ca).read_text(encoding="ascii", errors="replace")
        blocks = re.findall("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", pem, re.DOTALL)
        authorities = [Certificate.loadPEM(block) for block in blocks]
    except OSError as error:
        raise BadSetting("smarthost-ca", f" {ca}: {(error.strerror or str(error)).lower()}") from None
    except Exception:
        authorities = []
    if not authorities:
        raise BadSetting("smarthost-ca", f" {ca}: there is no certificate (PEM) in it")
    return optionsForClientTLS(smarthost.host, trustRoot=trustRootFromCertificates(authorities))


def check_outgoing(settings: Settings) -> None:
    """See that the files of a smarthost can be used, and that the queue's folder can.

    :raises pop3toy.errors.BadSetting: with the option that names what cannot.
    """
    if settings.smarthost is None or settings.queue is None:
        return
    credentials_of(settings)
    if settings.smarthost_ca is not None:
        check_readable("smarthost-ca", settings.smarthost_ca)
    tls_of(smarthost(settings.smarthost), settings.smarthost_ca)
    if os.path.lexists(settings.queue):
        why = why_unusable(settings.queue, stat.S_ISDIR, "folder", os.R_OK | os.W_OK | os.X_OK, "write")
        if why:
            raise BadSetting("queue", f": {why}")
        if os.stat(settings.queue).st_mode & 0o007:
            raise BadSetting(
                "queue",
                f" {settings.queue}: others could read the mail in it; chmod 700 {settings.queue} ends that",
            )
        return
    parent = os.path.dirname(os.path.abspath(settings.queue))
    if why := why_unusable(parent, stat.S_ISDIR, "folder", os.W_OK | os.X_OK, "write into"):
        raise BadSetting("queue", f": {why}")
