"""Maildirs: mail in files, one for each message.

Reading: ``store`` (lock, session, removal) over ``folders``, ``scan``, ``names``, ``sizes`` and ``body``.  Writing:
``delivery`` over ``spool``, ``spool_file`` and ``usage``.  ``paths`` makes directories of user names, ``admin`` and
``check`` serve the ``pop3toy`` command.  Start with ``store``.
"""
