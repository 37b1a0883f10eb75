"""Files beside a Maildir's folders: ``sizes`` (octets that were counted) and ``uidl_file`` (unique-ids).

``cache_file`` reads and writes what may be lost.  None of it knows what a session is.
"""
