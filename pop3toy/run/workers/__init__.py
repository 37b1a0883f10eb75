"""Several processes for one server: a supervisor that holds the sockets, and workers that serve.

``supervisor`` starts them, ``sockets`` hands the listening sockets on, ``talk``
is what the two sides tell each other, ``worker`` is a worker's own side of it.
No room here knows what is served; ``tap`` puts it together.
"""
