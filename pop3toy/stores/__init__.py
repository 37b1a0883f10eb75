"""Where mail is kept, behind the interfaces ``IMailStore``, ``IDelivery`` and ``IStoreAdmin``.

``registry`` lists the kinds of store, to which a new one is added; ``memory`` is the simplest, ``hello``
the toy's (``toy`` is what may be said of it), ``maildir`` the one for real mail. A store never sees a
message number, a command or a secret. Start with ``memory``.
"""
