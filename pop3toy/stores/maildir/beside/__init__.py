"""Files beside a Maildir's folders: ``sizes`` (octets that were counted), ``uidl_file`` (unique-ids) and
``last_session`` (unique-ids of the session before).

``cache_file`` reads and writes what may be lost, ``owner`` says whose they are.  None of it knows what a
session is.
"""
