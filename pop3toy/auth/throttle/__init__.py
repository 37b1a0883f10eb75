"""How often, how many and from where: limits of connections and logins.

``connection_limiter`` counts connections, ``login_throttle`` failed logins and sessions, ``lock_queue`` has
logins wait for a locked maildrop; the numbers are in ``counts``. ``peer_workers`` tells other processes,
``origins`` groups addresses. Nothing here knows a password. Start with ``login_throttle``.
"""
