"""Who watches.  Nothing depends on it, and each file can be deleted.

``session_log`` writes a line for each login and each end, ``transcript`` the conversation as ``C:`` and
``S:`` lines.
"""
