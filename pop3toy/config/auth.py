"""The options about who may come in, and how often."""

from __future__ import annotations

from typing import Any

from twisted.cred import strcred
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.python import usage

from ..auth.accounts.memory import split_account
from ..auth.sasl.mechanisms import MECHANISMS
from ..auth.throttle.origins import Networks
from .checks import existing_file, existing_path, whole_number

__all__ = ["AuthOptions"]


class AuthOptions(usage.Options, strcred.AuthOptionMixin):
    """Accounts, mechanisms, limits."""

    supportedInterfaces = (IUsernamePassword, IUsernameHashedPassword)
    optParameters = [
        [
            "accounts",
            "a",
            None,
            "A file of users and hashed passwords, as `pop3toy user add` writes it, or Dovecot's passwd-file."
            " It is read again when it changes.",
        ],
        ["login-delay", None, None, "Seconds that a user has to wait between two logins; announced in CAPA."],
        [
            "lock-wait",
            None,
            None,
            "Seconds that a login waits for a mailbox that another session has open, before it is refused"
            " with [IN-USE] (default 5; 0 refuses at once, unless that session is just ending).",
        ],
        ["max-connections", None, None, "Connections at once, in all (default 4096)."],
        [
            "max-per-address",
            None,
            None,
            "Connections at once from one address or IPv6 /64 (default 64, and any number from loopback).",
        ],
        ["max-per-user", None, None, "Sessions of one user at once (default 10)."],
        [
            "mechanisms",
            None,
            None,
            "Offer none but these, as in USER,APOP,SCRAM-SHA-256 (default: all that work).",
        ],
        [
            "anonymous",
            None,
            None,
            "Whose mailbox AUTH ANONYMOUS may read, but not change: one that is"
            " there for visitors, because its owner cannot open it while they read. Off by default.",
        ],
        [
            "introspection",
            None,
            None,
            "The URL where OAuth tokens of OAUTHBEARER and XOAUTH2 are looked up (RFC 7662). Client id and"
            " secret are taken from the environment: POP3TOY_OAUTH_CLIENT and POP3TOY_OAUTH_SECRET.",
        ],
        [
            "introspection-audience",
            None,
            None,
            "Take no token but those that are meant for this server: this has to be one of their audiences.",
        ],
        ["introspection-scope", None, None, "Take no token but those with this scope, such as mail."],
        [
            "introspection-claim",
            None,
            None,
            "Where the endpoint's answer has the user's name: username (the default), sub, email.",
        ],
    ]
    optFlags = [
        ["allow-cleartext", None, "Take passwords without TLS from a network, where others can listen, too."],
        [
            "channel-binding",
            None,
            "Offer SCRAM's -PLUS mechanisms over TLS too. neomutt and other clients of GNU SASL choose them"
            " and then cannot log in.",
        ],
        [
            "renew-hashes",
            None,
            "Replace an outdated password hash in the accounts file when its user logs in.",
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["user"] = []
        self["master"] = []
        self["trusted"] = []
        self["credCheckers"] = []
        self["credInterfaces"] = {}

    def opt_user(self, account: str) -> None:
        """An account as NAME:PASSWORD. May be given several times. Other people on this machine can see it
        in the list of processes; use --accounts or --auth for anything but a try.
        """
        try:
            self["user"].append(split_account(account))
        except ValueError as error:
            raise usage.UsageError(f"--user: {error}") from None

    opt_u = opt_user

    def opt_master(self, name: str) -> None:
        """A user who may open the mailboxes of others, with an authorization identity (AUTH PLAIN). May be
        given several times.
        """
        self["master"].append(name)

    def opt_trusted(self, address: str) -> None:
        """An address or network that speaks for many, such as a webmail's or a fetching service's: 192.0.2.7,
        2001:db8::/64. Its connections and failed logins are not counted as one client's; the users' are. May
        be given several times.
        """
        try:
            Networks.of([address])
        except ValueError:
            raise usage.UsageError(
                f"--trusted: {address} is no address and no network such as 192.0.2.0/24"
            ) from None
        self["trusted"].append(address)

    def check_auth(self) -> None:
        """See what fits together.

        :raises twisted.python.usage.UsageError: if something does not.
        """
        names = [name for name, _ in self["user"]]
        if len(set(names)) < len(names):
            raise usage.UsageError("--user: the same name is given twice")
        for checker in self["credCheckers"]:
            # Twisted warns of a missing password file and goes on, and nobody could log in.
            path = getattr(checker, "filename", None)
            if path is not None and not getattr(self, "checked", False):
                existing_path("auth", path)
        existing_file(self, "accounts")
        whole_number(self, "login-delay", 0, 86400)
        # Clients give up after a minute or so.
        whole_number(self, "lock-wait", 0, 60)
        whole_number(self, "max-connections", 1, 1_000_000)
        whole_number(self, "max-per-address", 1, 1_000_000)
        whole_number(self, "max-per-user", 1, 1_000_000)
        if self["mechanisms"] is not None:
            self["mechanisms"] = frozenset(self["mechanisms"].upper().replace(",", " ").split())
            known = {"USER", "APOP", *MECHANISMS}
            if not self["mechanisms"] or not self["mechanisms"] <= known:
                # With a slip in it nobody could log in, and nobody would know why.
                raise usage.UsageError(f"--mechanisms: there are {', '.join(sorted(known))}")
            bound = sorted(name for name in self["mechanisms"] if name.endswith("-PLUS"))
            if bound and not self["channel-binding"]:
                raise usage.UsageError(f"--mechanisms: {bound[0]} needs --channel-binding")
            self._can_work(self["mechanisms"])
        for what in ("audience", "scope", "claim"):
            if self[f"introspection-{what}"] is not None and self["introspection"] is None:
                raise usage.UsageError(f"--introspection-{what} needs --introspection")
        if self["renew-hashes"] and self["accounts"] is None:
            raise usage.UsageError("--renew-hashes needs --accounts")

    def _can_work(self, mechanisms: frozenset[str]) -> None:
        """Whether somebody can log in with one of these.

        :raises twisted.python.usage.UsageError: if something that all of them need is not there.
        """
        tls = self["certificate"] or self["certificates"] or self["self-signed"]
        needs = {
            "EXTERNAL": ("--client-ca", self["client-ca"]),
            "OAUTHBEARER": ("--introspection", self["introspection"]),
            "XOAUTH2": ("--introspection", self["introspection"]),
            "ANONYMOUS": ("--anonymous", self["anonymous"]),
            "SCRAM-SHA-1-PLUS": ("a certificate (--certificate, or --self-signed to try it)", tls),
            "SCRAM-SHA-256-PLUS": ("a certificate (--certificate, or --self-signed to try it)", tls),
        }
        missing = [needs[name][0] for name in sorted(mechanisms) if name in needs and not needs[name][1]]
        if len(missing) == len(mechanisms):
            raise usage.UsageError(f"--mechanisms: nobody can log in without {missing[0]}")

    @property
    def has_accounts(self) -> bool:
        """Whether somebody can log in."""
        sources: tuple[Any, ...] = (
            self["user"],
            self["accounts"],
            self["credCheckers"],
            self["introspection"],
            self["client-ca"],
            self["anonymous"],
        )
        return any(sources)
