"""Mail that comes into Maildirs: all of a message or nothing, durable before it is acknowledged.

``delivery`` is the way in, ``spool`` one message on its way to several Maildirs, ``spool_file`` its file,
``usage`` what counts against a quota, ``keyed_locks`` who writes to a Maildir when. What is read there is
not known here. Start with ``delivery``.
"""
