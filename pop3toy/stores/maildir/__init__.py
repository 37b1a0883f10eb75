"""Maildirs: mail in files, one for each message.

Reading: ``store`` opens a Maildir, ``snapshot`` is what is in it (over ``folders``, ``names``, ``count`` and
``sizes``), ``mailbox`` what a session does with it, ``body`` a message that is sent. Writing: ``incoming``.
What was removed and can be put back: ``removed``.
``paths`` and ``links`` make descriptors of user names, ``file_systems`` knows what needs no waiting,
``admin`` and ``check`` serve the ``pop3toy`` command. Start with ``store``.
"""
