"""The page where users change their own password: ``page`` is its HTML, ``site`` answers requests.

Whether a password is right is the business of ``auth``, and how one is kept, too.
"""
