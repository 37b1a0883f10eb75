"""A message in a file, read chunk by chunk without ever blocking the reactor.

A chunk that is in the page cache is read at once (``preadv`` with
``RWF_NOWAIT``); a cold one is read in a thread.  Where the platform or the file
system cannot tell, every chunk is read in a thread.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from twisted.python.failure import Failure

from ... import limits
from ...errors import MessageGone, StoreTrouble
from ...files import READING
from ...interfaces import MaybeDeferred
from ...net.threads import RunInThread

__all__ = ["FileBody"]

_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)

# Where chunks in the page cache are read to, by the reactor's thread alone: a
# fresh buffer for each would be cleared first, which costs more than reading.
_SCRATCH = memoryview(bytearray(limits.CHUNK))

#: How a message is opened.
OPEN_FLAGS = READING


class FileBody:
    """A :class:`~pop3toy.interfaces.MessageBody` of an open regular file, with LF or CRLF line ends.

    :param fd: an open file descriptor, which is now ours to close.  It is read by position, from the
        first octet to the size that the file has now.
    :param run_in_thread: where chunks are read that are not in the page cache: ``run_in_thread(function,
        *args)`` gives a Deferred, as :func:`twisted.internet.threads.deferToThread` does.
    :param announced: the octets of the wire form that a listing has told.
    :param measured: is called with the octets of the wire form when all went out and they were others,
        and with what fstat said of the file (``os.stat_result``).
    :param close: closes a file; another function where that may wait, as on a file system in the network.
    :raises pop3toy.errors.MessageGone: if it is no regular file; ``fd`` is
        closed then.
    """

    __slots__ = (
        "_announced",
        "_at",
        "_close",
        "_closed",
        "_fd",
        "_measured",
        "_reading",
        "_run_in_thread",
        "_size",
        "_status",
        "done",
    )

    def __init__(
        self,
        fd: int,
        run_in_thread: RunInThread,
        announced: int = 0,
        measured: Callable[[int, os.stat_result], None] | None = None,
        close: Callable[[int], object] = os.close,
    ) -> None:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise MessageGone(detail="what the listing showed as a file is none any more")
        self.done = False
        self._fd = fd
        self._run_in_thread = run_in_thread
        self._announced = announced
        self._measured = measured
        self._close = close
        self._status = status
        self._size = status.st_size
        self._at = 0
        self._reading = False
        self._closed = False

    def pull(self, most: int = limits.CHUNK) -> MaybeDeferred[bytes]:
        """The next chunk: bytes, or a Deferred of them if it has to be read in a thread.

        :param most: octets at the most.
        :raises pop3toy.errors.StoreTrouble: (or fails with) if it cannot be read, or the file became
            shorter.
        """
        wanted = min(most, limits.CHUNK, self._size - self._at)
        if wanted <= 0:
            self.done = True
            return b""
        if _NOWAIT is not None:
            place = _SCRATCH[:wanted]
            try:
                count = os.preadv(self._fd, (place,), self._at, _NOWAIT)
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise _unreadable(error) from error
            else:
                return self._took(bytes(place if count == wanted else place[:count]))
        self._reading = True
        read = self._run_in_thread(os.pread, self._fd, wanted, self._at)
        return read.addBoth(self._read_in_thread)

    def _read_in_thread(self, result: bytes | Failure) -> bytes:
        self._reading = False
        if self._closed:
            self._close(self._fd)
        if isinstance(result, Failure):
            error = result.value
            if isinstance(error, OSError):
                raise _unreadable(error) from error
            result.raiseException()
        assert isinstance(result, bytes)
        return self._took(result)

    def _took(self, chunk: bytes) -> bytes:
        if not chunk:
            # Shorter than when it was opened.  It must not look whole.
            raise StoreTrouble(detail="a message file became shorter while it was read")
        self._at += len(chunk)
        self.done = self._at >= self._size
        return chunk

    def close(self, octets: int | None) -> None:
        """Close the file, after the thread that still reads it.

        :param octets: see :class:`~pop3toy.interfaces.MessageBody`.
        """
        self._closed = True
        if not self._reading:
            self._close(self._fd)
        if self._measured is not None and octets is not None and octets != self._announced:
            self._measured(octets, self._status)


def _unreadable(error: OSError) -> StoreTrouble:
    return StoreTrouble("message cannot be read at the moment", detail=f"reading a message: {error.strerror}")
