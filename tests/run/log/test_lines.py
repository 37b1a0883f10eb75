"""Log lines made the short way: the same octets as Twisted's, wherever the log goes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any, Unpack

from hypothesis import given
from hypothesis import strategies as st
from twisted.application.service import Application, IService
from twisted.logger import ILogObserver, LogLevel, capturedLogs, formatEvent, formatTime
from twisted.logger import formatEventAsClassicLogText as classic
from twisted.python import syslog, threadable
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.config.settings import Settings
from pop3toy.observe.line_writer import LineWriter
from pop3toy.observe.log_levels import Levels
from pop3toy.run.log.choosing import chosen_log, set_observer
from pop3toy.run.log.lines import FastLines, LinesInTurn
from pop3toy.run.log.workers import WorkersLog
from pop3toy.run.process import TwistdOptions
from pop3toy.run.service import OrderedService

TEXTS = st.text(st.sampled_from("ab {}\n\t'é\x00"), max_size=12)
EVENTS: Any = st.fixed_dictionaries(
    {},
    optional={
        "log_format": st.sampled_from(["{text}", "{text}!", "", "{nothing}"]),
        "text": st.one_of(TEXTS, st.integers(), st.none()),
        "log_time": st.one_of(st.floats(0, 4e9), st.sampled_from([1.25, 1.5, 2.0]), st.none()),
        "log_system": st.one_of(TEXTS, st.just("a\nb"), st.none()),
        "log_namespace": TEXTS,
        "log_level": st.sampled_from([LogLevel.info, LogLevel.warn]),
        "log_failure": st.just(Failure(ValueError("x"))),
    },
)


def ordinary(event: Any) -> str | None:
    """What Twisted's observer of a text file writes."""
    return classic(event, formatTime=lambda when: formatTime(when))


#: What the settings say where they say nothing.
CHOSEN = chosen_log(Settings(), {}, Levels())


class FastLinesTests(SynchronousTestCase):
    """One formatter for many events."""

    @given(st.lists(EVENTS, max_size=6))
    def test_same_octets(self, events: list[Any]) -> None:
        """Whatever events come one after the other, each line is the one that Twisted would write."""
        fast = FastLines(ordinary)
        for event in events:
            self.assertEqual(fast(event), ordinary(event))

    def test_short_way(self) -> None:
        """A line as of a login is made without the ordinary formatter."""
        fast = FastLines(lambda event: self.fail("the long way"))
        event = {"log_format": "{text}", "text": "login: {x}", "log_time": 1.5, "log_system": "a"}
        self.assertEqual(fast(event), ordinary(event))


