"""POP3 (RFC 1939), with its chapters as files.

Pure, without a socket or a clock: ``commands`` (a line becomes a command), ``session`` (the states),
``authorization``, ``transaction`` and ``capabilities`` (what commands mean), ``dispatch`` (which command in
which state), ``maildrop`` (numbers and marks), ``replies`` (a reply becomes bytes). With a socket, and
thin: ``protocol`` and ``factory``. Neither a store nor who may log in is known here; both come through
``interfaces``. Start with ``session``.
"""
