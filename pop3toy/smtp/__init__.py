"""Mail comes in: SMTP (RFC 5321), submission (RFC 6409) and LMTP (RFC 2033), over ``net``'s connection.

Pure: ``commands`` (lines become values), ``replies`` (values become octets), ``session`` (states, and what
is known in each), ``policies`` (what SMTP, submission and LMTP are: tables of commands), ``greeting``,
``authentication`` and ``transaction`` (what the commands do), ``message`` (one on its way, with
``envelope``, ``trace`` and ``framing``).  With a socket, thin: ``protocol``, ``factory``.  Whose mail it is
and how it is kept is asked of those who are handed in.  Start with ``policies``.
"""
