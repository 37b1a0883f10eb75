"""Mail comes in: SMTP (RFC 5321), submission (RFC 6409) and LMTP (RFC 2033), on Twisted's SMTP server.

``factory`` makes the servers; ``connection`` is one connection as octets, ``session`` what is around the
messages, ``smtp``, ``submission`` and ``lmtp`` what differs, ``transaction`` one message on its way,
``envelope``, ``trace`` and ``framing`` its parts. Whose mail it is is ``routing``'s business. Start with
``smtp``.
"""
