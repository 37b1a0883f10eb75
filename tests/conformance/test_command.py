"""``pop3toy check`` as people and CI call it: its words, its files, its exit status."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.conformance.table import RULES, page

from ..cli_world import CommandTests, Outcome
from ..pages import page as text_of
from ..tls_world import Authority
from .badserver import BadServer, Session
from .faults import FAULTS, closes, instead
from .world import PASSWORD, USER, RightServer, server_context


class CheckTests(CommandTests):
    """The command, against a right server and others."""

    def setUp(self) -> None:
        super().setUp()
        authority = Authority(self.root)
        self.authority = str(authority.file)
        self.right = RightServer(self.root, authority.issue("localhost", "127.0.0.1"))
        self.addCleanup(self.right.stop)
        self.right.fill()
        self.password = self.root / "password"
        self.password.write_text(f"{PASSWORD}\nand what is not read\n")

    def check(self, *arguments: str, port: int = 0, password: bool = True) -> Outcome:
        """Run it."""
        words = [f"--password-file={self.password}"] if password else []
        server = f"127.0.0.1:{port or self.right.port}"
        return self.run_command("check", server, f"--user={USER}", *words, *arguments)

    def test_right(self) -> None:
        """With STLS nothing is wrong with this server, and the status is 0; the report has every rule."""
        done = self.check(f"--ca-file={self.authority}")
        self.assertEqual((done.status, done.err), (0, ""))
        self.assertIn(" 0 failed, ", done.out)
        for rule in RULES:
            self.assertIn(f" {rule.name} ", done.out)
            self.assertIn(rule.sentence, done.out)

    def test_own_mail(self) -> None:
        """With mail of its own everything is looked at, and afterwards the mailbox is as it was."""
        before = sorted(path.name for path in (self.right.maildir / "cur").iterdir())
        done = self.check(
            f"--ca-file={self.authority}", "--destructive", f"--deliver-smtp=127.0.0.1:{self.right.smtp[1]}",
            "--deliver-to=ann@example.org", "--yes", "--idle=0.1", "--json",
        )  # fmt: skip
        self.assertEqual(done.status, 0, done.out)
        found = {one["name"]: one for one in json.loads(done.out)["checks"]}
        self.assertEqual([name for name, one in found.items() if one["outcome"] == "failed"], [])
        skipped = {name for name, one in found.items() if one["outcome"] == "not tested"}
        named = {"login-delay", "clear-text", "half-close"}
        named |= {rule.name for rule in RULES if rule.rfc == 6856}
        self.assertEqual(skipped - named, set())
        self.assertEqual(done.err.count("brought for this"), 3)
        self.assertEqual(sorted(path.name for path in (self.right.maildir / "cur").iterdir()), before)
        self.assertEqual(list((self.right.maildir / "new").iterdir()), [])

    def test_mail_that_does_not_come(self) -> None:
        """Where messages are brought and do not come, the status is 2, and what came is removed again."""

        def two_of_three(session: Session, line: bytes, answer: Callable[[], bytes]) -> bytes:
            # The last message of the mailbox is not shown.
            return re.sub(rb"(?m)^7 .*\n", b"", answer()) if line[:4] in (b"UIDL", b"LIST") else answer()

        smtp = f"--deliver-smtp=127.0.0.1:{self.right.smtp[1]}"
        with BadServer(self.right.port, two_of_three) as server:
            done = self.check(
                "--tls=none",
                "--timeout=1",
                "--destructive",
                smtp,
                "--deliver-to=ann@example.org",
                port=server.port,
            )
        self.assertEqual((done.status, done.out), (2, ""))
        self.assertEqual(done.err, "Error: no message can be brought: 1 message did not come within 3 s\n")
        self.assertEqual(len(list((self.right.maildir / "new").iterdir())), 1)

    def test_first_message(self) -> None:
        """Without mail of its own it says which message it will remove, and removes no other."""
        done = self.check("--tls=none", "--destructive", "--yes", "--only=quit-removes")
        self.assertEqual(done.status, 0, done.out)
        self.assertIn("Will remove the message with unique-id 1700000000.M0P1.mail (23 octets)", done.err)
        self.assertEqual(len(list((self.right.maildir / "cur").iterdir())), 3)

    def test_reads_only(self) -> None:
        """Without --destructive no DELE is said."""
        with BadServer(self.right.port) as server:
            done = self.check("--tls=none", port=server.port)
            self.assertEqual(done.status, 0, done.out)
            self.assertGreater(len(server.heard), 300)
            self.assertEqual([line for line in server.heard if line.upper().startswith(b"DELE")], [])
        self.assertEqual(len(list((self.right.maildir / "cur").iterdir())), 4)

    def test_broken(self) -> None:
        """A MUST that is broken is status 1, with the lines that show it; a SHOULD is told."""
        faults = {planted.name: planted for planted in FAULTS}
        with BadServer(self.right.port, faults["stat-wrong"].fault) as server:
            done = self.check("--tls=none", "--only=stat-sum", "--only=noop", port=server.port)
        self.assertEqual(done.status, 1)
        self.assertIn('STAT is answered by "+OK 1 1", and LIST has 4 messages of 121 octets', done.out)
        self.assertIn("C: STAT\n", done.out)
        self.assertIn("S: +OK 1 1\n", done.out)
        self.assertTrue(
            done.out.endswith("1 passed, 1 failed (1 MUST), 0 not tested\n  MUST: stat-sum\n"), done.out
        )
        with BadServer(self.right.port, faults["no-lock"].fault) as server:
            done = self.check("--tls=none", "--only=lock", port=server.port)
        self.assertEqual(done.status, 0)
        self.assertIn("(1 SHOULD)", done.out)

    def test_junit(self) -> None:
        """For CI: a case for each rule, and failures for each MUST that is broken."""
        faults = {planted.name: planted for planted in FAULTS}
        file = self.root / "report.xml"
        with BadServer(self.right.port, faults["nul-in-message"].fault) as server:
            self.check("--tls=none", f"--junit={file}", "--only=no-nul", "--only=idle", port=server.port)
        with BadServer(self.right.port, instead("NOOP", b"-ERR\r\n")) as server:
            suite = ElementTree.parse(file).getroot()
            self.assertEqual(
                (suite.get("tests"), suite.get("failures"), suite.get("skipped")), ("2", "0", "1")
            )
            self.check("--tls=none", f"--junit={file}", "--only=noop", port=server.port)
        [case] = ElementTree.parse(file).getroot()
        self.assertEqual((case.get("classname"), case.get("name")), ("RFC1939.5", "noop"))
        [failure] = case
        self.assertEqual((failure.tag, failure.get("message")), ("failure", 'NOOP is answered by "-ERR"'))
        self.assertIn("C: NOOP\nS: -ERR", (failure.text or "").replace("1 ", ""))

    def test_untrusted(self) -> None:
        """A certificate that nobody trusts is a MUST that is broken, and no password goes to its server."""
        pair = Authority(self.root, "somebody else").issue("127.0.0.1")
        for implicit in (False, True):
            tls = f"--tls={'implicit' if implicit else 'stls'}"
            context = server_context(pair, self.root)
            with BadServer(self.right.port, context=context, implicit=implicit) as server:
                done = self.check(tls, f"--ca-file={self.authority}", port=server.port)
                self.assertEqual(done.status, 1)
                self.assertIn("the certificate is not trusted", done.out)
                self.assertEqual([line for line in server.heard if line[:4] in (b"PASS", b"AUTH")], [])
                done = self.check(tls, "--insecure", "--only=login", port=server.port)
                self.assertEqual(done.status, 0, done.out)

    def test_not_tried(self) -> None:
        """Where nobody answers the status is 2, and there is one line."""
        done = self.check(port=1)
        self.assertEqual((done.status, done.out), (2, ""))
        self.assertEqual(done.err, "Error: 127.0.0.1:1 does not answer: Connection refused\n")

    def test_no_tls(self) -> None:
        """Where there is no TLS no password is said; the last line tells what to do, and the status is 2."""
        with BadServer(self.right.port, instead("STLS", b"-ERR what?\r\n")) as server:
            for only in ([], ["--only=noop"], ["--only=capa"], ["--json"]):
                done = self.check(*only, port=server.port)
                self.assertEqual(done.status, 2, only)
                self.assertEqual(
                    done.err,
                    "Error: nobody could log in, so next to nothing was tested: no TLS: STLS is answered"
                    ' by "-ERR what?"; --tls none logs in without TLS\n',
                )
            self.assertEqual([line for line in server.heard if line[:4] in (b"PASS", b"AUTH")], [])
            self.assertEqual(self.check("--tls=none", "--only=noop", port=server.port).status, 0)

    def test_nobody_in(self) -> None:
        """Where nobody can log in for another reason, it is not green either."""
        untrusted = server_context(Authority(self.root, "somebody else").issue("127.0.0.1"), self.root)
        with BadServer(self.right.port, context=untrusted) as server:
            done = self.check(f"--ca-file={self.authority}", "--only=noop", port=server.port)
            self.assertEqual(done.status, 2)
            self.assertRegex(
                done.err,
                r"\AError: nobody could log in, so next to nothing was tested: the certificate is not .*\n\Z",
            )
        with BadServer(self.right.port, closes("PASS .*")) as server:
            done = self.check("--tls=none", "--only=noop", port=server.port)
            self.assertEqual(done.status, 2)
            self.assertRegex(
                done.err, r"\AError: nobody could log in, .*: no login: .* closed .* PASS \*\*\*\* is due"
            )

        def once(session: Session, line: bytes, answer: Callable[[], bytes]) -> bytes:
            first = sum(one.startswith(b"PASS ") for one in server.heard) < 2
            return answer() if first or not line.startswith(b"PASS ") else b""

        # One who gets in is enough.
        with BadServer(self.right.port, once) as server:
            done = self.check("--tls=none", "--only=noop", "--only=rset", port=server.port)
            self.assertEqual((done.status, done.err), (0, ""))
            self.assertIn("1 passed, 0 failed, 1 not tested", done.out)
        # A login is nothing that these need.
        self.assertEqual(self.check("--tls=none", "--only=greeting").status, 0)

    def test_usage(self) -> None:
        """Mistakes on the command line are told as those of other commands are."""
        for words, says in (
            (["--only=nothing"], "there is no check nothing"),
            (["--deliver-smtp=localhost:25"], "--deliver-smtp goes with --destructive"),
            ([f"--ca-file={self.password}"], "holds no certificate"),
        ):
            done = self.check(*words)
            self.assertEqual(done.status, os.EX_USAGE)
            self.assertIn(says, done.err)
        for server in ("host:port", ":110", "host:0", "host:65536"):
            done = self.run_command("check", server, "--user=ann", f"--password-file={self.password}")
            self.assertEqual(done.status, os.EX_USAGE, server)

    def test_password_of_the_environment(self) -> None:
        """POP3TOY_PASSWORD is the password; there is no option for it, and no word of it in the report."""
        self.patch(os, "environ", {**os.environ, "POP3TOY_PASSWORD": PASSWORD})
        done = self.check("--tls=none", "--only=login", "--json", password=False)
        self.assertEqual(done.status, 0)
        self.assertEqual(json.loads(done.out)["checks"][0]["outcome"], "passed")
        self.assertEqual(self.check("--password=x").status, os.EX_USAGE)

    def test_no_password(self) -> None:
        """Without one, and without a terminal to ask for it, nothing is tried."""
        command = [
            sys.executable,
            "-c",
            "from pop3toy.cli import main; main()",
            "check",
            "localhost",
            "-u=ann",
        ]
        # An empty one is none.
        environment = {**os.environ, "POP3TOY_PASSWORD": ""}
        # A session of its own has no terminal.
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
        )
        self.assertEqual((done.returncode, done.stdout), (os.EX_USAGE, ""))
        self.assertIn("There is no terminal to ask for the password", done.stderr)

    def test_wrong_password(self) -> None:
        """With the wrong one the login fails, is not tried again and again, and the password is not shown."""
        self.password.write_text("not the password\n")
        rules = [f"--only={name}" for name in ("login", "before-login", "stat", "noop", "dele")]
        for more in ([], ["--destructive", "--yes"]):
            with BadServer(self.right.port) as server:
                done = self.check("--tls=none", *rules, *more, port=server.port)
                self.assertLess(server.heard.count(b"PASS not the password\r\n"), 4)
            # Nobody knows whether it is the server's fault.
            self.assertEqual(done.status, 2)
            self.assertRegex(
                done.err, r"Error: the login was refused, are name and password right\? PASS \*\*\*\* .*\n\Z"
            )
            self.assertRegex(done.out, r"FAILED  login .*\n +PASS \*\*\*\* is answered by \"-ERR \[AUTH\]")
            self.assertIn("not tested: no login: PASS ****", done.out)
            self.assertIn("passed  before-login ", done.out)
        self.assertNotIn("not the password", done.out)
        # All rules, other ways to log in among them.
        with BadServer(self.right.port) as server:
            done = self.check("--tls=none", port=server.port)
            heard = b"".join(server.heard)
        plain = base64.b64encode(f"\0{USER}\0not the password".encode())
        self.assertEqual((done.status, heard.count(b"PASS not the password"), heard.count(plain)), (2, 1, 0))
        self.assertIn(" failed (1 MUST", done.out)


class PageTests(SynchronousTestCase):
    """The documents have the table's rows."""

    def test_current(self) -> None:
        """``docs/checks.rst`` is what the table makes of itself."""
        made = subprocess.run(
            [sys.executable, "-m", "pop3toy.conformance.table"], capture_output=True, text=True, check=True
        )
        self.assertEqual(text_of("docs/checks.rst"), made.stdout)
        self.assertEqual(made.stdout, page())

    def test_sections(self) -> None:
        """Each section that is looked at has a row in ``docs/rfc.rst``, how this server keeps it."""
        parts = text_of("docs/rfc.rst").split("\nRFC ")[1:]
        for rule in RULES:
            if rule.rfc:
                [part] = [one for one in parts if one.startswith(f"{rule.rfc}: ")]
                self.assertIn(f"   * - {rule.section}\n", part, rule.name)

    def test_names(self) -> None:
        """No two rules have one name, or one sentence."""
        self.assertEqual(len({rule.name for rule in RULES}), len(RULES))
        self.assertEqual(len({rule.sentence for rule in RULES}), len(RULES))
