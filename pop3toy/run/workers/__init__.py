"""Several processes for one server: a supervisor that holds the sockets, and workers that serve.

``supervisor`` decides when one is started, ``process`` is one as it has it, ``worker`` is a worker's own
side, ``talk`` what they say to each other, ``sockets`` how listening sockets are handed on. What is served
is not known here. Start with ``supervisor``.
"""
