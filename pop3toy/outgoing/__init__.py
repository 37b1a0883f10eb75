"""Mail goes out: what users hand in for addresses elsewhere waits in a queue and is handed to a smarthost.

Plain values: ``entry`` (a message's envelope and what became of it), ``schedule`` (when it is tried, when its
sender is told), ``notices`` (RFC 3464), ``limits`` (how much a user may send), ``smarthost`` (the URL and the
credentials).  On the disk, for threads: ``queue_files`` and ``incoming`` (a message that comes in).  With
a socket: ``client``, over Twisted's SMTP client, imported when it is needed because it installs a reactor.
``service`` puts them together and is what ``smtp`` hands mail to (:class:`~pop3toy.interfaces.Outgoing`).
Knows no store and no routing: who delivers a notice is passed in.  Start with ``entry``.
"""
