"""The checks: functions, each of which looks at one rule of ``table``.

A check opens the sessions it needs, says what it has to, and raises ``Failed`` with
one sentence if the rule is broken, ``NotTested`` if that cannot be seen here.  None
marks a message, but those in ``deletion``; none knows the report.

A new one is a function here, a row in ``table``, and a fault among those of the tests
(``tests.conformance.faults``) that it must find.  ``lines`` is a good file to begin with.
"""
