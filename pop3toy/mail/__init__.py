"""A message as such, whatever brings or fetches it.

``octets`` is the canonical form: line ends, dot-stuffing and the count (RFC 1939 sections 3 and 11);
``listing`` is what a mailbox lists; ``unique_ids`` is what may be a unique-id; ``message_start`` mends the
first lines of mail that comes in. Nothing here knows a protocol, a store or a socket. Start with
``octets``.
"""
