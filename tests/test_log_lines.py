"""Log lines made the short way: the same octets as Twisted's, wherever the log goes."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.application.service import Application, IService
from twisted.logger import FileLogObserver, ILogObserver, LogLevel, formatTime
from twisted.logger import formatEventAsClassicLogText as classic
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.log_lines import FastLines, set_observer
from pop3toy.service import OrderedService

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


class ObserverTests(SynchronousTestCase):
    """What twistd finds at an application."""

    def observer(self, **twistd: Any) -> Any:
        """The observer of an application whose server has these options of twistd."""
        application = Application("pop3toy")
        OrderedService(lambda one: set_observer(one, twistd)).setServiceParent(application)
        self.assertEqual(1, len(list(IService(application))))  # type: ignore[call-overload]
        return application.getComponent(ILogObserver, None)

    def test_file(self) -> None:
        """Where twistd would write a text file, it writes the same file the short way."""
        path = Path(self.mktemp())
        observer = self.observer(nodaemon=True, logfile=str(path))
        self.assertIs(type(observer), FileLogObserver)
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

    def test_others_are_left_alone(self) -> None:
        """``--logger`` and ``--syslog`` are twistd's business."""
        self.assertIsNone(self.observer(logger=object()))
        self.assertIsNone(self.observer(syslog=True))
