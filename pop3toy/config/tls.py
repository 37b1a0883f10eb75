"""The options about TLS."""

from __future__ import annotations

import os

from twisted.python import usage

from .checks import port_number

__all__ = ["TLSOptions"]


class TLSOptions(usage.Options):
    """Certificates, and the port for TLS from the first octet on."""

    optParameters = [
        [
            "tls-port",
            None,
            None,
            "The TCP port for TLS from the first octet on (pop3s), such as 2995; needs a certificate.",
        ],
        ["certificate", None, None, "A certificate with its chain (PEM) for STLS and --tls-port."],
        ["key", None, None, "The certificate's private key (PEM), if that is not in the same file."],
        [
            "certificates",
            None,
            None,
            "A folder of certificates, chosen by the name that the client asks for (SNI): NAME.pem,"
            " NAME.crt with NAME.key, or NAME/fullchain.pem with NAME/privkey.pem.",
        ],
        [
            "client-ca",
            None,
            None,
            "The authorities (PEM) whose client certificates are taken for AUTH EXTERNAL: the mail address or"
            " common name in one is the user.",
        ],
    ]
    optFlags = [
        ["self-signed", None, "Make a certificate for localhost, keep it, and use it: for trying TLS."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["tls-listen"] = []

    def opt_tls_listen(self, endpoint: str) -> None:
        """Where to listen with TLS from the first octet on, as a Twisted endpoint; see --listen. May be given
        several times.
        """
        self["tls-listen"].append(endpoint)

    def check_tls(self) -> None:
        """See what fits together.

        :raises twisted.python.usage.UsageError: if something does not.
        """
        given = [name for name in ("certificate", "certificates", "self-signed") if self[name]]
        if len(given) > 1:
            raise usage.UsageError(f"--{given[0]} and --{given[1]} do not go together")
        for name, needed in (("tls-port", given), ("client-ca", given), ("key", self["certificate"])):
            if self[name] is not None and not needed:
                raise usage.UsageError(f"--{name} needs --certificate, or --self-signed to try it")
        if self["tls-listen"] and not given:
            raise usage.UsageError("--tls-listen needs --certificate, or --self-signed to try it")
        port_number(self, "tls-port")
        for name in ("certificate", "key", "certificates", "client-ca"):
            if self[name] is not None:
                # twistd changes to another folder when it becomes a daemon.
                self[name] = os.path.abspath(self[name])

    @property
    def wants_tls(self) -> bool:
        """Whether STLS is offered."""
        return bool(self["certificate"] or self["certificates"] or self["self-signed"])
