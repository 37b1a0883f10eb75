"""Who may come in, put together from the options: checkers, portal, guard, tokens, TLS."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.cred.checkers import AllowAnonymousAccess
from twisted.cred.portal import IRealm, Portal
from twisted.logger import Logger

from ..auth.accounts.accounts_file import AccountsFile
from ..auth.accounts.hashing_queue import Workers
from ..auth.accounts.memory import MemoryAccounts
from ..auth.accounts.schemes import MissingLibrary
from ..auth.authenticator import PortalAuthenticator
from ..auth.chain import AnyOf
from ..auth.realm import MailboxRealm
from ..auth.sasl.introspection import Introspection, treq_client
from ..auth.strcred import of_auth_option
from ..auth.throttle.connection_limiter import CrowdLimits
from ..auth.throttle.counts import Counts
from ..auth.throttle.login_throttle import Guard, GuardLimits, without_penalties
from ..auth.throttle.origins import Networks
from ..config.cmdline import Options
from ..installation import install_hint
from ..interfaces import IMailStore
from ..net.threads import WorkerThreads
from .ports import refuse_to_start

if TYPE_CHECKING:
    from ..net.tls.contexts import ServerTLS

__all__ = ["Access", "crowd_limits", "server_tls"]

log = Logger()

#: Threads that check passwords: as many as half the cores would be busy with,
#: but two at least, so that one slow hash does not hold up all others.
PASSWORD_THREADS = max(2, (os.cpu_count() or 2) // 2)


class Access:
    """The accounts of one server, and authenticators over them.

    :param accounts: names and passwords from the command line.
    :param server: whose parts the threads become.
    :param counts: where logins are counted.
    :param at_once: whether an accounts file that cannot be read ends the start.
    """

    def __init__(
        self,
        options: Options,
        reactor: Any,
        server: MultiService,
        accounts: dict[str, str],
        counts: Counts,
        *,
        at_once: bool = True,
    ) -> None:
        self._options = options
        self._reactor = reactor
        self._server = server
        self._at_once = at_once
        default = GuardLimits()
        limits = GuardLimits(
            login_delay=options["login-delay"] or 0,
            lock_wait=default.lock_wait if options["lock-wait"] is None else options["lock-wait"],
            sessions_per_user=options["max-per-user"] or default.sessions_per_user,
            trusted=Networks.of(options["trusted"]),
        )
        if options.maildirs is None:
            # The toy has no mail to guard, and is there for trying wrong passwords too.
            limits = without_penalties(limits)
        self._guard = Guard(reactor, limits, counts)
        checkers: list[Any] = [MemoryAccounts(accounts)] if accounts else []
        #: The accounts file, if there is one; it knows quotas.
        self.file = self._accounts_file() if options["accounts"] is not None else None
        if self.file is not None:
            checkers.append(self.file)
        checkers += map(of_auth_option, options["credCheckers"])
        # A Portal takes one checker for each kind of credentials.
        self._checker = checkers[0] if len(checkers) == 1 else AnyOf(checkers)
        #: Who exists, as far as the checkers can tell.
        self.sources = AnyOf(checkers)
        self._tokens = self._introspection() if options["introspection"] is not None else None

    def for_maildrops(self, store: IMailStore) -> PortalAuthenticator:
        """Who comes in gets his maildrop."""
        anonymous = self._options["anonymous"]
        portal = Portal(MailboxRealm(store, anonymous=anonymous), [self._checker])
        if anonymous is not None:
            portal.registerChecker(AllowAnonymousAccess())
        return self._authenticator(portal, self._guard)

    def for_senders(self, realm: IRealm) -> PortalAuthenticator:
        """Who comes in may send; no maildrop is opened."""
        return self._authenticator(Portal(realm, [self._checker]), self._guard.for_senders())

    def _authenticator(self, portal: Portal, guard: Guard) -> PortalAuthenticator:
        options = self._options
        return PortalAuthenticator(
            portal,
            guard=guard,
            allow_cleartext=bool(options["allow-cleartext"]),
            masters=options["master"],
            mechanisms=options["mechanisms"],
            certificates=options["client-ca"] is not None,
            channel_binding=bool(options["channel-binding"]),
            tokens=self._tokens,
            domains=options.mail_domains,
        )

    def _accounts_file(self) -> AccountsFile:
        # A pool of its own: a flood of logins must not stop those who are in.
        threads = WorkerThreads(self._reactor, name="passwords", size=PASSWORD_THREADS)
        threads.setServiceParent(self._server)
        path, renew = self._options["accounts"], bool(self._options["renew-hashes"])
        try:
            workers = Workers(threads.run)
            file = AccountsFile(path, workers, self._reactor, renew=renew, at_once=self._at_once)
            self._warn_of_mixture(file)
            return file
        except (OSError, MissingLibrary) as error:
            refuse_to_start(f"--accounts {path}: {getattr(error, 'strerror', None) or error}")

    def _warn_of_mixture(self, file: AccountsFile) -> None:
        """Say who cannot use what is announced for the sake of others."""
        wanted = self._options["mechanisms"]
        left_out = file.left_out(also_others=bool(self._options["user"]))
        mixed = [
            f"{name} (not for {count} of {file.users})"
            for name, count in left_out.items()
            if wanted is None or name in wanted or f"{name}-PLUS" in wanted
        ]
        if mixed:
            log.warn(
                "accounts file {path}: not every user can use {mixed}, announced because some can. Mail"
                " programs that take the best that is announced fail for the others: keep all passwords in"
                " one scheme, or name what all can use with --mechanisms",
                path=self._options["accounts"],
                mixed=", ".join(mixed),
            )

    def _introspection(self) -> Introspection:
        options = self._options
        audience, scope = options["introspection-audience"], options["introspection-scope"]
        if audience is None and scope is None:
            log.warn(
                "--introspection without --introspection-audience or --introspection-scope: a token that its"
                " owner gave to any other service opens his mailbox to that service too"
            )
        client, secret = (os.environ.get(f"POP3TOY_OAUTH_{what}") for what in ("CLIENT", "SECRET"))
        try:
            return Introspection(
                treq_client(self._reactor),
                options["introspection"],
                self._reactor,
                credentials=(client, secret) if client and secret else None,
                claim=options["introspection-claim"] or "username",
                scope=scope,
                audience=audience,
            )
        except (MissingLibrary, ValueError) as error:
            refuse_to_start(f"--introspection: {error}")


def crowd_limits(options: Options) -> CrowdLimits:
    """How many connections there may be."""
    default = CrowdLimits()
    most = options["max-connections"] or default.connections
    return CrowdLimits(
        connections=most,
        strangers=min(default.strangers, most),
        per_address=options["max-per-address"] or default.per_address,
        # Who gives a number means it for everybody.
        per_local_address=options["max-per-address"] or default.per_local_address,
        trusted=Networks.of(options["trusted"]),
    )


def server_tls(options: Options) -> ServerTLS | None:
    """What STLS, STARTTLS and implicit TLS are made with; certificates that are no good end the start."""
    if not options.wants_tls:
        return None
    try:
        from ..net.tls.certificate_files import BadCertificate, CertificateFiles, files_in_folder
        from ..net.tls.contexts import ServerTLS
        from ..net.tls.self_signed import self_signed
    except ImportError:
        refuse_to_start(f"TLS needs more than is installed: {install_hint('tls')}")
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    kept = os.path.join(data, "pop3toy")

    def find() -> list[CertificateFiles]:
        if options["self-signed"]:
            try:
                return [self_signed(kept)]
            except OSError as error:
                raise BadCertificate(f"{kept}: {error.strerror}") from error
        if options["certificates"]:
            return files_in_folder(options["certificates"])
        return [CertificateFiles(options["certificate"], options["key"] or options["certificate"])]

    try:
        tls = ServerTLS(find, client_authorities=options["client-ca"])
    except BadCertificate as why:
        refuse_to_start(str(why))
    if options["self-signed"]:
        log.info(
            "TLS with a certificate for localhost that this server made: {path}; for trying only",
            path=self_signed(kept).certificate,
        )
    return tls
