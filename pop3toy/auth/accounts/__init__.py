"""Sources of users: a file of hashed passwords, and names given by a program.

``accounts_file`` is the checker of a file, ``passwd_file`` its syntax, ``schemes`` how a password is stored
and verified, ``hashing_queue`` and ``success_cache`` what keeps slow hashes from being a burden, ``admin``
and ``edit`` how the ``pop3toy`` command changes it, ``memory`` the checker of names at hand. Start with
``accounts_file``.
"""
