"""``pop3toy config init``: the file that it writes is right, and a server starts with it."""

from __future__ import annotations

import errno
import os
import tomllib
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SkipTest

from tests.cli_world import CommandTests, Outcome, pop3toy

from ..pages import CHECKOUT
from ..realserver import RealServer
from ..strictclient import StrictClient
from ..tls_world import Authority


class InitTests(CommandTests):
    """A folder without a file."""

    def setUp(self) -> None:
        super().setUp()
        self.file = self.root / "etc" / "pop3toy.toml"
        self.patch(os, "environ", {**os.environ, "XDG_DATA_HOME": str(self.root), "HOME": str(self.root)})

    def init(self, *options: str) -> Outcome:
        """Write the file, without questions."""
        return self.run_command("config", "init", "--yes", *options, str(self.file))

    def said(self) -> dict[str, Any]:
        """What is in the file."""
        return tomllib.loads(self.file.read_text())

    def starts(self, *options: str) -> RealServer:
        """The file is right, and a server runs with it, on other ports."""
        outcome = self.run_command("config", "check", str(self.file))
        self.assertEqual(outcome.status, 0, outcome)
        server = RealServer(f"--config={self.file}", *options)
        self.addCleanup(server.terminate)
        return server

    def test_toy(self) -> None:
        """The toy, as it is without a file, and a trap for mail."""
        outcome = self.init("--kind=toy", "--port=0", "--smtp-port=0")
        self.assertEqual((outcome.status, outcome.err), (0, ""))
        self.assertIn(f"pop3toy serve --config {self.file}", outcome.out)
        self.assertEqual(set(self.said()), {"pop3", "mail"})
        with StrictClient(self.starts().port) as client:
            client.login(b"user", b"pass")
            self.assertEqual(client.stat().messages, 1)

    def test_host(self) -> None:
        """Maildirs that are there, whose users are proposed for accounts."""
        for part in ("new", "cur", "tmp"):
            (self.root / "mail" / "ann" / part).mkdir(parents=True)
        outcome = self.init("--kind=host", f"--maildir={self.pattern}", "--port=0", "--tls-port=0")
        self.assertEqual((outcome.status, outcome.err), (0, ""))
        self.assertIn(f"pop3toy user add --config {self.file} ann\n", outcome.out)
        accounts = self.root / "etc" / "accounts"
        self.assertEqual(accounts.stat().st_mode & 0o777, 0o600)
        accounts.write_text("ann:{PLAIN}secret\n")
        with StrictClient(self.starts().port) as client:
            client.login(b"ann", b"secret")
            self.assertEqual(client.stat().messages, 0)

    def test_friends(self) -> None:
        """A whole server; folder and accounts are made, and a certificate is named or made."""
        ports = [f"--{name}=0" for name in ("port", "tls-port", "smtp-port", "submission-port",
                                            "submission-tls-port")]  # fmt: skip
        certificate = self.root / "certificate.pem"
        Authority(self.root).issue("mail.example.org").write(certificate)
        outcome = self.init(
            "--kind=friends", "--domain=example.org", "--hostname=mail.example.org",
            f"--certificate={certificate}", *ports,
        )  # fmt: skip
        self.assertEqual((outcome.status, outcome.err), (0, ""))
        said = self.said()
        self.assertEqual(said["tls"], {"certificate": str(certificate)})
        self.assertEqual(said["mail"]["domain"], ["example.org"])
        self.assertTrue(said["store"]["create"])
        (self.root / "etc" / "accounts").write_text("ann:{PLAIN}secret\n")
        server = self.starts()
        with StrictClient(server.port) as client:
            client.login(b"ann@example.org", b"secret")
        for what in ("POP3 over TLS", "SMTP", "submission", "submission over TLS"):
            self.assertTrue(server.port_for(what))

    def test_systemd(self) -> None:
        """With the units of docs/systemd/alone it names their sockets, as the example does, and no ports."""
        outcome = self.init("--kind=friends", "--systemd", "--domain=example.org",
                            "--smarthost=smtps://mail.example.net")  # fmt: skip
        self.assertEqual((outcome.status, outcome.err), (0, ""))
        said = self.said()
        example = tomllib.loads((CHECKOUT / "docs/examples/config/alone.toml").read_text())
        for table, name in (("pop3", "listen"), ("pop3", "tls-listen"), ("mail", "smtp"),
                            ("mail", "submission"), ("mail", "submission-tls")):  # fmt: skip
            self.assertEqual(said[table][name], example[table][name])
        self.assertNotIn("port", said["pop3"])
        for told in (outcome.out, self.file.read_text()):
            self.assertIn("systemctl enable --now pop3toy.socket pop3toy.service\n", told)
            self.assertNotIn("pop3toy serve", told)
        self.assertEqual(said["outgoing"]["queue"], "/var/lib/pop3toy/queue")
        for name in ("accounts", "aliases", "smarthost"):
            self.assertEqual((self.root / "etc" / name).stat().st_mode & 0o777, 0o600)
        self.assertIn(f"write user:password into {self.root}/etc/smarthost\n", outcome.out)
        outcome = self.init("--kind=host", "--systemd", "--force")
        self.assertEqual((outcome.status, outcome.out), (os.EX_USAGE, ""))

    def test_smarthost_is_this_machine(self) -> None:
        """A Postfix here takes mail without a password; one elsewhere is never asked without TLS."""
        self.assertEqual(self.init("--kind=friends", "--smarthost=smtp://127.0.0.1").status, 0)
        self.assertEqual(set(self.said()["outgoing"]), {"smarthost", "queue"})
        outcome = self.init("--kind=friends", "--smarthost=smtp://mail.example.net", "--force")
        self.assertEqual(outcome.status, os.EX_USAGE)

    def test_owner(self) -> None:
        """What root makes belongs to the owner of the folder, who will run the server."""
        if os.geteuid() != 0:
            raise SkipTest("only root makes files for others")
        self.file.parent.mkdir()
        os.chown(self.file.parent, 65534, 65534)
        self.assertEqual(self.init("--kind=friends").status, 0)
        for name in ("pop3toy.toml", "accounts", "aliases", "mail"):
            self.assertEqual((self.root / "etc" / name).stat().st_uid, 65534, name)

    def test_yes(self) -> None:
        """Without any answer each kind is right."""
        for kind in ("toy", "host", "friends"):
            self.assertEqual(self.init(f"--kind={kind}", "--force").status, 0)
            self.assertNotIn("Error", self.run_command("config", "show", f"--config={self.file}").err)

    def test_never_overwritten(self) -> None:
        """A file that is there stays, unless --force is given; accounts stay always."""
        self.file.parent.mkdir()
        self.file.write_text("mine")
        accounts = self.root / "etc" / "accounts"
        accounts.write_text("ann:{PLAIN}secret\n")
        outcome = self.init("--kind=host")
        self.assertEqual(outcome.status, os.EX_CANTCREAT)
        self.assertIn("is there already; --force replaces it", outcome.err)
        self.assertEqual(self.file.read_text(), "mine")
        self.assertEqual(self.init("--kind=host", "--force").status, 0)
        self.assertIn("[store]", self.file.read_text())
        self.assertEqual(accounts.read_text(), "ann:{PLAIN}secret\n")
        self.assertEqual(sorted(os.listdir(self.file.parent)), ["accounts", "pop3toy.toml"])

    def test_mistake(self) -> None:
        """An answer that cannot be is told, and nothing is made."""
        outcome = self.init("--kind=friends", "--domain=a b")
        self.assertEqual(outcome.status, os.EX_USAGE)
        self.assertIn("'a b' is no name such as mail.example.org", outcome.err)
        self.assertFalse(self.file.exists())
        self.assertFalse((self.root / "etc" / "mail").exists())

    def test_questions(self) -> None:
        """What no option answers is asked, with what is proposed; Return takes it."""
        asked = CliRunner().invoke(
            pop3toy,
            [
                "config",
                "init",
                "--kind=host",
                "--port=0",
                "--tls-port=0",
                "--interface=127.0.0.1",
                str(self.file),
            ],
            input=f"{self.pattern}\n\nself-signed\n",
        )
        self.assertEqual(asked.exit_code, 0, asked.output)
        said = self.said()
        self.assertEqual(said["store"]["maildir"], self.pattern)
        self.assertEqual(said["accounts"]["accounts"], f"{self.root}/etc/accounts")
        self.assertTrue(said["tls"]["self-signed"])

    def ask(self, *words: str, answers: str) -> Result:
        """Answer questions, a line each."""
        return CliRunner().invoke(pop3toy, ["config", "init", *words, str(self.file)], input=answers)

    def test_asked_again(self) -> None:
        """A wrong answer is told and asked again, at once or when it does not fit another; no other is."""
        asked = self.ask(
            "--kind=friends",
            "--interface=127.0.0.1",
            # Domain, name, mail, accounts, certificate, smarthost, and ports for POP3, TLS, SMTP, submission.
            answers="a b\nexample.org\na b\n\n/no/place/for/users\n\n\nhttp://x\n\n99999\nx\n1100\n1100\n"
            "2500\n5870\n4650\n1101\n" + f"{self.pattern}\n",
        )
        self.assertEqual(asked.exit_code, 0, asked.output)
        said = self.said()
        self.assertEqual(said["pop3"]["port"], 1100)
        self.assertEqual(said["pop3"]["tls-port"], 1101)
        self.assertEqual(said["mail"]["submission-tls-port"], 4650)
        self.assertEqual(said["mail"]["domain"], ["example.org"])
        self.assertEqual(said["store"]["maildir"], self.pattern)
        for question, times in (
            ("Mail domain", 2),
            ("This server's name", 2),
            ("Where is the mail kept", 2),
            ("Accounts file", 1),
            ("Certificate", 1),
            ("Server that sends", 2),
            ("Port for POP3 (STLS)", 3),
            ("Port for POP3 with TLS", 2),
            ("Port where mail comes in", 1),
        ):
            self.assertEqual(asked.output.count(question), times, question)
        for line in (
            "'a b' is no name such as",
            "a number from 0 to 65535",
            "1100 is the port of --port already",
        ):
            self.assertIn("Error: ", asked.output)
            self.assertIn(line, asked.output)

    def test_what_is_made(self) -> None:
        """Each folder and file that was missing is told, and belongs to the owner of the folder above."""
        self.file = self.root / "new" / "deeper" / "pop3toy.toml"
        if os.geteuid() == 0:
            os.chown(self.root, 65534, 65534)
        outcome = self.init("--kind=friends", "--domain=example.org")
        self.assertEqual((outcome.status, outcome.err), (0, ""))
        folder = self.file.parent
        made = [self.root / "new", folder, folder / "accounts", folder / "aliases", folder / "mail"]
        self.assertEqual(
            [line for line in outcome.out.splitlines() if " is " in line],
            [*(f"{path} is made." for path in made), f"{self.file} is written."],
        )
        if os.geteuid() == 0:
            self.assertEqual({path.stat().st_uid for path in (*made, self.file)}, {65534})
        again = self.init("--kind=friends", "--domain=example.org", "--force")
        self.assertNotIn("is made", again.out)

    def test_nowhere(self) -> None:
        """Where no file can be made that is told by the names that were given, before anything is asked."""
        (self.root / "file").write_text("")
        runs = [(self.root / "file" / "x.toml", f"{self.root}/file is no folder")]
        if os.geteuid():
            (self.root / "closed").mkdir(mode=0o500)
            runs.append((self.root / "closed" / "x.toml", f"no permission to write in {self.root}/closed"))
        for self.file, why in runs:
            asked = self.ask(answers="")
            self.assertEqual(asked.exit_code, 1)
            self.assertEqual(self.init().err, f"Error: {why}\n")

    def test_full_disk(self) -> None:
        """What cannot be written is told by its name, and nothing of it is left."""

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.file = self.root / "pop3toy.toml"
        self.patch(os, "fsync", full)
        self.assertEqual(self.init().err, f"Error: {self.file}: No space left on device\n")
        self.assertEqual(os.listdir(self.root), ["mail"])

    def test_domain_of_nobody(self) -> None:
        """A mail domain to which nobody else can write is taken, with a note."""
        for domain, noted in (
            ("localhost", True),
            ("lan", True),
            ("example.org", False),
            ("[192.0.2.1]", False),
        ):
            outcome = self.init("--kind=friends", f"--domain={domain}", "--force")
            self.assertEqual(outcome.status, 0, outcome.err)
            self.assertEqual(f"the mail domain {domain};" in outcome.err, noted, outcome.err)
