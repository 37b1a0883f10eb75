"""The same work for many users, for some of them at the same time, and what a person is shown meanwhile."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any, Final, TypeVar

import click

from ...errors import NoSuchMailbox, OverQuota, Refusal, StoreTrouble
from ...stores.copying.counts import Counts, Stopped
from ..options import failure, failure_of, printable

__all__ = ["Work", "each_done", "for_each"]

_Done = TypeVar("_Done")

#: Users in a row for whom a store fails for the same reason, after which no more are tried: it is the store
#: that fails, and with one that does not answer each of them takes a quarter of a minute.
IN_A_ROW: Final = 10


class Work:
    """What the work for one user gets: whom to tell, and when to stop.

    :param label: what is being done.
    """

    def __init__(self, label: str) -> None:
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._bar: Any = None
        self._label = label
        self._length = 0

    def __enter__(self) -> Work:
        if sys.stderr.isatty():
            label = printable(self._label)
            self._bar = click.progressbar(length=0, label=label, file=sys.stderr, show_pos=True)
            self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            # Threads may still be at a message when Ctrl-C came twice.
            bar, self._bar = self._bar, None
        if bar is not None:
            bar.__exit__(*error)

    def stop(self) -> None:
        """End it at the next message."""
        self._stop.set()

    @property
    def stopped(self) -> Callable[[], bool]:
        """Asked whether it is to end."""
        return self._stop.is_set

    def progress(self, coming: int, done: int) -> None:
        """So many messages more are to come, and so many more are done."""
        with self._lock:
            self._length += coming
            if self._bar is not None:
                self._bar.length = self._length
                # It was, if one user's messages were done before the next one's were known.
                self._bar.finished = False
                self._bar.update(done)

    def tell(self, sentence: str, *, err: bool = True) -> None:
        """Show a sentence."""
        with self._lock:
            if self._bar is not None:
                # A progress bar leaves its line open.
                click.echo("\r\x1b[K", nl=False, err=True)
            click.echo(printable(sentence), err=err)


def each_done(
    users: Sequence[str], work: Work, do: Callable[[str], _Done], *, threads: int
) -> Iterator[tuple[str, Future[_Done]]]:
    """Do something for each user, for so many at the same time: users, and what came of it, as they end.

    :param do: called with a user, in threads.
    """
    with ThreadPoolExecutor(threads, "user") as pool:
        running = {pool.submit(do, user): user for user in users}
        try:
            for one in as_completed(list(running)):
                yield running.pop(one), one
        except BaseException:
            # Ctrl-C, or a bug: each ends behind the message that it is at.
            work.stop()
            for one in running:
                one.cancel()
            raise


def for_each(
    users: Sequence[str], work: Work, do: Callable[[str], Counts], *, threads: int, counts: Counts
) -> dict[str, int]:
    """Do something for each user, until the store itself fails.

    :param do: called with a user, in threads.
    :param counts: what was done is added to it.
    :return: the exit status of each user for whom it failed, which a sentence has told.
    """
    failed: dict[str, int] = {}
    left_out: list[str] = []
    counting, last, in_a_row = threading.Lock(), "", 0

    def note(why: str) -> None:
        nonlocal last, in_a_row
        with counting:
            in_a_row = in_a_row + 1 if why == last else 1
            last = why
            if why and in_a_row == IN_A_ROW:
                work.stop()

    def noted(user: str) -> Counts:
        if work.stopped():
            raise Stopped
        why = ""
        try:
            return do(user)
        except (Refusal, OSError) as error:
            of_the_store = not isinstance(error, Refusal) or isinstance(error, StoreTrouble)
            if of_the_store and not isinstance(error, NoSuchMailbox | OverQuota):
                why, _ = failure(error)
            raise
        finally:
            note(why)

    for user, done in each_done(users, work, noted, threads=threads):
        try:
            counts.add(done.result())
        except Stopped:
            failed[user] = os.EX_TEMPFAIL
            left_out.append(user)
        except Exception as error:
            status = os.EX_NOUSER if isinstance(error, NoSuchMailbox) else os.EX_TEMPFAIL
            line, failed[user] = failure_of(user, error, status)
            work.tell(line)
    if left_out:
        others = f"{len(left_out)} other{'s were' if len(left_out) > 1 else ' was'}"
        work.tell(f"That was so for {IN_A_ROW} users in a row: {others} not tried, or not to the end.")
    return failed
