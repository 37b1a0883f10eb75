"""Mail on object storage: one prefix for each maildrop, one object for each message, one for its lock.

Any number of servers share it and nothing else.  What blocks is called in threads.  Start with ``engine``
(what is asked of the storage), ``records`` (what is kept, and under which keys), ``lease``, then ``store``.
No protocol, no password and no option of the server's belongs here.
"""
