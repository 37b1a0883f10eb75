"""Where mail is kept: one file for each kind of store.

A store lists ``(uid, octets)`` once, when a maildrop is opened, and then reads
and removes by uid; it never sees a message number.  ``tests/store_contract.py``
says what every one of them must do.
"""
