"""Who watches.  Nothing depends on it, and each file can be deleted with what names it in ``run``.

``session_log`` writes a line for each login and each end, ``transcript`` the conversation as ``C:`` and
``S:`` lines, by a thread of its own in ``line_writer``.
"""
