"""What POP3 has removed from a Maildir and is kept for a while: ``folder`` (putting there, listing,
forgetting) and ``putting_back``.

Names of messages are never changed, nor what is in their files.  None of it decides how long they are kept,
or takes the lock of a session: who calls has it.
"""
