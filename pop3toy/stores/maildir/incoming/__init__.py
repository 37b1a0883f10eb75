"""Mail that comes into Maildirs: all of a message or nothing, durable before it is acknowledged.

``delivery`` is the way in, ``message`` one message on its way to one or several Maildirs, ``destination``
one of these, ``usage`` what counts against a quota, ``keyed_locks`` whose turn it is to use it up,
``directory_syncs`` the fsyncs of ``new/``. Start with ``delivery``.
"""
