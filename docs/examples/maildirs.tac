"""POP3 over Maildirs as a part of another application, with all that a server in a network needs.

Run it with ``twistd -ny docs/examples/maildirs.tac``, or take the last lines into your own application.
``ann`` and ``bob`` find their mail in ``mail/ann`` and ``mail/bob``, which are made when they first log in.
"""

import os

from twisted.application.service import Application
from twisted.internet import reactor

from pop3toy import Maildirs, Settings, server

os.makedirs("mail", exist_ok=True)
settings = Settings(
    port=int(os.environ.get("POP3_PORT", "2590")),
    # twistd may go to another folder.
    store=Maildirs(os.path.abspath("mail/{user}"), create=True),
    users=(("ann", "secret"), ("bob", "secret too")),
)
application = Application("mail and more")
server(reactor, settings).setServiceParent(application)
