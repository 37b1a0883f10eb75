"""Sources of users: a file of hashed passwords, records in a storage, and names given by a program.

``checker`` checks passwords over a source of users: a file (``accounts_file``, ``watched``) or records
(``records``, ``record_source``). ``passwd_file`` is the syntax of both, ``schemes`` how a password is stored
and verified, ``hashing_queue`` and ``success_cache`` what keeps slow hashes from being a burden, ``admin``
and ``edit`` how the ``pop3toy`` command changes them, ``memory`` the checker of names at hand. No storage is
known here: what asks it is passed in. Start with ``checker``.
"""
