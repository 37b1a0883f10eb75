"""How often, how many and from where: limits of connections and logins.

``connection_limiter`` counts connections, ``login_throttle`` failures and sessions; ``counts`` is where
they count, ``shared_counts`` and ``peer_workers`` the same over several processes; ``origins`` says whom an
address stands for. Nothing here knows a password or a connection. Start with ``login_throttle``.
"""
