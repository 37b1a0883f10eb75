"""The inspector of a real server: over workers, at a port that is taken, and where there is none."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ..corpus import make_maildir
from ..realserver import RealServer, ServerDied, maildir_options, run_python, wait_until
from ..strictclient import StrictClient


class RealInspectorTests(SynchronousTestCase):
    """``twistd -n pop3toy --inspector-port 0``."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()

    def asking(self, server: RealServer) -> Any:
        """What asks its inspector, with the token that its log shows."""
        wait_until(lambda: "inspector: http" in server.log, "the inspector listens")
        [(port, token)] = re.findall(r"inspector: http://127\.0\.0\.1:(\d+)/\?token=(\S+)", server.log)

        def ask(path: str, method: str = "GET") -> Any:
            connection = HTTPConnection("127.0.0.1", int(port), timeout=30)
            self.addCleanup(connection.close)
            connection.request(method, path, headers={"Authorization": f"Bearer {token}"})
            return json.loads(connection.getresponse().read())

        return ask

    def test_workers(self) -> None:
        """All workers' sessions are shown; one is closed, and those of a dead worker have ended."""
        make_maildir(self.root / "ann")
        make_maildir(self.root / "bob")
        options = maildir_options(self.root, ["ann:secret", "bob:secret"])
        with RealServer(*options, "--workers=2", "--inspector-port=0") as server:
            ask = self.asking(server)
            wait_until(lambda: server.log.count(" serves (process ") == 2, "the workers serve")
            clients = {}
            for user in (b"ann", b"bob"):
                clients[user] = client = StrictClient(server.port)
                self.addCleanup(client.close)
                client.login(user, b"secret")

            def live() -> dict[str, int]:
                found = ask("/api/sessions?state=live")["sessions"]
                return {one["user"]: one["id"] for one in found}

            wait_until(lambda: set(live()) == {"ann", "bob"}, "both are shown")
            whole = ask(f"/api/sessions/{live()['ann']}")
            self.assertIn("USER ann", [one.get("line") for one in whole["events"]])
            self.assertNotIn("secret", json.dumps(whole))
            locked = {one["user"]: one["locked_by"] for one in ask("/api/mailboxes")["mailboxes"]}
            self.assertEqual(locked, live())
            ask(f"/api/sessions/{live()['ann']}/close", "POST")
            wait_until(lambda: set(live()) == {"bob"}, "it is closed")
            number = (live()["bob"] - 1) % 2 + 1
            [pid] = re.findall(rf"worker {number} serves \(process (\d+)\)", server.log)
            os.kill(int(pid), signal.SIGKILL)
            wait_until(lambda: not live(), "the sessions of a dead worker have ended")
            self.assertEqual(server.log.count("token="), 1)
            self.assertTrue(server.terminate())
            self.assertNotIn("Traceback", server.log)

    def test_taken(self) -> None:
        """A port that is taken is one line, and the end."""
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            taken = other.getsockname()[1]
            with self.assertRaises(ServerDied) as died:
                RealServer(f"--inspector-port={taken}", folder=self.root)
        said = str(died.exception)
        line = f"pop3toy: cannot listen on 127.0.0.1:{taken} (the inspector): address already in use"
        self.assertEqual(said.count(line), 1, said)
        self.assertNotIn("Traceback", said)

    def test_off(self) -> None:
        """Without it nothing of HTTP is loaded, nor what explains."""
        program = (
            "import sys, pop3toy.tap; from pop3toy.config.settings import Settings\n"
            "from twisted.internet import reactor; import pop3toy\n"
            "pop3toy.server(reactor, Settings(port=0))\n"
            "print([name for name in sys.modules if 'inspect' in name and 'pop3toy' in name"
            " or name.startswith('twisted.web')])\n"
        )
        self.assertEqual(run_python(program, folder=self.root), "[]\n")
