"""One server of a name: a second one on this machine is refused, for it would take the locks of the first."""

from __future__ import annotations

import hashlib
import socket
import sys
from collections.abc import Callable

from twisted.application.service import Service

from ...errors import BadSetting, CannotStart
from ...stores.registry import kind_of

__all__ = ["NodeName", "node_of"]


class NodeName(Service):
    """Holds a name as long as the server runs, by an abstract Unix socket (unix(7)), to which nobody listens.

    The system gives it back when the last process that has it is gone, however that ended.

    :param option: which says the name.
    :param name: the name, with what it is a name for.
    :param failed: is called with a :class:`BadSetting` if it is taken; it should not return.
    """

    def __init__(self, option: str, name: str, failed: Callable[[CannotStart], object]) -> None:
        self._option = option
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
        self._address = f"\0pop3toy-node-{digest}"
        self._failed = failed
        self._socket: socket.socket | None = None

    @property
    def descriptors(self) -> list[int]:
        """What processes inherit that hold the name too."""
        return [self._socket.fileno()] if self._socket is not None else []

    def privilegedStartService(self) -> None:
        """Take the name, before any port is open."""
        super().privilegedStartService()
        held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            held.bind(self._address)
        except OSError:
            held.close()
            self._failed(
                BadSetting(
                    self._option,
                    ": another server on this machine has this name for the same store, or is still ending",
                )
            )
            return
        self._socket = held

    def startService(self) -> None:
        """Take the name, unless that was done while privileged."""
        super().startService()
        if self._socket is None:
            self.privilegedStartService()

    def stopService(self) -> None:
        """Give it back."""
        super().stopService()
        held, self._socket = self._socket, None
        if held is not None:
            held.close()


def node_of(store: object, failed: Callable[[CannotStart], object]) -> NodeName | None:
    """What holds the name that the settings of a store give this server, if they do.

    :param store: the settings.
    :param failed: is told that the name is taken.
    """
    alone = kind_of(store).alone(store)
    # Linux alone has such sockets.
    return NodeName(*alone, failed) if alone is not None and sys.platform == "linux" else None
