"""Mail that comes into Maildirs: all of a message or nothing, durable before it is acknowledged.

``delivery`` is the way in, ``message`` one message on its way to one or several Maildirs, ``destination``
one of these, ``usage`` what counts against a quota, ``keyed_locks`` who uses it up when. What is read
there is not known here. Start with ``delivery``.
"""
