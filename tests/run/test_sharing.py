"""A store that several servers share: the name of one among them, and the first look at it."""

from __future__ import annotations

import os
import sys
from typing import Any
from unittest import skipUnless

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pop3toy import Settings, server
from pop3toy.errors import BadSetting, CannotStart, StoreTrouble
from pop3toy.run.checks import check_files, check_sources
from pop3toy.run.sharing.first_look import FirstLook
from pop3toy.run.sharing.node import NodeName, node_of
from pop3toy.stores.objects.engine import Engine
from pop3toy.stores.registry import Maildirs, Objects

from ..folders import new_folder
from ..memory_world import MemoryReactor


@skipUnless(sys.platform == "linux", "abstract Unix sockets are Linux's")
class NodeTests(SynchronousTestCase):
    """No two servers on one machine have one name for one store."""

    def setUp(self) -> None:
        self.refused: list[CannotStart] = []
        self.name = f"s3://mail {self.id()} {os.getpid()}"

    def node(self, name: str | None = None) -> NodeName:
        """What holds a name, when it is started."""
        return NodeName("store-node", name or self.name, self.refused.append)

    def started(self, name: str | None = None) -> NodeName:
        """It, started as a server starts its parts."""
        node = self.node(name)
        node.privilegedStartService()
        if not self.refused:
            node.startService()
            self.addCleanup(node.stopService)
        return node

    def test_second(self) -> None:
        """A second server of the same name is refused in one line that names the option."""
        self.started()
        self.started(f"{self.name}, another")
        self.assertEqual(self.refused, [])
        self.started()
        [why] = self.refused
        self.assertIsInstance(why, BadSetting)
        self.assertEqual(
            str(why),
            "--store-node: another server on this machine has this name for the same store, or is still"
            " ending",
        )

    def test_again(self) -> None:
        """When the first has ended, the name is free, without a file left behind."""
        first = self.started()
        first.stopService()
        self.assertEqual(first.descriptors, [])
        self.started()
        self.assertEqual(self.refused, [])

    def test_embedded(self) -> None:
        """It is taken, too, where nobody starts what may need privileges."""
        first = self.node()
        first.startService()
        self.addCleanup(first.stopService)
        self.started()
        self.assertEqual(len(self.refused), 1)

    def test_inherited(self) -> None:
        """A process that has inherited it holds the name until it ends, whatever has become of its parent."""
        first = self.started()
        [descriptor] = first.descriptors
        inherited = os.dup(descriptor)
        first.stopService()
        self.started()
        self.assertEqual(len(self.refused), 1)
        os.close(inherited)
        self.refused.clear()
        self.started()
        self.assertEqual(self.refused, [])

    def test_who_has_one(self) -> None:
        """A server has a name where its settings give one, for their store."""
        for store in (Objects("s3://mail"), Maildirs("/srv/{user}")):
            self.assertIsNone(node_of(store, self.refused.append))
        held = []
        for url, name in (("memory://a", "one"), ("memory://a", "two"), ("memory://b", "one")):
            node = node_of(Objects(url, node=name), self.refused.append)
            assert node is not None
            node.startService()
            self.addCleanup(node.stopService)
            held.append(node)
        self.assertEqual(self.refused, [])

    def test_server(self) -> None:
        """An embedded server raises it when it is started, and keeps no port open."""
        store = Objects("memory://x", node=f"node-{os.getpid()}")
        settings = Settings(port=0, store=store, users=(("ann", "secret"),))
        reactor: Any = MemoryReactor()
        first, second = server(reactor, settings), server(reactor, settings)
        first.startService()
        why = self.assertRaises(BadSetting, second.startService)
        self.assertEqual(why.option, "store-node")
        self.assertEqual(second.listening, [])


