"""Who may come in: from credentials to a user, and from a user to an opened maildrop.

twisted.cred is the seam: a Portal whose realm opens the mailbox
(:mod:`~pop3toy.auth.realm`) and whose checkers know the users
(:mod:`~pop3toy.auth.memory`, :mod:`~pop3toy.auth.accounts`, or anybody's
``ICredentialsChecker``).  :mod:`~pop3toy.auth.authenticator` asks it on behalf
of a session.
"""

from .authenticator import PortalAuthenticator
from .memory import MemoryAccounts
from .realm import MailboxRealm

__all__ = ["MailboxRealm", "MemoryAccounts", "PortalAuthenticator"]
