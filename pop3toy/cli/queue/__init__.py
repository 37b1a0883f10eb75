"""``pop3toy queue``: mail that waits until the smarthost has it.

``command`` has the commands, ``shown`` what is printed of a message.  How a queue lies on the disk is in
``outgoing.queue_files``.  Start with ``command``.
"""
