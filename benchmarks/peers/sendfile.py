"""The ceiling: a C program that only sends what lies ready in a file."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from benchmarks import native
from benchmarks.peers.peer import NotHere, Peer, Setting
from benchmarks.processes import Server


class SendfileServer(Peer):
    """``native/sendfile_server.c``; no TLS, no passwords, no mailboxes."""

    has_tls: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__("sendfile")
        self._program: Path | None = None

    def version(self) -> str:
        """What it is."""
        return "C, sendfile only"

    def launch(self, setting: Setting) -> Server:
        """Start it; compile it before, where that has not been done or was cleared away."""
        if self._program is None or not self._program.exists():
            try:
                self._program = native.build("sendfile_server", setting.scratch)
            except native.CompilerMissing as missing:
                raise NotHere(str(missing)) from None
        world = setting.world
        directories = [str(world.expected(data)) for data in world.sets]
        server = Server([str(self._program), *directories], setting.scratch / "out.log")
        self.port = int(server.first_line() or 0)
        return server
