"""App passwords: further secrets of a user, one for each program, which can be taken back one by one.

What lives here: how one is kept in the user's line (``kept``), when each was used last (``last_use``), and
adding and revoking them (``admin``).  What must not: whom they let in (``accounts.checker``), and protocols.
"""