class Running(Clock):
    """A reactor that runs when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Any] = []

    def callWhenRunning(self, function: Any, *args: Any) -> None:
        self.waiting.append((function, args))

    def run(self) -> None:
        """It runs from now on."""
        for function, args in self.waiting:
            function(*args)


class FirstLookTests(SynchronousTestCase):
    """What is told of the store as soon as the server runs."""

    def setUp(self) -> None:
        self.reactor: Any = Running()
        self.looks: list[Deferred[object]] = []

    def look(self) -> Deferred[object]:
        """Look, as long as the test says."""
        self.looks.append(Deferred())
        return self.looks[-1]

    def started(self, *, tells: bool = True) -> FirstLook:
        """It, started."""
        first = FirstLook("s3://mail", self.look, self.reactor, tells=tells)
        first.startService()
        return first

    def told(self, result: object, *, tells: bool = True) -> list[tuple[LogLevel, str]]:
        """The lines of the log when the look has ended with this."""
        self.started(tells=tells)
        with capturedLogs() as events:
            self.reactor.run()
            self.reactor.advance(1.5)
            self.looks[-1].callback(result)
        return [(event["log_level"], formatEvent(event)) for event in events]

    def test_there(self) -> None:
        """One line tells where mail is, and how long the answer took."""
        self.assertEqual(
            self.told(None), [(LogLevel.info, "mail is in s3://mail, which answered within 1.50 s")]
        )

    def test_not_before_it_runs(self) -> None:
        """Nothing is asked before the reactor runs: the process may fork until then."""
        first = self.started()
        self.assertEqual(self.looks, [])
        first.stopService()
        self.reactor.run()
        self.assertEqual(self.looks, [])

    def test_not_there(self) -> None:
        """One line tells what is wrong, and what comes of it."""
        self.assertEqual(
            self.told(Failure(StoreTrouble(detail="there is no bucket"))),
            [
                (
                    LogLevel.warn,
                    "mail is in s3://mail, which does not answer as it should: there is no bucket;"
                    " logins and mail are put off",
                )
            ],
        )

    def test_one_tells(self) -> None:
        """Of several processes one tells it."""
        self.assertEqual(self.told(None, tells=False), [])
        self.assertEqual(self.told(Failure(StoreTrouble()), tells=False), [])

    def test_bug(self) -> None:
        """What is no refusal is logged as a bug is, and stops nothing."""
        self.told(Failure(ZeroDivisionError()))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stopped_meanwhile(self) -> None:
        """A server that has ended tells nothing."""
        first = self.started()
        self.reactor.run()
        first.stopService()
        with capturedLogs() as events:
            self.looks[-1].callback(Failure(StoreTrouble()))
        self.assertEqual(events, [])


class BeforeTheStartTests(SynchronousTestCase):
    """A store on a network is asked nothing before the server runs."""

    def setUp(self) -> None:
        self.asked: list[object] = []
        self.patch(Engine, "_connected", lambda engine: self.asked.append(engine))

    def test_nothing_asked(self) -> None:
        """Neither checks nor the server that is made and started ask it, whatever the options name."""
        folder = new_folder(self)
        (folder / "aliases").write_text("info: ann\n")
        (folder / "passwords").write_text("ann:secret\n")
        for more in (
            {"users": (("ann", "secret"),), "anonymous": "guest", "masters": ("ghost",)},
            {"users": (("ann", "secret"),), "metrics": 0, "inspector_port": 0},
            {
                "auth": (f"file:{folder}/passwords",),
                "smtp_port": 0,
                "aliases": f"{folder}/aliases",
                "catch_all": "ann",
            },
        ):
            settings = Settings(port=0, store=Objects("memory://x"), **more)  # type: ignore[arg-type]
            settings.check_whole()
            check_files(settings)
            reactor: Any = MemoryReactor()
            check_sources(settings, reactor)
            server(reactor, settings)
            self.assertEqual(self.asked, [], more)
            self.flushWarnings()

    def test_missing_library(self) -> None:
        """Where obstore is not installed one line says what installs it."""
        self.patch(sys, "modules", {**sys.modules, "obstore": None})
        settings = Settings(store=Objects("memory://x"), users=(("ann", "secret"),))
        why = self.assertRaises(CannotStart, check_files, settings)
        self.assertRegex(str(why), r"^--store memory://x needs the extra 'objects': .*install")

    def test_missing_credentials(self) -> None:
        """Without credentials one line says where they may be, and a file that others may read is refused."""
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            self.patch(os, "environ", {**os.environ})
            del os.environ[name]
        settings = Settings(store=Objects("s3://mail"), users=(("ann", "secret"),))
        why = self.assertRaises(BadSetting, check_files, settings)
        self.assertEqual(why.option, "store")
        self.assertIn("--store-credentials FILE", str(why))
        file = new_folder(self) / "credentials"
        file.write_text("AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=hunter2\n")
        file.chmod(0o644)
        settings = Settings(store=Objects("s3://mail", credentials=str(file)), users=(("ann", "secret"),))
        why = self.assertRaises(BadSetting, check_files, settings)
        self.assertEqual(why.option, "store-credentials")
        self.assertNotIn("hunter2", str(why))
        file.chmod(0o600)
        check_files(settings)
