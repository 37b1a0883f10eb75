"""Mail comes in: SMTP (RFC 5321), submission (RFC 6409) and LMTP (RFC 2033), over ``net``'s connection.

Pure: ``commands`` (lines become values), ``replies`` (values become octets), ``session`` (the states, and
what is known in each), ``policies`` (what SMTP, submission and LMTP are: tables of commands), ``greeting``,
``authentication`` and ``mail_commands`` (what the commands do), ``transaction`` (one mail transaction, from
MAIL to the end of the text, with ``envelope``, ``trace`` and ``framing``).  With a socket, thin: ``protocol``
and ``factory``.  ``routing`` resolves the addresses and ``stores`` keeps the mail; both are handed in.
Start with ``policies``.
"""
