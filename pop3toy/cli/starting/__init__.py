"""What comes before a server serves: a first file of options, a look around outside of it, and the start.

``first_file`` writes the file, ``outside`` looks at what is not in it, ``as_user`` looks as another user,
``taken`` finds who has a port, ``serve`` starts the server. Start with ``outside``.
"""
