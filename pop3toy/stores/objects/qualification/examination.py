"""All that is tried with an object storage before mail is put into it, and what comes of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ....errors import StoreTrouble
from ..connecting import Engines
from ..engine import Engine, Found, NoSuchObject
from ..probe import Unfit
from ..settings import Objects
from .contest import Asking, Driven, Here, Process, judged
from .latencies import LISTED, Figure, measured

__all__ = ["Report", "Result", "examined"]


class Result(NamedTuple):
    """What came of one thing that was tried."""

    name: str
    passed: bool
    detail: str


class Report(NamedTuple):
    """What came of all of it."""

    store: str
    #: Whether mail may be put into it.
    fit: bool
    #: One sentence that says so, and why not.
    verdict: str
    results: list[Result]
    figures: list[Figure]


class _Failed(Exception):
    """Something came out wrong; its text says what."""


def examined(
    settings: Objects,
    *,
    processes: int,
    rounds: int,
    clock: Callable[[], float],
    environ: Mapping[str, str] | None = None,
    say: Callable[[str], None] = lambda step: None,
    engines: Callable[[Objects], Engines] = Engines,
    listed: int = LISTED,
) -> Report:
    """Examine a store; blocks.  All that is made there has a prefix of its own, and is removed.

    :param processes: how many ask at the same time.
    :param rounds: how often.
    :param clock: seconds, for what is measured.
    :param environ: the environment of the processes; that of this one if not given.
    :param say: told what is being done.
    :param engines: makes the connections.
    :param listed: how many objects a listing has.
    :raises pop3toy.errors.CannotStart: if credentials or the library are missing.
    """
    here = engines(settings)
    run = _Run(here, settings, f"p/check-{secrets.token_hex(8)}", processes, rounds, environ)
    results: list[Result] = []
    figures: list[Figure] = []
    why = name = ""
    cannot = "cannot hold mail as it is"
    try:
        for name, function in (
            ("conditions", run.conditions),
            ("concurrent creates", run.creates),
            ("concurrent swaps", run.swaps),
            ("listings after writes", run.listings),
        ):
            say(name)
            results.append(Result(name, True, function()))
        name = "latencies"
        say(name)
        figures += measured(here.main, f"{run.prefix}/time", rounds, clock, listed)
    except _Failed as error:
        why = str(error)
    except StoreTrouble as error:
        why = error.detail.removeprefix("object storage: ")
        if not isinstance(error, Unfit):
            cannot = "could not be tried"
    finally:
        say("removing what was made")
        left = run.end()
    if why:
        results.append(Result(name, False, why))
    if left:
        results.append(Result("removal", False, left))
        why = why or left
    if why:
        verdict = f"{settings.url} {cannot}: {why}."
    else:
        verdict = f"{settings.url} can hold mail: its conditions held in all of {2 * rounds} rounds."
    return Report(settings.url, not why, verdict, results, figures)


class _Run:
    """What one examination has made, and needs."""

    def __init__(
        self,
        engines: Engines,
        settings: Objects,
        prefix: str,
        processes: int,
        rounds: int,
        environ: Mapping[str, str] | None,
    ) -> None:
        self.engines = engines
        self.engine: Engine = engines.main
        self.settings = settings
        self.prefix = prefix
        self.processes = processes
        self.rounds = rounds
        self.environ = environ
        self.contestants: list[Driven] = []
        self.connected = False

    def conditions(self) -> str:
        """The look that each server has at the start, and the same from each process."""
        self.engine.list(self.prefix)
        self.connected = True
        ahead = self.engines.offset
        clock = "its clock agrees with ours"
        # S3 tells whole seconds.
        if abs(ahead) > 1.0:
            clock = f"its clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} ours"
        if self.settings.place.scheme == "memory":
            # No other process sees it.
            self.contestants += [Here(self.engine) for _ in range(self.processes)]
            return f"kept, one after the other; {clock}"
        for _ in range(self.processes):
            self.contestants.append(Process(self.settings, self.environ))
        for one in self.contestants:
            (ready,) = one.answer()
            if ready.outcome != "won":
                raise StoreTrouble(detail=ready.detail)
        return f"kept, one after the other; {clock}"

    def creates(self) -> str:
        """All want to create the same object."""
        requests, troubled = 0, 0
        for number in range(self.rounds):
            key = f"{self.prefix}/create/{number}"
            asked = self._all(what="create", key=key)
            self._judge(asked, None, self._there(key))
            requests += len(asked)
            troubled += sum(one.outcome == "trouble" for one in asked)
        return self._said(requests, troubled)

    def swaps(self) -> str:
        """All want to replace the same object, which they have all seen."""
        key = f"{self.prefix}/swap"
        self.engine.create(key, b"-")
        seen = self._there(key)
        requests, troubled = 0, 0
        for _ in range(self.rounds):
            if seen is None:
                raise _Failed("an object is gone that nobody has removed")
            asked = self._all(what="swap", key=key, tag=tuple(seen.tag))
            before, seen = seen.body, self._there(key)
            self._judge(asked, before, seen)
            requests += len(asked)
            troubled += sum(one.outcome == "trouble" for one in asked)
        return self._said(requests, troubled)

    def listings(self) -> str:
        """What one process has written another lists, and what it has removed not any more."""
        prefix = f"{self.prefix}/list"
        for number in range(self.rounds):
            writer = self.contestants[number % len(self.contestants)]
            self._one(writer, what="put", key=f"{prefix}/{number}")
            if str(number) not in (names := {one.name for one in self.engine.list(prefix)}):
                raise _Failed("a listing lacks what was just written")
            other = self.contestants[(number + 1) % len(self.contestants)]
            # Half of them stay, so that there is something to list.
            if number % 2:
                self._one(other, what="delete", key=f"{prefix}/{number - 1}")
                if str(number - 1) in {one.name for one in self.engine.list(prefix)}:
                    raise _Failed("a listing has what was just removed")
        return f"{self.rounds} objects, each listed at once; none after its removal; {len(names)} at the most"

    def end(self) -> str:
        """End the processes and remove all that was made.

        :return: what is left; nothing if it is empty.
        """
        for one in self.contestants:
            one.end()
        try:
            if self.connected:
                made = [f"{self.prefix}/{one.name}" for one in self.engine.list(self.prefix)]
                self.engine.delete(made)
        except StoreTrouble as error:
            return f"what was made under {self.prefix}/ is left ({error.detail})"
        return ""

    def _all(self, **what: object) -> list[Asking]:
        for one in self.contestants:
            one.ask(**what)
        return [asked for one in self.contestants for asked in one.answer()]

    def _one(self, contestant: Driven, **what: object) -> None:
        contestant.ask(**what)
        (asked,) = contestant.answer()
        if asked.outcome == "trouble":
            raise StoreTrouble(detail=asked.detail)

    def _there(self, key: str) -> Found | None:
        try:
            return self.engine.get(key)
        except NoSuchObject:
            return None

    def _judge(self, asked: list[Asking], before: bytes | None, after: Found | None) -> None:
        if wrong := judged(asked, before, after):
            raise _Failed(wrong)
        if all(one.outcome == "trouble" for one in asked):
            raise StoreTrouble(detail=asked[0].detail)

    def _said(self, requests: int, troubled: int) -> str:
        said = (
            f"{requests:,} requests of {self.processes} processes in {self.rounds} rounds, one winner in each"
        )
        return f"{said}; {troubled} failed" if troubled else said
