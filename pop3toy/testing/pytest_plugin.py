"""The pytest plugin, which pytest finds by its entry point when pop3toy is installed.

Loaded by each run of pytest, whatever it tests: so nothing is imported here until a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .running import RunningServer

__all__ = ["pop3_server", "pop3_server_factory"]

#: The servers of a test, for its report.
_SERVERS: pytest.StashKey[list[RunningServer]] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest of the marker."""
    config.addinivalue_line(
        "markers",
        "pop3(mailboxes=..., passwords=..., tls=..., **options): how the fixture pop3_server is started;"
        " see pop3toy.testing.running_server. Marks of a class or module count, too; the nearest wins.",
    )


@pytest.fixture
def pop3_server_factory(request: pytest.FixtureRequest) -> Iterator[Callable[..., RunningServer]]:
    """Starts POP3 servers that stop with the test: call it as pop3toy.testing.running_server."""
    from .running import running_server

    node: pytest.Item = request.node
    with ExitStack() as running:

        def start(*arguments: Any, **options: Any) -> RunningServer:
            server = running.enter_context(running_server(*arguments, **options))
            node.stash.setdefault(_SERVERS, []).append(server)
            return server

        yield start


@pytest.fixture
def pop3_server(
    request: pytest.FixtureRequest, pop3_server_factory: Callable[..., RunningServer]
) -> RunningServer:
    """A POP3 server of this test: user "user", password "pass", one message; or as the marker pop3 says."""
    options: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("pop3"))):
        if marker.args:
            raise pytest.UsageError("the marker pop3 takes arguments by name: @pytest.mark.pop3(tls='stls')")
        options |= marker.kwargs
    return pop3_server_factory(**options)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A test that failed shows what its servers and clients have said."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed:
        for server in item.stash.get(_SERVERS, []):
            said = server.transcript or "nobody has connected"
            report.sections.append((f"POP3 at {server.host}:{server.port}", said))