class Writes(StringIO):
    """A file that remembers what each call wrote, once it was flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def flush(self) -> None:
        """What was written since the last time is a piece."""
        self.pieces.append(self.getvalue())
        self.seek(0)
        self.truncate()


class FakeTurns:
    """Turns that a test begins and ends."""

    def __init__(self) -> None:
        self.crowded = False
        self.postponed: list[Callable[[], object]] = []

    def postpone(self, call: Callable[[], object]) -> bool:
        """See :class:`pop3toy.interfaces.Batcher`."""
        if self.crowded:
            self.postponed.append(call)
        return self.crowded

    def heard(self) -> None:
        """All have been heard, and are being answered."""
        postponed, self.postponed = self.postponed, []
        for call in postponed:
            call()

    def end(self) -> None:
        """All have been answered."""
        self.crowded = False
        self.heard()


class LinesInTurnTests(SynchronousTestCase):
    """When lines are written."""

    def setUp(self) -> None:
        """An observer in the reactor's thread, which is this one."""
        self.patch(threadable, "ioThread", threadable.getThreadID())
        self.out, self.turns = Writes(), FakeTurns()
        self.observer = LinesInTurn(self.out, lambda event: event["line"], self.turns)

    def test_alone(self) -> None:
        """A line that comes alone is written at once, and one that is none not at all."""
        self.observer({"line": "one\n"})
        self.observer({"line": None})
        self.observer({"line": ""})
        self.assertEqual(["one\n"], self.out.pieces)

    def test_one_turn(self) -> None:
        """The lines of one turn are written at its end, in their order, in one piece."""
        self.turns.crowded = True
        for line in ("one\n", "two\n", "three\n"):
            self.observer({"line": line})
        self.assertEqual([], self.out.pieces)
        self.turns.end()
        self.observer({"line": "four\n"})
        self.assertEqual(["one\ntwo\nthree\n", "four\n"], self.out.pieces)

    def test_answers(self) -> None:
        """Lines about who is heard and about who is answered leave together."""
        self.turns.crowded = True
        self.observer({"line": "one\n"})
        self.turns.postpone(lambda: self.observer({"line": "two\n"}))
        self.observer({"line": "three\n"})
        self.turns.heard()
        self.assertEqual([], self.out.pieces)
        self.turns.end()
        self.assertEqual(["one\nthree\ntwo\n"], self.out.pieces)

    def test_turn_without_end(self) -> None:
        """Should a turn never come to its end, the next line brings those with it that waited."""
        self.turns.crowded = True
        self.observer({"line": "one\n"})
        self.turns.crowded = False
        self.observer({"line": "two\n"})
        self.assertEqual(["one\ntwo\n"], self.out.pieces)

    def test_other_threads(self) -> None:
        """What another thread says in the middle of a turn is written at once, and never put off."""
        self.turns.crowded = True
        self.observer({"line": "one\n"})
        thread = threading.Thread(target=self.observer, args=({"line": "elsewhere\n"},))
        thread.start()
        thread.join()
        self.assertEqual(["elsewhere\n"], self.out.pieces)
        self.turns.end()
        self.assertEqual(["elsewhere\n", "one\n"], self.out.pieces)

    def test_another_alphabet(self) -> None:
        """What a terminal cannot show is written with escapes, and hides no other line of its turn."""
        out = TextIOWrapper(BytesIO(), "iso-8859-1")
        observer = LinesInTurn(out, lambda event: event["line"], self.turns)
        self.turns.crowded = True
        for line in ("one\n", "\u017caba\n", "three\n"):
            observer({"line": line})
        self.turns.end()
        observer({"line": "\u017c\n"})
        self.assertEqual(b"one\n\\u017caba\nthree\n\\u017c\n", out.buffer.getvalue())  # type: ignore[attr-defined]

    def test_without_turns(self) -> None:
        """A server without turns writes each line at once."""
        observer = LinesInTurn(self.out, lambda event: event["line"], None)
        observer({"line": "one\n"})
        observer({"line": "two\n"})
        self.assertEqual(["one\n", "two\n"], self.out.pieces)


