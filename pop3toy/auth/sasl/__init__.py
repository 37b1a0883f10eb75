"""SASL (RFC 4422): one exchange, and a file for each mechanism.

``exchange`` says what a mechanism is and carries one exchange; ``mechanisms`` is their table, to which a
new one is added. Start with ``exchange``.
"""
