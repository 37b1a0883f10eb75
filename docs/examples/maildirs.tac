"""POP3 over Maildirs as a part of another application, with all that a server in a network needs.

Run it with ``twistd -ny docs/examples/maildirs.tac``, or take ``pop3_over_maildirs`` into your
own application.  ``ann`` and ``bob`` find their mail in ``mail/ann`` and ``mail/bob``, which are
made when they first log in.
"""

import os

from twisted.application.service import Application
from twisted.cred.portal import Portal
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint

from pop3toy import MailboxRealm, POP3Factory, PortalAuthenticator
from pop3toy.auth.throttle.connection_limiter import ConnectionLimiter
from pop3toy.auth.throttle.login_throttle import LoginThrottle
from pop3toy.auth.accounts.memory import MemoryAccounts
from pop3toy.observe.session_log import LogMeter
from pop3toy.net.fast.reply_batcher import turns_of
from pop3toy.service import ListeningService, OrderedService
from pop3toy.stores.maildir.store import MaildirStore
from pop3toy.stores.maildir.paths import MaildirPaths
from pop3toy.net.threads import WorkerThreads


def pop3_over_maildirs(reactor, checkers, pattern, port):
    """A service: start it with your application, and it is stopped with it.

    :param checkers: of passwords; any ``ICredentialsChecker``.
    :param pattern: the path of a Maildir, with ``{user}`` in it.
    """
    # Its parts are stopped in the other order: sessions end before the threads that they use.
    service = OrderedService()
    # Many clients at once cost less where the reactor has turns; ``None`` where it has not.
    turns = turns_of(reactor)
    if turns is not None:
        turns.setServiceParent(service)
    # Nothing that may wait for a disk runs on the reactor's thread.
    threads = WorkerThreads(reactor)
    threads.setServiceParent(service)
    store = MaildirStore(MaildirPaths(pattern, create=True), threads.run)
    factory = POP3Factory(
        reactor,
        # Whoever guesses passwords has to wait; without a guard nobody has.
        PortalAuthenticator(Portal(MailboxRealm(store), checkers), guard=LoginThrottle(reactor)),
        # A line for each login and each end.
        meter=LogMeter(),
        # How many connections there may be.
        gatekeeper=ConnectionLimiter(),
        turns=turns,
    )

    def cannot(why):
        # Here for the whole process; your application may know better.
        raise SystemExit(str(why))

    ListeningService(
        [("POP3", TCP4ServerEndpoint(reactor, port, interface="127.0.0.1"))],
        factory,
        ready=lambda name, port: None,
        failed=cannot,
        # The sessions that are open may end before the application does.
        drained=factory,
    ).setServiceParent(service)
    return service


os.makedirs("mail", exist_ok=True)
application = Application("mail and more")
pop3_over_maildirs(
    reactor,
    [MemoryAccounts({"ann": "secret", "bob": "secret too"})],
    os.path.abspath("mail/{user}"),
    int(os.environ.get("POP3_PORT", "2590")),
).setServiceParent(application)
