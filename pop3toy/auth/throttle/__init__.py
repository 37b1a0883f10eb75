"""How often, how many and from where: limits of connections and logins.

``connection_limiter`` counts connections, ``login_throttle`` failures and sessions; ``counts`` is where
they count, ``peer_workers`` what several processes tell each other; ``origins`` says whom an address stands
for. Nothing here knows a password or a connection. Start with ``login_throttle``.
"""
