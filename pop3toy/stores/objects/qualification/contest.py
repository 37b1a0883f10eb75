"""Many ask for the same object at the same time, in several processes: one may get it.

The process that examines starts the others, and tells them a line at a time what to do; each asks from
several threads at once.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from queue import Empty, SimpleQueue
from threading import Barrier, Thread
from typing import Any, Final, NamedTuple, Protocol

from ....errors import CannotStart, StoreTrouble
from ..connecting import Engines
from ..engine import Engine, Found, Tag, Taken
from ..settings import Objects

__all__ = ["Asking", "Contestant", "Here", "Process", "judged"]

#: How many threads of each process ask at once.
THREADS: Final = 4
#: Seconds in which a process has to answer: longer than any request takes.
ANSWER: Final = 60.0


class Asking(NamedTuple):
    """How one request ended."""

    #: ``won``, ``lost`` (the condition did not hold), or ``trouble``.
    outcome: str
    #: What it wrote, if it did.
    body: str = ""
    #: What the trouble was.
    detail: str = ""


class Contestant:
    """One of those who ask.

    :param threads: how many requests it makes at once.
    """

    def __init__(self, engine: Engine, threads: int = THREADS) -> None:
        self._engine = engine
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def do(self, what: str, key: str, tag: Sequence[str | None] = ()) -> list[Asking]:
        """Do as told; blocks.

        :param what: ``create`` or ``swap``, from all threads at once; ``put`` or ``delete``, once.
        :param tag: what :class:`~pop3toy.stores.objects.engine.Tag` is made of, for a swap.
        """
        together = Barrier(self._threads if what in ("create", "swap") else 1)

        def ask() -> Asking:
            body = secrets.token_hex(16)
            together.wait()
            try:
                if what == "delete":
                    self._engine.delete([key])
                elif what == "swap":
                    self._engine.swap(key, body.encode(), Tag(*tag))
                else:
                    self._engine.create(key, body.encode())
            except Taken:
                return Asking("lost", body)
            except StoreTrouble as error:
                return Asking("trouble", body, error.detail)
            return Asking("won", body)

        return [asked.result() for asked in [self._pool.submit(ask) for _ in range(together.parties)]]


class Driven(Protocol):
    """A contestant as the one who examines has it: first all are asked, then all answers are awaited."""

    def ask(self, **what: Any) -> None:
        """Have it do something; see :meth:`Contestant.do`."""

    def answer(self) -> list[Asking]:
        """What came of it.

        :raises pop3toy.errors.StoreTrouble: if none comes.
        """

    def end(self) -> None:
        """End it."""


class Here:
    """A contestant in this process, for a store that no other process sees."""

    def __init__(self, engine: Engine) -> None:
        self._contestant = Contestant(engine)
        self._pool = ThreadPoolExecutor(1)
        self._doing: Future[list[Asking]] | None = None

    def ask(self, **what: Any) -> None:
        """See :class:`Driven`."""
        self._doing = self._pool.submit(self._contestant.do, **what)

    def answer(self) -> list[Asking]:
        """See :class:`Driven`."""
        assert self._doing is not None
        return self._doing.result()

    def end(self) -> None:
        """See :class:`Driven`."""
        self._pool.shutdown()


class Process:
    """A contestant in a process of its own."""

    def __init__(self, settings: Objects, environ: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            # Not forked: the library's threads would be missing.
            [sys.executable, "-P", "-c", f"from {__name__} import contestant; contestant()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(os.environ if environ is None else environ),
            text=True,
        )
        self._lines: SimpleQueue[str] = SimpleQueue()
        # A pipe cannot be waited for with an end.
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()
        self.ask(**asdict(settings))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def ask(self, **what: Any) -> None:
        """See :class:`Driven`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
        except OSError:
            # There will be no answer either.
            pass

    def answer(self) -> list[Asking]:
        """See :class:`Driven`."""
        try:
            line = self._lines.get(timeout=ANSWER)
        except Empty:
            raise StoreTrouble(detail=f"a process has not answered for {ANSWER:.0f} s") from None
        if not line:
            raise StoreTrouble(detail=f"a process has ended ({self._process.wait()})")
        return [Asking(*one) for one in json.loads(line)]

    def end(self) -> None:
        """See :class:`Driven`."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:
                # A line that was not read any more.
                pass


def contestant() -> None:
    """What a process of its own does: read the settings, connect, and do what each line says."""
    said = json.loads(sys.stdin.readline())
    said["buckets"] = tuple(said["buckets"])
    try:
        engine = Engines(Objects(**said)).main
        # The first call connects.
        engine.list("p/none")
        answer = [Asking("won")]
    except (CannotStart, StoreTrouble) as error:
        answer = [Asking("trouble", "", getattr(error, "detail", "") or str(error))]
    print(json.dumps(answer), flush=True)
    if answer[0].outcome == "won":
        one = Contestant(engine)
        for line in sys.stdin:
            print(json.dumps(one.do(**json.loads(line))), flush=True)


def judged(asked: Sequence[Asking], before: bytes | None, after: Found | None) -> str:
    """What is wrong with a round; nothing if it is empty.

    :param before: the body that was there.
    :param after: what is there now.
    """
    won = [one for one in asked if one.outcome == "won"]
    if len(won) > 1:
        return f"{len(won)} of {len(asked)} had the same object at the same time"
    body = None if after is None else after.body
    if won:
        return "" if body == won[0].body.encode() else "what one has written is not there"
    if body == before:
        # All of the requests may have failed.
        return f"none of {len(asked)} got it" if all(one.outcome == "lost" for one in asked) else ""
    # An answer was lost, and the library's second try refused: the writer asks again and sees that.
    return "" if body in [one.body.encode() for one in asked] else "there is what nobody has written"
