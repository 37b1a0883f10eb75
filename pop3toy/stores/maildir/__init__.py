"""Maildirs: mail in files, one for each message.

Reading: ``store`` (lock, session, removal) over ``folders``, ``scan``, ``names``, ``count``, ``sizes`` and
``body``. Writing: ``incoming``. ``paths`` and ``links`` make descriptors of user names, ``file_systems``
knows what can be had without waiting, ``admin`` and ``check`` serve the ``pop3toy`` command. Start with
``store``.
"""
