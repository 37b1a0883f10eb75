"""Several processes for one server: a supervisor that holds the listening sockets, and workers that serve.

``supervisor`` starts worker processes and starts them again, ``worker`` is a worker's own side, ``pipes``
is what the two write to each other, ``sockets`` how listening sockets are inherited.  What is served is not
known here.  Start with ``supervisor``.
"""
