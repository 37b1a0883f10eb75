"""The manual pages of ``docs/man``, made from what the options and commands say of themselves.

``pages`` has what stands on them, ``roff`` how that is written down.
"""
