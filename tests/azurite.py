"""Azurite for tests: the blob service of Azure as an emulator, in a process of its own on loopback."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import shutil
import tempfile
from email.utils import formatdate
from pathlib import Path
from urllib.parse import urlsplit

from twisted.trial.unittest import SkipTest

from .realserver import free_port
from .s3servers import run_with_us

__all__ = ["ACCOUNT", "CONTAINER", "KEY", "azurite"]

#: The account that each Azurite has, with the key that its documentation gives.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
CONTAINER = "mail"
#: Where ``npm install --prefix /opt/azurite azurite`` puts it.
_PLACES = ("azurite-blob", "/opt/azurite/node_modules/.bin/azurite-blob")

_endpoint: str | None = None


def azurite() -> str:
    """The address of the Azurite of this run of tests, in which there is the container ``mail``.

    :raises SkipTest: where it is not installed.
    """
    global _endpoint
    program = next(filter(None, map(shutil.which, _PLACES)), None)
    if program is None:
        raise SkipTest("Azurite is not installed: npm install --prefix /opt/azurite azurite")
    if _endpoint is None:
        port, folder = free_port(), tempfile.mkdtemp(prefix="azurite-")
        options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", folder]
        # A newer library may speak of a newer version of the service.
        run_with_us([program, *options, "--silent", "--skipApiVersionCheck"], port, folder=Path(folder))
        _endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        _make_container(_endpoint)
    return _endpoint


def _make_container(endpoint: str) -> None:
    """Make the container by a signed request, for which obstore has no call."""
    date, version = formatdate(usegmt=True), "2021-08-06"
    path = f"/{ACCOUNT}/{CONTAINER}"
    signed = f"PUT{12 * chr(10)}x-ms-date:{date}\nx-ms-version:{version}\n/{ACCOUNT}{path}\nrestype:container"
    digest = hmac.digest(base64.b64decode(KEY), signed.encode("ascii"), hashlib.sha256)
    headers = {
        "x-ms-date": date,
        "x-ms-version": version,
        "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode('ascii')}",
        "Content-Length": "0",
    }
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=60)
    connection.request("PUT", f"{path}?restype=container", headers=headers)
    response = connection.getresponse()
    assert response.status == 201, response.read()
    connection.close()
