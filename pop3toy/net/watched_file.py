"""Whether a file that others change can be believed already."""

from __future__ import annotations

import os

__all__ = ["UNSETTLED", "being_written"]

#: Seconds: a file that changed less long ago may be half written, or change again
#: and keep its time; FAT and some network file systems count in twos.
UNSETTLED = 2.0


def being_written(status: os.stat_result, now: float) -> bool:
    """Whether somebody has written into a file a moment ago, and may not have done.

    Writing sets both of a file's times; what comes after the last write, such
    as the renaming by which whole files are put in place, sets ``st_ctime`` alone.  A renaming
    within the same tick of the file system's clock cannot be told from writing: such a file is
    in doubt for :data:`UNSETTLED` seconds.

    :param now: the file system's time of day, in seconds.
    """
    return abs(now - status.st_mtime) <= UNSETTLED and status.st_ctime_ns <= status.st_mtime_ns
