"""A rule, what is found of it, and how all are looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from .examination import Examination
from .results import CannotTry, Failed, NotTested

__all__ = ["OUR_BUG", "Check", "Level", "Outcome", "Result", "Rule", "look", "run"]

#: What is not a result but a mistake of ours.
OUR_BUG = "the check itself failed"


class Level(Enum):
    """How much a rule asks; ``CLIENT`` is asked by no RFC, but some mail program stumbles without it."""

    MUST = "MUST"
    SHOULD = "SHOULD"
    MAY = "MAY"
    CLIENT = "client"


class Outcome(Enum):
    """What a check came to."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_TESTED = "not tested"


#: Looks whether a rule is kept; may return a note for the report.
#:
#: It raises :exc:`Failed`, :exc:`NotTested`, or what ``connection`` raises when the server does not answer.
Check = Callable[[Examination], str | None]


class Rule(NamedTuple):
    """A row of the table.

    :ivar name: what the report, ``--only`` and the documents call it.
    :ivar rfc: its number; 0 for what clients ask.
    :ivar section: of the RFC; for what clients ask, which ones.
    :ivar sentence: what is asked, in our words.
    """

    name: str
    rfc: int
    section: str
    level: Level
    sentence: str
    check: Check

    @property
    def source(self) -> str:
        """Who asks it: ``RFC 1939, 5``, or the names of clients."""
        return f"RFC {self.rfc}, {self.section}" if self.rfc else self.section


class Result(NamedTuple):
    """What a check found.

    :ivar text: how the rule is broken, why it was not tested, or a note; one line.
    :ivar lines: of the conversation, those that show it (``C: STAT``); no secrets in them.
    """

    rule: Rule
    outcome: Outcome
    text: str = ""
    lines: tuple[str, ...] = ()


def run(
    examination: Examination, rules: Sequence[Rule], told: Callable[[int, Rule], None] = lambda at, rule: None
) -> list[Result]:
    """Look at each rule, one after the other.

    :param told: called before each, with how many were looked at.
    """
    found = []
    examination.budget.begin_run()
    try:
        for at, rule in enumerate(rules):
            told(at, rule)
            why = examination.budget.used_up
            found.append(Result(rule, Outcome.NOT_TESTED, why) if why else look(examination, rule))
    finally:
        examination.budget.begin()
        # Also when somebody presses Ctrl-C.
        examination.clean_up()
    return found


def look(examination: Examination, rule: Rule) -> Result:
    """Look at one rule."""
    trace = examination.trace
    trace.restart()
    examination.budget.begin()
    try:
        note = rule.check(examination)
    except (NotTested, CannotTry) as why:
        return Result(rule, Outcome.NOT_TESTED, trace.masked(str(why)))
    except Failed as how:
        return Result(
            rule, Outcome.FAILED, trace.masked(str(how)), how.lines or trace.lines or examination.announcement
        )
    except Exception as error:
        # A mistake of ours says nothing about the server, and hides no other result.
        return Result(
            rule,
            Outcome.NOT_TESTED,
            trace.masked(f"{OUR_BUG}: {error!r}"),
            trace.lines,
        )
    finally:
        examination.budget.end()
    return Result(rule, Outcome.PASSED, note or "")
