"""Observers.  Nothing depends on them, and each file can be deleted with the lines of ``run`` that name it.

``session_log`` writes a line for each login and each end, ``transcript`` the conversation as ``C:`` and
``S:`` lines, by a thread of its own in ``line_writer``.
"""
