"""A program on asyncio that serves POP3 beside its own tasks, in one thread and one event loop.

Run it with ``python docs/examples/embed_beside_asyncio.py 2590`` and log in as ``ann`` with the
password ``secret``: each second there is one message more.  Ctrl-C ends it.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from twisted.internet import asyncioreactor

from pop3toy import MemoryStore, Settings, server


async def tick(store: MemoryStore) -> None:
    """A task of the program: a message each second."""
    number = 0
    while True:
        number += 1
        store.add("ann", b"Subject: tick %d\n\nIt is still there.\n" % number)
        await asyncio.sleep(1)


async def main(port: int) -> None:
    """Everything there is, until Ctrl-C or SIGTERM."""
    loop = asyncio.get_running_loop()
    # Twisted's reactor on the loop that runs already; nobody has imported another one before.
    reactor = asyncioreactor.AsyncioSelectorReactor(loop)
    reactor.startRunning(installSignalHandlers=False)
    store = MemoryStore({"ann": []})
    service = server(reactor, Settings(port=port, users=(("ann", "secret"),), transcript="-"), store=store)
    service.startService()
    ticking = loop.create_task(tick(store))
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()
    ticking.cancel()
    # The sessions end first; then the loop may.
    await service.stopService().asFuture(loop)


if __name__ == "__main__":
    asyncio.run(main(int((sys.argv[1:] or ["2590"])[0])))
