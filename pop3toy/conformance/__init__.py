"""Is a POP3 server right?  A strict client, and the rules that it looks at.

It knows the RFCs and no server: no package of pop3toy is imported, so that a mistake of
ours is not taken for the law.  ``table`` has every rule in one line each, with the function
in ``checks`` that looks whether it is kept; ``rules`` runs them, ``examination`` opens their
sessions, ``connection`` is a socket that reads liberally and keeps every octet to be
judged strictly, ``report`` says what was found.  Blocking, with a limit of time and octets
on all that it reads: it is for a command line, not for a reactor.

Start reading with ``table``.
"""
