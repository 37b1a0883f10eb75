"""Folders for tests."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

__all__ = ["new_folder"]


def new_folder(test: SynchronousTestCase) -> Path:
    """An empty folder with a short name, as Unix sockets need it, which goes when the test has ended."""
    folder = Path(tempfile.mkdtemp(prefix="pop3toy-")).resolve()
    test.addCleanup(shutil.rmtree, folder)
    return folder
