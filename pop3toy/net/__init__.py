"""What knows sockets, and no protocol that is spoken over them.

``transport`` tells what is known of a connection, ``writer`` sends within bounds, ``proxied`` and
``proxy_header`` are the PROXY protocol, ``unix_sockets`` takes over Unix sockets, ``watched_file`` tells
when a file can be believed, ``threads`` runs what may wait; ``tls`` has certificates, ``fast`` what is
there for speed alone. Start with ``writer``.
"""
