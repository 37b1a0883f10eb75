"""The log of a process: what its lines look like, where they go, and how twistd is told of it.

``choosing`` decides by the settings and twistd's options.  ``lines`` writes text, ``objects`` JSON, ``file``
to the file of ``--log-file``, and ``workers`` what worker processes send.  What stands in the lines of
sessions and mail is in ``observe.session_log``.
"""
