"""What a server is told: one frozen value, made by a command line, a file or another program alike.

Every check that needs no file is here, once.  What has to look at files is in
``run.checks``.  Nothing here is live: no checker, no reactor, only text and
numbers, which travel to worker processes as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import BadSetting, CannotStart
from ..option import ENDPOINT, FLAG, PATH, TEXT, Kind, check, number, option
from ..stores.registry import STORES, Toy, kind_of
from . import values

__all__ = ["TLS", "Limits", "Settings"]


@dataclass(frozen=True)
class TLS:
    """Certificates.  With none of them there is no TLS.

    :raises pop3toy.errors.BadSetting: for what cannot be, or does not go together.
    """

    table: ClassVar[str] = "tls"

    certificate: str | None = option("A certificate with its chain (PEM) for STLS and --tls-port.", kind=PATH)
    key: str | None = option(
        "The certificate's private key (PEM), if that is not in the same file.", kind=PATH
    )
    certificates: str | None = option(
        "A folder of certificates, chosen by the name that the client asks for (SNI): NAME.pem,"
        " NAME.crt with NAME.key, or NAME/fullchain.pem with NAME/privkey.pem.",
        kind=PATH,
    )
    self_signed: bool = option(
        "Make a certificate for localhost, keep it, and use it: for trying TLS.", False, kind=FLAG
    )
    client_ca: str | None = option(
        "The authorities (PEM) whose client certificates are taken for AUTH EXTERNAL: the mail address or"
        " common name in one is the user.",
        kind=PATH,
    )

    def __post_init__(self) -> None:
        """Check the values, and what goes together."""
        check(self)
        kinds = (
            ("certificate", self.certificate),
            ("certificates", self.certificates),
            ("self-signed", self.self_signed),
        )
        given = [name for name, value in kinds if value]
        if len(given) > 1:
            raise BadSetting(given[0], f" and --{given[1]} do not go together")
        if self.client_ca is not None and not given:
            raise BadSetting("client-ca", _NEEDS_CERTIFICATE)
        if self.key is not None and self.certificate is None:
            raise BadSetting("key", _NEEDS_CERTIFICATE)

    @property
    def wanted(self) -> bool:
        """Whether there is a certificate, and so STLS and STARTTLS."""
        return bool(self.certificate or self.certificates or self.self_signed)


_NEEDS_CERTIFICATE = " needs --certificate, or --self-signed to try it"
#: Where nobody on a network can listen: an address, or an endpoint.
_OF_THIS_MACHINE = re.compile(r"^(?:unix:|127\.|::1$|localhost$)|:interface=(?:127\.|localhost|\\:\\:1)")
_NEEDS_REAL_MAIL = " needs --maildir or --store"


@dataclass(frozen=True)
class Limits:
    """How much at once, and how often.  ``None`` is the default that the help tells.

    :raises pop3toy.errors.BadSetting: for a value that cannot be.
    """

    table: ClassVar[str] = "limits"

    login_delay: int = option(
        "Seconds that a user has to wait between two logins; announced in CAPA.", 0, kind=number(0, 86400)
    )
    lock_wait: int = option(
        "Seconds that a login waits for a mailbox that another session has open, before it is refused with"
        " [IN-USE] (0 refuses at once, unless that session is just ending).",
        5,
        # Clients give up after a minute or so.
        kind=number(0, 60),
    )
    max_connections: int | None = option(
        "Connections at once, in all (default 4096).",
        kind=number(1, 1_000_000),
        example=4096,
    )
    max_per_address: int | None = option(
        "Connections at once from one address or IPv6 /64 (default 64, and any number from loopback).",
        kind=number(1, 1_000_000),
        example=64,
    )
    max_per_user: int | None = option(
        "Sessions of one user at once (default 10).", kind=number(1, 1_000_000), example=10
    )
    max_message_size: int | None = option(
        "The octets that a message may have (default 52428800).",
        kind=number(1000, 10**12),
        example=52428800,
    )
    stop_delay: int = option(
        "Seconds for which a server that is told to stop or to drain goes on to take connections, while"
        " /healthz says already that it does not (default 0): longer than a load balancer takes to notice.",
        0,
        kind=number(0, 3600),
    )
    trusted: tuple[str, ...] = option(
        "An address or network that speaks for many, such as a webmail's or a fetching service's: 192.0.2.7,"
        " 2001:db8::/64. Its connections and failed logins are not counted as one client's; the users' are.",
        kind=Kind(values.network, "NETWORK"),
        many=True,
    )

    def __post_init__(self) -> None:
        """Check the values."""
        check(self)


@dataclass(frozen=True)
class Settings:
    """Everything that a server is told; each field is the option of its name.

    Passwords of ``users`` do not show in the repr.

    :raises pop3toy.errors.BadSetting: for what cannot be, or does not go together.
    """

    port: int = option(
        "The TCP port where mail programs connect. 0 takes any free one.",
        2590,
        kind=values.PORT,
        table="pop3",
        short="p",
    )
    interface: str = option(
        "The address to listen on: 127.0.0.1 is this machine only, 0.0.0.0 or :: is every network.",
        "127.0.0.1",
        kind=Kind(values.interface, "ADDRESS"),
        table="pop3",
        short="i",
    )
    listen: tuple[str, ...] = option(
        "Where to listen, as a Twisted endpoint, instead of --port and --interface: tcp:2590, tcp6:2590,"
        " unix:/run/pop3toy.sock, systemd:domain=INET:index=0, haproxy:tcp:2590.",
        kind=ENDPOINT,
        table="pop3",
        many=True,
    )
    tls_port: int | None = option(
        "The TCP port for TLS from the first octet on (pop3s), such as 2995; needs a certificate.",
        kind=values.PORT,
        table="pop3",
        example=2995,
    )
    tls_listen: tuple[str, ...] = option(
        "Where to listen with TLS from the first octet on, as a Twisted endpoint; see --listen.",
        kind=ENDPOINT,
        table="pop3",
        many=True,
    )
    transcript: str | None = option(
        "Where the conversations are written: '-' is the terminal (the toy's default), a file's name, or"
        " 'off' (the default with real mail). Passwords are masked, except the toy's own.",
        kind=Kind(TEXT.parse, "FILE", path=lambda text: text not in ("-", "off")),
        table="pop3",
    )
    transcript_json: str | None = option(
        "Where the conversations are written as JSON Lines, for programs: a file's name. What a line holds"
        " is in docs/transcript.schema.json; secrets are masked as with --transcript.",
        kind=PATH,
        table="pop3",
    )
    explain: bool = option(
        "Explain the conversations, in --transcript: what each line asks and says, what can be overheard,"
        " where the rules stand, and in the end a summary.",
        False,
        kind=FLAG,
        table="pop3",
    )
    language: str | None = option(
        "The language of explanations: en or it (default: the locale's, or English).",
        kind=Kind(values.language, "LANGUAGE"),
        table="pop3",
        example="it",
    )
    show_secrets: bool = option(
        "Show passwords and the like in the conversations of the built-in mailbox, for --user too. With real"
        " mail they are never shown.",
        False,
        kind=FLAG,
        table="pop3",
    )
    faults: str | None = option(
        "A file of faults (TOML): what this server does wrong on purpose, to see what a mail program makes"
        " of it; see docs/testing.rst.",
        kind=PATH,
        table="pop3",
    )
    expire_days: int | None = option(
        "Remove messages that came more than this many days ago, fetched or not, and announce it in CAPA"
        " (EXPIRE). Default: they stay until they are deleted.",
        kind=number(1, 36500),
        table="pop3",
        example=90,
    )
    #: The kind of store, with what is said of it.
    store: Any = dataclasses.field(default_factory=Toy)
    tls: TLS = dataclasses.field(default_factory=TLS)
    accounts: str | None = option(
        "A file of users and hashed passwords, as `pop3toy user add` writes it, or Dovecot's passwd-file."
        " It is read again when it changes. With --store the word objects keeps users there, beside their"
        " mail: `pop3toy user` with the same options works on them (a file of this name is ./objects).",
        kind=values.ACCOUNTS,
        table="accounts",
        short="a",
    )
    users: tuple[tuple[str, str], ...] = option(
        "An account as NAME:PASSWORD. Other people on this machine can see it in the list of processes; use"
        " --accounts or --auth for anything but a try.",
        name="user",
        kind=Kind(values.account, "NAME:PASSWORD"),
        table="accounts",
        many=True,
        short="u",
        secret=True,
    )
    auth: tuple[str, ...] = option(
        "Ask a checker of twisted.cred, written as TYPE:ARGUMENTS; see --help-auth.",
        kind=Kind(TEXT.parse, "CHECKER"),
        table="accounts",
        many=True,
        secret=True,
    )
    masters: tuple[str, ...] = option(
        "A user who may open the mailboxes of others, with an authorization identity (AUTH PLAIN).",
        name="master",
        kind=Kind(TEXT.parse, "NAME"),
        table="accounts",
        many=True,
    )
    anonymous: str | None = option(
        "Whose mailbox AUTH ANONYMOUS may read, but not change. Visitors hold no lock: its owner can open it"
        " while they read. Off by default.",
        kind=Kind(TEXT.parse, "NAME"),
        table="accounts",
    )
    mechanisms: tuple[str, ...] | None = option(
        "Offer none but these, as in USER,APOP,SCRAM-SHA-256 (default: all that work).",
        kind=Kind(values.mechanisms, "NAMES"),
        table="accounts",
    )
    allow_cleartext: bool = option(
        "Take passwords without TLS from a network, where others can listen, too.",
        False,
        kind=FLAG,
        table="accounts",
    )
    channel_binding: bool = option(
        "Offer SCRAM's -PLUS mechanisms over TLS too. neomutt and other clients of GNU SASL choose them and"
        " then cannot log in.",
        False,
        kind=FLAG,
        table="accounts",
    )
    renew_hashes: bool = option(
        "Replace an outdated password hash in --accounts when its user logs in.",
        False,
        kind=FLAG,
        table="accounts",
    )
    password_port: int | None = option(
        "The TCP port of a page where users of --accounts change their password, by https with the"
        " certificate of --certificate; without one on this machine alone.",
        kind=values.PORT,
        table="accounts",
        example=8443,
    )
    password_listen: tuple[str, ...] = option(
        "The same at a Twisted endpoint, such as tcp6:8443, or unix:/run/pop3toy/passwords.sock:mode=660 for"
        " a web server that speaks TLS.",
        kind=Kind(values.lmtp, "ENDPOINT"),
        table="accounts",
        many=True,
    )
    introspection: str | None = option(
        "The URL where OAuth tokens of OAUTHBEARER and XOAUTH2 are looked up (RFC 7662). Client id and"
        " secret are taken from the environment: POP3TOY_OAUTH_CLIENT and POP3TOY_OAUTH_SECRET.",
        kind=Kind(TEXT.parse, "URL"),
        table="accounts",
    )
    introspection_audience: str | None = option(
        "Take no token but those that are meant for this server: this has to be one of their audiences.",
        table="accounts",
    )
    introspection_scope: str | None = option(
        "Take no token but those with this scope, such as mail.", table="accounts"
    )
    introspection_claim: str | None = option(
        "Where the endpoint's answer has the user's name: username (the default), sub, email.",
        table="accounts",
    )
    smtp_port: int | None = option(
        "Take mail by SMTP on this TCP port, such as 2525. Without --maildir or --store, mail for anybody"
        " lands in the built-in mailbox: a trap for trying things.",
        kind=values.PORT,
        table="mail",
        example=2525,
    )
    smtp: tuple[str, ...] = option(
        "Take mail by SMTP at this Twisted endpoint.", kind=ENDPOINT, table="mail", many=True
    )
    submission_port: int | None = option(
        "Take mail from users who log in, on this TCP port, such as 2587.",
        kind=values.PORT,
        table="mail",
        example=2587,
    )
    submission_tls_port: int | None = option(
        "The same with TLS from the first octet on, such as 2465; needs a certificate.",
        kind=values.PORT,
        table="mail",
        example=2465,
    )
    submission: tuple[str, ...] = option(
        "Take mail from users who log in, at this Twisted endpoint; see --listen.",
        kind=ENDPOINT,
        table="mail",
        many=True,
    )
    submission_tls: tuple[str, ...] = option(
        "The same with TLS from the first octet on; needs a certificate.",
        kind=ENDPOINT,
        table="mail",
        many=True,
    )
    lmtp: tuple[str, ...] = option(
        "Take mail by LMTP at this Twisted endpoint, as in unix:/run/pop3toy/lmtp.sock:mode=660 (660 is what"
        " it is if you leave it out), from a mail server such as Postfix.",
        kind=Kind(values.lmtp, "ENDPOINT"),
        table="mail",
        many=True,
    )
    domains: tuple[str, ...] = option(
        "A domain of the users here (default localhost): its mail is for them, and it may stand behind a"
        " user's name at login, as in ann@example.org for ann.",
        name="domain",
        kind=Kind(values.domain, "NAME"),
        table="mail",
        many=True,
    )
    aliases: str | None = option(
        "A file of other names for users: lines `name: user, user`. It is read again when it changes.",
        kind=PATH,
        table="mail",
    )
    catch_all: str | None = option(
        "The user who gets the mail that nobody else gets.", kind=Kind(TEXT.parse, "NAME"), table="mail"
    )
    hostname: str | None = option(
        "This server's name, as SMTP says it (default: what the system says).",
        kind=Kind(values.domain, "NAME"),
        table="mail",
    )
    smarthost: str | None = option(
        "Hand what users submit for addresses elsewhere to this server: smtp+starttls://HOST:587, or"
        " smtps://HOST:465; smtp://HOST is for this machine alone. Its certificate is verified. Name and"
        " password are taken from --smarthost-credentials, or from the environment: POP3TOY_SMARTHOST_USER"
        " and POP3TOY_SMARTHOST_PASSWORD.",
        kind=Kind(values.smarthost_url, "URL"),
        table="outgoing",
        example="smtp+starttls://mail.example.net:587",
    )
    queue: str | None = option(
        "The folder where mail waits until --smarthost has it; it is made if it is missing. Whoever can read"
        " it can read the mail in it.",
        kind=PATH,
        table="outgoing",
        example="/var/lib/pop3toy/queue",
    )
    smarthost_credentials: str | None = option(
        "A file that holds user:password for --smarthost, or the two on a line each. Nobody but its owner may"
        " be able to read it. It is read again when it changes.",
        kind=PATH,
        table="outgoing",
        example="/etc/pop3toy/smarthost",
    )
    smarthost_ca: str | None = option(
        "The authorities (PEM) that may have signed --smarthost's certificate, in place of the system's.",
        kind=PATH,
        table="outgoing",
    )
    smarthost_limit: int = option(
        "Recipients elsewhere to whom a user may write within an hour, restarts or not; what is more is put"
        " off.",
        200,
        kind=number(1, 1_000_000),
        table="outgoing",
    )
    metrics: str | None = option(
        "Serve metrics for Prometheus (/metrics), and whether all is well (/healthz), by HTTP at this port of"
        " this machine or this Twisted endpoint, as in 9110 or unix:/run/pop3toy/metrics.sock:mode=660"
        " (660 is what it is if you leave it out). Whoever reaches it can read them.",
        kind=Kind(values.metrics, "ENDPOINT", (int, str)),
        table="monitoring",
        example=9110,
    )
    log_file: str | None = option(
        "Write the log to this file, which is never turned over from here: logrotate may rename it, and"
        " SIGHUP or SIGUSR1 opens it again by its name. Default: where twistd writes.",
        kind=PATH,
        table="log",
        example="/var/log/pop3toy/pop3toy.log",
    )
    log_format: str = option(
        "The lines of the log: text, or json for an object a line.",
        "text",
        kind=Kind(values.log_format, "FORMAT"),
        table="log",
    )
    log_level: str = option(
        "Write nothing of the log below this level: debug, info (logins, deliveries), warn (failed logins),"
        " error or critical.",
        "info",
        kind=Kind(values.log_level, "LEVEL"),
        table="log",
    )
    limits: Limits = dataclasses.field(default_factory=Limits)
    inspector_port: int | None = option(
        "Show sessions, conversations and mailboxes to a browser, at this TCP port of 127.0.0.1, as in 8025."
        " The link is in the log, with a token in it: who has that sees all of it.",
        kind=values.PORT,
        table="inspector",
        example=8025,
    )
    inspector: str | None = option(
        "The same at a Twisted endpoint, such as unix:/run/pop3toy/inspector.sock:mode=600 (600 is what it is"
        " if you leave it out), where the file's mode says who may look, and no token is asked for.",
        kind=Kind(values.inspector, "ENDPOINT"),
        table="inspector",
    )
    inspector_token_file: str | None = option(
        "A file whose first line is the inspector's token, 16 characters or more. Without it there is a new"
        " one at each start.",
        kind=PATH,
        table="inspector",
    )
    inspector_shows_mail: bool = option(
        "Let the inspector show the messages of real mailboxes, too; they cannot be changed there.",
        False,
        kind=FLAG,
        table="inspector",
    )
    workers: int | None = option(
        "Serve with this many processes on the same ports, or `auto` for one on each core; one that dies"
        " is started again. Penalties hold for all of them together; each has its part of the limits."
        " Default: one process, not watched.",
        kind=Kind(values.workers, "NUMBER", (int, str)),
        table="workers",
        short="w",
        example="auto",
    )

    def __post_init__(self) -> None:
        """Check the values, and what goes together."""
        check(self)
        self._check_accounts()
        self._check_ports()
        self._check_mail()
        self._check_outgoing()
        self._check_inspector()

    # -- what goes together --------------------------------------------------------

    def _check_accounts(self) -> None:
        names = [name for name, _ in self.users]
        if len(set(names)) < len(names):
            raise BadSetting("user", ": the same name is given twice")
        for name, value in (
            ("introspection-audience", self.introspection_audience),
            ("introspection-scope", self.introspection_scope),
            ("introspection-claim", self.introspection_claim),
        ):
            if value is not None and self.introspection is None:
                raise BadSetting(name, " needs --introspection")
        if self.renew_hashes and self.accounts is None:
            raise BadSetting("renew-hashes", " needs --accounts")
        if self.accounts_in_store and kind_of(self.store).accounts is None:
            raise BadSetting("accounts", " objects needs --store; a file of this name is ./objects")
        for name, places in (
            ("password-port", [self.interface] if self.password_port is not None else []),
            ("password-listen", self.password_listen),
        ):
            if places and self.accounts is None:
                raise BadSetting(name, " needs --accounts")
            if not self.tls.wanted and not all(_OF_THIS_MACHINE.search(place) for place in places):
                raise BadSetting(name, f"{_NEEDS_CERTIFICATE}: without TLS it is for this machine alone")
        if self.mechanisms is not None:
            self._check_mechanisms(self.mechanisms)

    def _check_mechanisms(self, mechanisms: tuple[str, ...]) -> None:
        """See that a user can log in with one of these."""
        bound = sorted(name for name in mechanisms if name.endswith("-PLUS"))
        if bound and not self.channel_binding:
            raise BadSetting("mechanisms", f": {bound[0]} needs --channel-binding")
        certificate = "a certificate (--certificate, or --self-signed to try it)"
        needs: dict[str, tuple[str, object]] = {
            "EXTERNAL": ("--client-ca", self.tls.client_ca),
            "OAUTHBEARER": ("--introspection", self.introspection),
            "XOAUTH2": ("--introspection", self.introspection),
            "ANONYMOUS": ("--anonymous", self.anonymous),
            "SCRAM-SHA-1-PLUS": (certificate, self.tls.wanted),
            "SCRAM-SHA-256-PLUS": (certificate, self.tls.wanted),
        }
        missing = [needs[name][0] for name in sorted(mechanisms) if name in needs and not needs[name][1]]
        if len(missing) == len(mechanisms):
            raise BadSetting("mechanisms", f": nobody can log in without {missing[0]}")

    def _check_ports(self) -> None:
        for name, value in (
            ("tls-port", self.tls_port),
            ("tls-listen", self.tls_listen or None),
            ("submission-tls-port", self.submission_tls_port),
            ("submission-tls", self.submission_tls or None),
        ):
            if value is not None and not self.tls.wanted:
                raise BadSetting(name, _NEEDS_CERTIFICATE)
        if self.explain and self.transcript_to == "off":
            raise BadSetting("explain", " needs a transcript to write into: --transcript -, or a file")
        if self.faults is not None and self.workers is not None:
            raise BadSetting("faults", " are counted in one process: not with --workers")

    def _check_inspector(self) -> None:
        if self.inspector_port is not None and self.inspector is not None:
            raise BadSetting("inspector-port", " and --inspector do not go together")
        for name, value in (
            ("inspector-token-file", self.inspector_token_file),
            ("inspector-shows-mail", self.inspector_shows_mail),
        ):
            if value and not self.wants_inspector:
                raise BadSetting(name, " needs --inspector-port or --inspector")

    def _check_mail(self) -> None:
        for name, value in (
            ("aliases", self.aliases),
            ("catch-all", self.catch_all),
            ("max-message-size", self.limits.max_message_size),
            ("hostname", self.hostname),
        ):
            if value and not self.wants_mail:
                raise BadSetting(name, " needs --smtp-port, --submission-port, --lmtp or the like")

    def _check_outgoing(self) -> None:
        for name, value in (
            ("queue", self.queue),
            ("smarthost-credentials", self.smarthost_credentials),
            ("smarthost-ca", self.smarthost_ca),
        ):
            if value is not None and self.smarthost is None:
                raise BadSetting(name, " needs --smarthost")
        if self.smarthost is None:
            return
        submission = (self.submission_port, self.submission_tls_port, self.submission or None)
        if all(port is None for port in submission) and not self.submission_tls:
            raise BadSetting("smarthost", " needs --submission-port or the like, where users hand mail in")
        if self.queue is None:
            raise BadSetting("smarthost", " needs --queue FOLDER, where mail waits until it is handed on")
        if not self.domains:
            raise BadSetting("smarthost", " needs --domain NAME, or nobody elsewhere could answer")

    def _check_toy(self) -> None:
        if self.smarthost is not None:
            raise BadSetting("smarthost", f"{_NEEDS_REAL_MAIL}: the toy is a trap, and sends nothing")
        for name, value in (("auth", self.auth), ("accounts", self.accounts)):
            if value:
                raise BadSetting(name, f"{_NEEDS_REAL_MAIL}: the built-in message is for --user accounts")
        for name, value in (
            ("aliases", self.aliases),
            ("catch-all", self.catch_all),
            ("domain", self.domains),
        ):
            if value:
                raise BadSetting(name, f"{_NEEDS_REAL_MAIL}: the toy takes mail for anybody")
        if self.expire_days is not None:
            raise BadSetting("expire-days", f"{_NEEDS_REAL_MAIL}: the built-in message is never old")
        if self.workers is not None:
            raise BadSetting("workers", f"{_NEEDS_REAL_MAIL}: the built-in message is in one process alone")

    def check_whole(self, *, other_checkers: bool = False) -> None:
        """Check that accounts and store fit: somebody can log in, and into a mailbox of their own.

        :param other_checkers: whether there are checkers besides those that the settings name.
        :raises pop3toy.errors.CannotStart: if nobody can.
        """
        if self.is_toy:
            self._check_toy()
            return
        if self.show_secrets:
            raise BadSetting(
                "show-secrets", " is for the built-in mailbox: those of real mail are never shown"
            )
        if self.workers is not None and (why := kind_of(self.store).one_process(self.store)):
            raise BadSetting("workers", f": {why}")
        sources = (self.users, self.accounts, self.auth, self.introspection, self.tls.client_ca)
        if not any(sources) and self.anonymous is None and not other_checkers:
            raise CannotStart(
                "who may log in? Give --accounts FILE, --user NAME:PASSWORD, or --auth (see --help-auth)"
            )
        one_user = len(self.users) == 1 and not (self.auth or self.accounts or other_checkers)
        if not self.store.for_each_user and not one_user:
            # The option of its kind, whichever that is.
            raise BadSetting(kind_of(self.store).key, " needs {user} in its path, where the user's name goes")

    # -- what follows ----------------------------------------------------------------

    @property
    def is_toy(self) -> bool:
        """Whether the mail is the built-in message, and the conversations are there to be seen."""
        return isinstance(self.store, Toy)

    @property
    def accounts_in_store(self) -> bool:
        """Whether users are kept beside the mail, not in a file."""
        return self.accounts == values.OBJECTS

    @property
    def accounts_file(self) -> str | None:
        """The accounts file, if there is one."""
        return None if self.accounts_in_store else self.accounts

    @property
    def wants_mail(self) -> bool:
        """Whether mail comes in at all."""
        ports = (self.smtp_port, self.submission_port, self.submission_tls_port)
        endpoints = self.smtp or self.submission or self.submission_tls or self.lmtp
        return any(port is not None for port in ports) or bool(endpoints)

    @property
    def wants_inspector(self) -> bool:
        """Whether sessions are shown to a browser."""
        return self.inspector_port is not None or self.inspector is not None

    @property
    def wants_password_page(self) -> bool:
        """Whether users can change their password by a page."""
        return self.password_port is not None or bool(self.password_listen)

    @property
    def mail_domains(self) -> tuple[str, ...]:
        """The domains of the users, at least one; an address without a domain is in the first."""
        return self.domains or ("localhost",)

    @property
    def transcript_to(self) -> str:
        """Where conversations are written: ``-``, ``off`` or a file."""
        return self.transcript or ("-" if self.is_toy else "off")

    # -- to other processes ------------------------------------------------------------

    def to_json(self) -> str:
        """For a worker process; holds passwords."""
        store = [type(self.store).__name__, dataclasses.asdict(self.store)]
        return json.dumps({**dataclasses.asdict(self), "store": store})

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """What :meth:`to_json` was called on."""
        said = json.loads(text, object_hook=_with_tuples)
        kind, store = said.pop("store")
        types = {one.settings.__name__: one.settings for one in STORES}
        return cls(
            **{
                **said,
                "store": types[kind](**store),
                "tls": TLS(**said["tls"]),
                "limits": Limits(**said["limits"]),
            }
        )


def _with_tuples(found: dict[str, object]) -> dict[str, object]:
    """JSON has lists where the settings have tuples."""
    return {name: _tuple(value) for name, value in found.items()}


def _tuple(value: object) -> object:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value
