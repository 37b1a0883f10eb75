"""``pop3toy who``, ``status``, ``close``, ``drain`` and ``watch`` with a server that runs beside the test."""

from __future__ import annotations

import contextlib
import io
import json
import os
import poplib
from typing import Any

from pop3toy.cli import inspecting
from pop3toy.cli.who import _show
from pop3toy.testing import running_server

from ..cli_world import CommandTests, Outcome

TOKEN = "a-token-of-some-length"


class WhoTests(CommandTests):
    """What an operator sees and does in another terminal."""

    def setUp(self) -> None:
        super().setUp()
        self.socket = self.root / "inspector.sock"
        self.token = self.root / "token"
        self.token.write_text(f"{TOKEN}\n")
        self.enterContext(self.environment(POP3TOY_SERVER=f"unix:{self.socket}"))

    def environment(self, **values: str) -> Any:
        """The environment of commands."""
        from unittest.mock import patch

        return patch.dict(os.environ, values)

    def serve(self, **options: Any) -> Any:
        """A server with an inspector on a Unix socket, if nothing else is said."""
        options = options or {"inspector": f"unix:{self.socket}"}
        return self.enterContext(running_server({"ann": ["hello"]}, **options))

    def client(self, server: Any) -> poplib.POP3:
        """A client that has logged in."""
        client = poplib.POP3(server.host, server.port, timeout=10)
        self.addCleanup(client.close)
        client.user("ann")
        client.pass_(server.passwords["ann"])
        return client

    def ok(self, *arguments: str) -> str:
        """What a command prints."""
        said = self.run_command(*arguments)
        self.assertEqual((said.status, said.err), (0, ""))
        return said.out

    def test_who(self) -> None:
        """A table, and JSON; nobody is nobody."""
        server = self.serve()
        self.assertEqual(self.ok("who"), "Nobody is connected.\n")
        self.client(server)
        head, row = self.ok("who").splitlines()
        self.assertEqual(head.split()[:4], ["ID", "PROTOCOL", "USER", "FROM"])
        self.assertRegex(row, r"^ 1  POP3 +ann +127\.0\.0\.1:\d+ +- +TRANSACTION ")
        [one] = json.loads(self.ok("who", "--json"))["sessions"]
        self.assertEqual(one["user"], "ann")

    def test_close(self) -> None:
        """By number and by user; who is not there is an error."""
        server = self.serve()
        self.client(server)
        self.assertEqual(self.ok("close", "1"), "session 1 is closed\n")
        server.sessions  # noqa: B018
        self.client(server)
        self.assertEqual(self.ok("close", "--user", "ann"), "session 2 is closed\n")
        self.assertEqual(
            self.run_command("close", "7"), Outcome(1, "", "Error: Session 7 is gone, or never was.\n")
        )
        self.assertEqual(
            self.run_command("close", "--user", "\x1b[2J").err, "Error: \\x1b[2J has no session\n"
        )
        self.assertEqual(self.run_command("close").status, os.EX_USAGE)

    def test_drain_and_status(self) -> None:
        """No more clients, which status tells, until they are let in again."""
        server = self.serve()
        self.client(server)
        self.assertEqual(self.ok("drain"), "no more connections are taken; 1 is left\n")
        self.assertIn("draining", self.run_command("status").out)
        self.assertEqual(self.ok("drain", "--resume"), "connections are taken again\n")
        self.assertIn("are taken\n", self.ok("status"))
        self.assertTrue(json.loads(self.ok("status", "--json"))["healthy"])

    def test_watch(self) -> None:
        """A conversation from its beginning to its end, explained."""
        server = self.serve()
        self.client(server).quit()
        said = self.ok("watch", "1")
        self.assertIn("[1] C: USER ann\n", said)
        self.assertIn("(RFC 1939 section 5)\n", said)
        self.assertIn("[1] -- closed (quit)\n", said)
        self.assertIn("[1] C: PASS ****\n", said)
        events = [json.loads(line) for line in self.ok("watch", "1", "--json").splitlines()]
        self.assertEqual((events[0]["event"], events[-1]["event"]), ("Connected", "Ended"))

    def test_watch_escapes(self) -> None:
        """What would steer a terminal, in lines, names and explanations, is escaped."""
        evil = "\x1b[2J\udcff"
        event = {
            "event": "ReplySent",
            "session": 1,
            "data": f"{evil}\r\n" * 50,
            "handed_over": True,
            "explained": [{"kind": "hint", "text": evil, "clause": evil, "line": 49}],
        }
        with contextlib.redirect_stdout(io.StringIO()) as out:
            for one in (event, {**event, "event": "Connected", "peer": evil, "protocol": evil}):
                _show(one, json_=False)
        said = out.getvalue()
        self.assertTrue(all(c.isprintable() or c == "\n" for c in said))
        self.assertIn("[1] S: \\x1b[2J\\xff\n[1] S: ", said)
        self.assertIn("[1] ... 30 more lines\n       ! \\x1b[2J", said)

    def test_watch_live(self) -> None:
        """What goes on is followed to its end, and the command ends with the session."""
        server = self.serve()
        client = self.client(server)

        def quit_when_watched() -> None:
            client.quit()

        events = inspecting.InspectorClient.events

        def begun(own: Any, session: int | None, since: int | None) -> Any:
            told = events(own, session, since)
            quit_when_watched()
            yield from told

        self.patch(inspecting.InspectorClient, "events", begun)
        self.assertIn("[1] C: QUIT\n", self.ok("watch", "1"))

    def test_server_ends(self) -> None:
        """When the server stops, whoever watches is told; the server does not wait for them."""
        server = self.serve()
        client = inspecting.InspectorClient(f"unix:{self.socket}", None)
        events = client.events(None, 0)
        self.client(server)
        self.assertEqual(next(events)[1]["event"], "Connected")
        server.stop()
        told = [one["event"] for _, one in events]
        self.assertEqual(told[-1:], ["Ended"])

    def test_token(self) -> None:
        """Over TCP the token is needed, from a file or the environment, never from the command line."""
        server = self.serve(inspector_port=0, inspector_token_file=str(self.token))
        url = server._service.inspector.partition("?")[0]
        refused = self.run_command("who", "--server", url)
        self.assertEqual(refused.status, os.EX_NOPERM)
        self.assertIn("--token-file FILE, or POP3TOY_TOKEN", refused.err)
        self.assertEqual(self.ok("who", "--server", url, "--token-file", str(self.token))[:6], "Nobody")
        with self.environment(POP3TOY_TOKEN=TOKEN):
            self.assertEqual(self.ok("who", "--server", url)[:6], "Nobody")
        in_url = self.run_command("who", "--server", f"{url}?token={TOKEN}")
        self.assertEqual(in_url.status, os.EX_USAGE)
        self.assertIn("POP3TOY_TOKEN", in_url.err)
        # The log's link, where nobody else can read it; it goes before the token of other servers.
        with self.environment(POP3TOY_SERVER=f"{url}?token={TOKEN}", POP3TOY_TOKEN="another"):
            self.assertEqual(self.ok("who")[:6], "Nobody")
            self.assertEqual(self.ok("status", "--json")[:1], "{")
            self.assertEqual(self.run_command("who", "--server", url).status, os.EX_NOPERM)
            in_url = self.run_command("who", "--server", f"{url}?token={TOKEN}")
            self.assertEqual(in_url.status, os.EX_USAGE)
        for where in ("http://127.0.0.1:1/", "http://x:y/", "ftp://x/"):
            with self.environment(POP3TOY_SERVER=f"{where}?token={TOKEN}"):
                said = self.run_command("who")
                self.assertNotEqual(said.status, 0)
                self.assertNotIn(TOKEN, said.err)
        with self.environment(POP3TOY_SERVER=f"{url}?token=wrong"):
            self.assertEqual(self.run_command("who").status, os.EX_NOPERM)
            self.assertEqual(self.ok("who", "--token-file", str(self.token))[:6], "Nobody")

    def test_nobody_answers(self) -> None:
        """No server, or something else that is none, is one line."""
        for server in (f"unix:{self.socket}", "http://127.0.0.1:1"):
            said = self.run_command("status", "--server", server)
            self.assertEqual((said.status, said.err.count("\n")), (os.EX_UNAVAILABLE, 1))
            self.assertIn("no inspector answers at", said.err)
            self.assertIn("Start the server with --inspector-port 8025, or --inspector unix:PATH", said.err)
            self.assertEqual(said.err.count("\n"), 1)
        for server in ("ftp://x", "127.0.0.1:8025", "http://x:y"):
            self.assertEqual(self.run_command("status", "--server", server).status, os.EX_USAGE)
        pop3 = self.serve()
        said = self.run_command("status", "--server", f"http://127.0.0.1:{pop3.port}")
        self.assertEqual((said.status, said.err.count("\n")), (os.EX_UNAVAILABLE, 1))
