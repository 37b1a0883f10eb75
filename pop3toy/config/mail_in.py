"""The options about mail that comes in."""

from __future__ import annotations

import re
from collections.abc import Sequence

from twisted.python import usage

from .checks import existing_file, port_number, whole_number

__all__ = ["MailInOptions"]

# Labels of letters, digits and hyphens, and any script's (RFC 5890); or an address (RFC 5321 section 4.1.3).
_DOMAIN = re.compile(r"[\w-]+(?:\.[\w-]+)*\.?|\[[0-9A-Za-z.:]+\]")


class MailInOptions(usage.Options):
    """SMTP, submission, LMTP."""

    optParameters = [
        [
            "smtp-port",
            None,
            None,
            "Take mail by SMTP on this TCP port, such as 2525. Without --maildir, mail for anybody lands in"
            " the built-in mailbox: a trap for trying things.",
        ],
        [
            "submission-port",
            None,
            None,
            "Take mail from users who log in, on this TCP port, such as 2587.",
        ],
        [
            "submission-tls-port",
            None,
            None,
            "The same with TLS from the first octet on, such as 2465; needs a certificate.",
        ],
        [
            "aliases",
            None,
            None,
            "A file of other names for users: lines `name: user, user`. It is read again when it changes.",
        ],
        ["catch-all", None, None, "The user who gets the mail that nobody else gets."],
        ["max-message-size", None, None, "The octets that a message may have (default 52428800)."],
        ["hostname", None, None, "This server's name, as SMTP says it (default: what the system says)."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["smtp"] = []
        self["lmtp"] = []
        self["domain"] = []

    def opt_smtp(self, endpoint: str) -> None:
        """Take mail by SMTP at this Twisted endpoint. May be given several times."""
        self["smtp"].append(endpoint)

    def opt_lmtp(self, endpoint: str) -> None:
        """Take mail by LMTP at this Twisted endpoint, as in unix:/run/pop3toy/lmtp.sock:mode=660 (660 is what
        it is if you leave it out), from a mail server such as Postfix. May be given several times.
        """
        if endpoint.startswith("unix:") and ":mode=" not in endpoint:
            # Twisted would let everybody on this machine deliver mail.
            endpoint += ":mode=660"
        self["lmtp"].append(endpoint)

    def opt_domain(self, domain: str) -> None:
        """A domain of the users here (default localhost): its mail is for them, and it may stand behind a
        user's name at login, as in ann@example.org for ann. May be given several times.
        """
        self["domain"].append(domain)

    def check_mail_in(self) -> None:
        """See what fits together.

        :raises twisted.python.usage.UsageError: if something does not.
        """
        port_number(self, "smtp-port")
        port_number(self, "submission-port")
        port_number(self, "submission-tls-port")
        certificates = (self["certificate"], self["certificates"], self["self-signed"])
        if self["submission-tls-port"] is not None and not any(certificates):
            needed = "--certificate, or --self-signed to try it"
            raise usage.UsageError(f"--submission-tls-port needs {needed}")
        for name, values in (("domain", self["domain"]), ("hostname", [self["hostname"]])):
            for value in values:
                if value is not None and not _DOMAIN.fullmatch(value):
                    raise usage.UsageError(f"--{name}: {value!r} is no name such as mail.example.org")
        existing_file(self, "aliases")
        whole_number(self, "max-message-size", 1000, 10**12)
        for name in ("aliases", "catch-all", "max-message-size", "hostname"):
            if self[name] and not self.wants_mail:
                raise usage.UsageError(f"--{name} needs --smtp-port, --smtp, --submission-port or --lmtp")
        for name in ("aliases", "catch-all", "domain"):
            if self[name] and self["maildir"] is None:
                raise usage.UsageError(f"--{name} needs --maildir: the toy takes mail for anybody")

    @property
    def mail_domains(self) -> Sequence[str]:
        """The domains of the users, at least one; an address without a domain is in the first."""
        return self["domain"] or ["localhost"]

    @property
    def wants_mail(self) -> bool:
        """Whether mail comes in at all."""
        ports = (self["smtp-port"], self["submission-port"], self["submission-tls-port"])
        return any(port is not None for port in ports) or bool(self["smtp"] or self["lmtp"])