class ObserverTests(SynchronousTestCase):
    """What twistd finds at an application."""

    def observer(self, **twistd: Unpack[TwistdOptions]) -> Any:
        """The observer of an application whose server has these options of twistd."""
        application = Application("pop3toy")
        OrderedService(lambda one: set_observer(one, twistd, CHOSEN)).setServiceParent(application)
        self.assertEqual(1, len(list(IService(application))))  # type: ignore[call-overload]
        return application.getComponent(ILogObserver, None)

    def test_file(self) -> None:
        """Where twistd would write a text file, it writes the same file the short way."""
        path = Path(self.mktemp())
        observer = self.observer(nodaemon=True, logfile=str(path))
        self.assertIs(type(observer), LinesInTurn)
        event = {"log_format": "{text}", "text": "login", "log_time": 1.5, "log_system": "a"}
        observer(event)
        observer({"log_format": "other"})
        self.assertEqual(path.read_text(), f"{ordinary(event)}{ordinary({'log_format': 'other'})}")

    def test_terminal(self) -> None:
        """Without a file it is the terminal."""
        out = StringIO()
        self.patch(__import__("sys"), "stdout", out)
        self.observer(nodaemon=True)(
            {"log_format": "{text}", "text": "x", "log_time": 1.5, "log_system": "a"}
        )
        self.assertTrue(out.getvalue().endswith(" [a] x\n"))

    def test_terminal_shared(self) -> None:
        """Where somebody else writes to the terminal as well, lines go through it, each at once."""
        self.patch(threadable, "ioThread", threadable.getThreadID())
        out = StringIO()
        for name in ("stdout", "__stdout__"):
            self.patch(__import__("sys"), name, out)
        event = {"log_format": "{text}", "text": "x", "log_time": 1.5, "log_system": "a"}
        for logfile, written in ((None, 1), (str(Path(self.mktemp())), 0)):
            lines, turns = Writes(), FakeTurns()
            turns.crowded = True
            application = Application("pop3toy")
            twistd: TwistdOptions = {"nodaemon": True, "logfile": logfile}
            writer = LineWriter(lambda lines=lines: lines, started=False)  # type: ignore[misc]
            prepare = partial(set_observer, twistd=twistd, chosen=CHOSEN, batcher=turns, terminal=writer)
            OrderedService(prepare).setServiceParent(application)
            observer: Any = application.getComponent(ILogObserver)
            observer(event)
            self.assertEqual(len(lines.pieces), written)
        self.assertEqual(out.getvalue(), "")

    def test_quiet_start(self) -> None:
        """Where that is wanted, what others say while the server starts is left out, but for warnings."""
        path = Path(self.mktemp())
        starting = True
        application = Application("pop3toy")
        OrderedService(
            lambda one: set_observer(
                one, {"nodaemon": True, "logfile": str(path)}, CHOSEN, starting=lambda: starting
            )
        ).setServiceParent(application)
        observer: Any = application.getComponent(ILogObserver)

        def say(text: str, **more: Any) -> None:
            observer(
                {"log_format": "{text}", "text": text, "log_time": 1.5, "log_level": LogLevel.info, **more}
            )

        say("one", log_namespace="twisted.application")
        say("two", log_system="-", log_namespace="log_legacy")
        say("three", log_namespace="twisted.x", log_level=LogLevel.warn)
        say("four", log_namespace="pop3toy.run.assembly")
        starting = False
        say("five", log_namespace="twisted.application")
        said = [line.rpartition(" ")[2] for line in path.read_text().splitlines()]
        self.assertEqual(said, ["three", "four", "five"])

    def test_others_are_left_alone(self) -> None:
        """``--logger`` is twistd's business."""
        self.assertIsNone(self.observer(logger=object()))
        # What is started from somebody's .tac file knows no options of twistd.
        self.assertIsNone(self.observer())
        self.assertFalse(Path("twistd.log").exists())

    def test_syslog(self) -> None:
        """syslog gets what Twisted makes of events, from the level of the settings on."""
        said: list[str] = []
        self.patch(syslog.SyslogObserver, "syslog", staticmethod(lambda level, text: said.append(text)))
        observer = self.observer(syslog=True)
        for level in (LogLevel.debug, LogLevel.info):
            event = {"log_format": "{text}", "text": level.name, "log_time": 1.5, "log_level": level}
            observer({**event, "log_namespace": "x", "log_system": "a"})
        self.assertEqual(said, ["[a] info"])


class WorkersLogTests(SynchronousTestCase):
    """Lines that workers have made."""

    LINES = (
        "2026-11-29T18:00:01+0000 [pop3toy.observe.session_log#warn] login {failed}\n"
        "2026-11-29T18:00:02+0000 [-] one [two] three\n\tTraceback:\n\t  2026 [x] y\n"
    )

    def test_file(self) -> None:
        """A log file gets them as they are, in one piece."""
        application, log = Application("x"), WorkersLog(CHOSEN)
        path = self.mktemp()
        log.set_observer(application, {"logfile": path, "nodaemon": True})
        log.publish(self.LINES)
        self.assertEqual(self.LINES, Path(path).read_text())

    def test_events(self) -> None:
        """Who wants events, as syslog, gets them with their time, level and origin."""
        log = WorkersLog(CHOSEN)
        log.set_observer(Application("x"), {"syslog": True})
        with capturedLogs() as events:
            log.publish(self.LINES)
            log.publish("\tthe rest\n")
        told = [
            (one["log_level"], one["log_system"], one["log_time"], formatEvent(one)) for one in events[:2]
        ]
        system = "pop3toy.observe.session_log#warn"
        self.assertEqual((LogLevel.warn, system, 1795975201.0, "login {failed}"), told[0])
        text = "one [two] three\nTraceback:\n  2026 [x] y"
        self.assertEqual((LogLevel.info, "-", 1795975202.0, text), told[1])
        self.assertEqual(["the rest"], [formatEvent(one) for one in events[2:]])
