"""A recorded POP3 session played again: to a server, or as the server of a client.

``recording`` reads what was recorded (our transcripts, C:/S: scripts, JSON Lines, Dovecot's rawlogs),
``comparing`` says where a reply differs and what of that counts, ``playing`` plays the client's side and
``serving`` the server's.  Blocking, with a limit of time on all that is waited for: it is for a command line.
"""
