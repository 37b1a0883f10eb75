"""Mail that goes out, put together: the settings become the queue of ``outgoing``.

``queue`` makes the service, and delivers the notices that it writes; ``credentials`` reads the files that the
settings name.  What a queue does is in ``outgoing``; nothing of that is here.  Start with ``queue``.
"""
