"""twistd's pid file: whether the process runs that it names, and whose it is."""

from __future__ import annotations

import errno
import os

from twisted.application.service import Service

from ...files import Owner, give

__all__ = ["PidFile", "why_taken"]


def why_taken(path: str) -> str | None:
    """Why a server cannot have this pid file; ``None`` if it can.

    A file with this process's own number was left behind by one that was killed, and is removed: twistd
    would take it for another server that runs; as process 1 of a container it always would.
    """
    try:
        with open(path, encoding="ascii") as file:
            number = int(file.read(100))
        if number <= 0:
            raise ValueError
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        # Whether it can be written is another question.
        return None
    except ValueError:
        return "there is no number of a process in it; remove it if no server runs"
    except OSError as error:
        return f"{(error.strerror or str(error)).lower()}; remove it if no server runs"
    if number == os.getpid():
        os.unlink(path)
        return None
    try:
        os.kill(number, 0)
    except (OSError, OverflowError) as error:
        # Somebody else's process is one, too.
        if getattr(error, "errno", None) != errno.EPERM:
            return None
    return (
        f"process {number} runs already: stop it, or give this server another pid file; if that is another"
        " program, remove the file"
    )


class PidFile(Service):
    """Gives the file to the user that the process becomes, who can replace it, and start the next server.

    :param path: twistd has written it when the ports are opened.
    """

    def __init__(self, path: str, owner: Owner | None) -> None:
        self._path, self._owner = path, owner

    def privilegedStartService(self) -> None:
        """Give it away, where its folder is that user's."""
        super().privilegedStartService()
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return
        try:
            give(self._path, file, self._owner)
        finally:
            os.close(file)
