"""Whose reactor it is: importing installs none, and workers run on the one that was asked for."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import pop3toy

from ..corpus import awkward_messages, fill_maildir
from ..realserver import RealServer, environment, maildir_options, run_python, wait_until
from ..strictclient import StrictClient

ROOT = Path(pop3toy.__file__).parent
#: What ``--reactor`` says, and the class that it means.
REACTORS = {
    "epoll": "EPollReactor",
    "poll": "PollReactor",
    "select": "SelectReactor",
    "asyncio": "AsyncioSelectorReactor",
}


def modules() -> list[str]:
    """The names of all modules that are installed, the plugin's included."""
    parts = [path.relative_to(ROOT.parent).with_suffix("").parts for path in ROOT.rglob("*.py")]
    ours = [".".join(part for part in one if part != "__init__") for one in parts]
    return [*sorted(ours), "twisted.plugins.pop3toy_plugin"]


class ImportTests(SynchronousTestCase):
    """Twisted's default reactor is installed by whoever imports it first, once for all."""

    def test_every_module(self) -> None:
        """No module installs a reactor by being imported."""
        names = modules()
        self.assertIn("pop3toy.smtp.session", names)
        # Each in an interpreter that has imported nothing of ours: a fork costs less than a start.
        program = (
            "import importlib, os, sys\n"
            "import twisted.internet.endpoints, twisted.application.service, twisted.protocols.policies\n"
            "for name in sys.argv[1:]:\n"
            "    if not os.fork():\n"
            "        importlib.import_module(name)\n"
            "        if 'twisted.internet.reactor' in sys.modules:\n"
            "            os.write(1, name.encode() + b'\\n')\n"
            "        os._exit(0)\n"
            "    if os.wait()[1]:\n"
            "        print('not imported:', name, flush=True)\n"
        )
        self.assertEqual("", run_python(program, *names, folder=Path(self.mktemp())))

    def test_embedder(self) -> None:
        """A program that has imported the library installs the reactor that it wants."""
        program = (
            "import pop3toy, sys\n"
            "from twisted.internet import asyncioreactor\n"
            "asyncioreactor.install()\n"
            "from twisted.internet import reactor\n"
            "print(type(reactor).__name__)\n"
        )
        self.assertEqual("AsyncioSelectorReactor\n", run_python(program, folder=Path(self.mktemp())))

    def test_server(self) -> None:
        """A server that is given a reactor imports no other one, with TLS on a port of its own neither."""
        program = (
            "import sys\n"
            "from pop3toy import TLS, MemoryStore, Settings, server\n"
            "from twisted.internet.testing import MemoryReactorClock\n"
            "settings = Settings(tls_port=0, tls=TLS(self_signed=True), users=(('ann', 'secret'),))\n"
            "service = server(MemoryReactorClock(), settings, store=MemoryStore({'ann': []}))\n"
            "service.startService()\n"
            "print('twisted.internet.reactor' in sys.modules)\n"
        )
        self.assertEqual("False\n", run_python(program, folder=Path(self.mktemp())))


class WorkersTests(SynchronousTestCase):
    """``twistd --reactor NAME pop3toy --workers``."""

    def test_each_reactor(self) -> None:
        """Workers, and a server without them, serve on the reactor that was asked for."""
        for name, kind in REACTORS.items():
            for workers in (0, 2):
                with self.subTest(reactor=name, workers=workers):
                    self.serve(name, kind, workers)

    def serve(self, name: str, kind: str, workers: int) -> None:
        """Start a server, log in, and look on which reactors its processes run."""
        folder = Path(self.mktemp()).absolute()
        fill_maildir(folder / "mail" / "ann", awkward_messages(large=False)[:3])
        modules = folder / "modules"
        modules.mkdir()
        # Python reads it at every start.
        (modules / "sitecustomize.py").write_text(
            "import os, sys, threading, time\n"
            "def look():\n"
            "    while not getattr(sys.modules.get('twisted.internet.reactor'), 'running', False):\n"
            "        time.sleep(0.05)\n"
            "    kind = type(sys.modules['twisted.internet.reactor']).__name__\n"
            f"    open(f'{folder}/on.{{os.getpid()}}.{{kind}}', 'w').close()\n"
            "threading.Thread(target=look, daemon=True).start()\n"
        )
        home = folder / "home"
        home.mkdir()
        several = [f"--workers={workers}"] if workers else []
        server = RealServer(
            *maildir_options(folder / "mail", ["ann:secret"]),
            *several,
            folder=home,
            own_options=[f"--reactor={name}"],
            launcher=["env", f"PYTHONPATH={modules}{os.pathsep}{environment(home)['PYTHONPATH']}"],
        )
        self.addCleanup(server.terminate)
        wait_until(lambda: server.log.count(" serves (process ") == workers, "all workers serve")
        client = StrictClient(server.port)
        self.addCleanup(client.close)
        client.login()
        self.assertEqual(3, client.stat().messages)
        client.quit()
        wait_until(lambda: len(list(folder.glob("on.*"))) == workers + 1, "all processes are seen")
        self.assertEqual({kind}, {path.suffix[1:] for path in folder.glob("on.*")})
        self.assertTrue(server.terminate())
        self.assertNotIn("Traceback", server.log)
