"""Who may come in: from credentials to a user, and from a user to an opened maildrop.

twisted.cred is the seam: a Portal whose realm opens the mailbox
(:mod:`~pop3toy.auth.realm`) and whose checkers know the users
(:mod:`~pop3toy.auth.accounts.memory`, :mod:`~pop3toy.auth.accounts.accounts_file`, or anybody's
``ICredentialsChecker``).  :mod:`~pop3toy.auth.authenticator` asks it on behalf
of a session.
"""

from .accounts.memory import MemoryAccounts
from .authenticator import PortalAuthenticator
from .realm import MailboxRealm

__all__ = ["MailboxRealm", "MemoryAccounts", "PortalAuthenticator"]
