"""``pop3toy config check``: what cannot be seen in the file, a line each."""

from __future__ import annotations

import json
import os
import pwd
import socket
from datetime import timedelta
from typing import Any
from unittest import skipUnless

from pop3toy.cli.starting.as_user import as_user, who_runs_it
from pop3toy.cli.starting.outside import _is_for, _smarthost_answers
from pop3toy.cli.starting.taken import holders
from pop3toy.config.settings import Settings
from pop3toy.stores.registry import Maildirs
from tests.cli_world import CommandTests, Outcome

from ..realserver import free_port
from ..tls_world import Authority

is_root = skipUnless(os.geteuid() == 0, "needs root")


class OutsideTests(CommandTests):
    """A file, and the world around it."""

    def setUp(self) -> None:
        super().setUp()
        self.file = self.root / "pop3toy.toml"
        self.accounts.write_text("ann:{PLAIN}x\nbob:{PLAIN}x\n")
        self.accounts.chmod(0o600)
        self.port = free_port()
        for user in ("ann", "bob"):
            for part in ("new", "cur", "tmp"):
                (self.root / "mail" / user / part).mkdir(parents=True)
        self.write()

    def write(self, *more: str, pop3: str = "") -> None:
        """The file, with other lines of [pop3] and tables behind."""
        self.file.write_text(
            f"[pop3]\n{pop3 or f'port = {self.port}'}\n[store]\nmaildir = 'mail/{{user}}'\n"
            "[accounts]\naccounts = 'accounts'\n" + "\n".join(more)
        )

    def check(self, *options: str) -> tuple[int, dict[str, Any]]:
        """What the check says as JSON."""
        outcome = self.run_command("config", "check", "--json", *options, str(self.file))
        said: dict[str, Any] = json.loads(outcome.out)
        return outcome.status, said

    def found(self, about: str, *options: str) -> list[tuple[str, str]]:
        """Status and text of what is said about something."""
        _, said = self.check(*options)
        return [
            (one["status"], one["text"].replace(str(self.root), "HERE"))
            for one in said["findings"]
            if one["about"] == about
        ]

    def test_lines(self) -> None:
        """A line for each thing, and one that says that all is right."""
        outcome = self.run_command("config", "check", str(self.file))
        self.assertEqual(
            outcome.out.replace(str(self.root), "HERE").splitlines(),
            [
                "ok     file         accounts HERE/accounts: can be read",
                "note   certificate  there is none, hence no TLS",
                "ok     mailboxes    HERE/mail/{user}: 2 of 2 users have one",
                f"ok     port         127.0.0.1:{self.port} for POP3: free",
                "HERE/pop3toy.toml is right",
            ],
        )
        self.assertEqual((outcome.status, outcome.err), (0, ""))

    def test_json(self) -> None:
        """As JSON it is the same, for a mistake in the file too."""
        status, said = self.check()
        self.assertEqual((status, said["right"], said["file"], said["user"]), (0, True, str(self.file), None))
        self.write("[limits]", "login-delay = -1")
        status, said = self.check()
        self.assertEqual((status, said["right"]), (os.EX_CONFIG, False))
        [mistake] = said["findings"]
        self.assertEqual((mistake["about"], mistake["status"]), ("options", "wrong"))
        self.assertIn("[limits] login-delay is a number", mistake["text"])

    def test_port_taken(self) -> None:
        """A port that is taken is told with the process that has it, and the file is not ready to start."""
        with socket.create_server(("127.0.0.1", self.port)):
            [(status, text)] = self.found("port")
            outcome = self.run_command("config", "check", str(self.file))
        self.assertEqual(status, "wrong")
        self.assertIn(f"127.0.0.1:{self.port} for POP3: address already in use; ", text)
        self.assertIn(f"process {os.getpid()} has it", text)
        self.assertEqual(outcome.status, os.EX_CONFIG)
        self.assertIn("Error: ", outcome.err)
        self.assertIn("WRONG  port", outcome.out)
        self.assertNotIn("is right\n", outcome.out)

    def test_ports(self) -> None:
        """Two options for one port are seen, HTTP's ports too; 0 is any, and systemd's are not looked at."""
        self.write(
            "[mail]", f"lmtp = ['tcp:{self.port}:interface=127.0.0.1']", "[monitoring]", "metrics = 0",
        )  # fmt: skip
        found = self.found("port")
        self.assertEqual([status for status, _ in found], ["ok", "wrong", "ok"])
        # Whatever this program is called, it is not a server that has the port.
        self.assertIn("the same port is for POP3 already; give each its own", found[1][1])
        self.write(pop3="listen = ['systemd:domain=INET:index=0']")
        self.assertEqual(self.found("port"), [])

    def test_unix_socket(self) -> None:
        """A Unix socket is free, served by somebody, or in a folder that is not there."""
        self.write(pop3=f"listen = ['unix:{self.root}/socket', 'unix:{self.root}/none/socket']")
        free, missing = self.found("port")
        self.assertEqual(free, ("ok", "HERE/socket for POP3: free"))
        self.assertEqual(missing, ("note", "HERE/none/socket for POP3: there is no folder HERE/none yet"))
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(self.root / "socket"))
            self.assertEqual(self.found("port")[0], free)
            server.listen()
            self.assertIn("somebody listens there", self.found("port")[0][1])

    def test_certificate(self) -> None:
        """Names and days of each certificate; one that ends soon, or is not for this host, is a note."""
        authority = Authority(self.root)
        for days, status, words in ((60, "ok", "59 days left"), (3, "note", "2 days left")):
            pair = authority.issue("mail.example.org", "*.example.org", ends=timedelta(days=days))
            pair.write(self.root / "certificate.pem")
            self.write(
                "[mail]", "lmtp = ['tcp:0']", "hostname = 'mail.example.org'",
                "[tls]", "certificate = 'certificate.pem'",
            )  # fmt: skip
            self.assertEqual(
                self.found("certificate"),
                [
                    (
                        status,
                        "HERE/certificate.pem: fits its key, for mail.example.org, *.example.org, " + words,
                    )
                ],
            )
        self.write(
            "[mail]", "lmtp = ['tcp:0']", "hostname = 'pop.example.com'",
            "[tls]", "certificate = 'certificate.pem'",
        )  # fmt: skip
        self.assertIn("none is for hostname, pop.example.com", self.found("certificate")[1][1])
        other = authority.issue("localhost")
        (self.root / "key.pem").write_bytes(other.key)
        self.write("[tls]", "certificate = 'certificate.pem'", "key = 'key.pem'")
        self.assertIn("is not the key of this certificate", self.found("options")[0][1])

    def test_names(self) -> None:
        """A wildcard is for one label."""
        for name, host, fits in (
            ("*.example.org", "mail.example.org", True),
            ("*.example.org", "a.mail.example.org", False),
            ("*.example.org", "example.org", False),
        ):
            self.assertEqual(_is_for(name, host), fits, (name, host))

    def test_mailboxes(self) -> None:
        """Users without a mailbox are told, unless they get one."""
        self.accounts.write_text("ann:{PLAIN}x\ncarl:{PLAIN}x\n")
        self.assertEqual(
            self.found("mailboxes"),
            [
                ("ok", "HERE/mail/{user}: 1 of 2 users have one"),
                ("note", "none of carl: create is off, so they are refused"),
            ],
        )
        self.file.write_text(self.file.read_text().replace("[accounts]", "create = true\n[accounts]"))
        self.assertEqual([status for status, _ in self.found("mailboxes")], ["ok"])

    @is_root
    def test_as_user(self) -> None:
        """As another user, what that one may not read or write is wrong, though root may."""
        self.root.chmod(0o755)
        [(status, text)] = self.found("options", "--user=nobody")
        self.assertEqual(status, "wrong")
        self.assertIn("no permission to read HERE/accounts (as the user nobody)", text)
        nobody = pwd.getpwnam("nobody")
        os.chown(self.accounts, nobody.pw_uid, nobody.pw_gid)
        locked = [status for status, _ in self.found("mailboxes", "--user=nobody")]
        self.assertEqual(locked, ["wrong", "wrong", "ok"])
        for path in [self.root / "mail", *(self.root / "mail").rglob("*")]:
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        status_, said = self.check("--user=nobody")
        self.assertEqual((status_, said["user"]), (0, "nobody"), said)
        self.assertEqual(os.geteuid(), 0)

    @is_root
    def test_low_port(self) -> None:
        """A port below 1024 is not for a user of a unit, but for one to whom root changes."""
        self.write(pop3="port = 1")
        nobody = pwd.getpwnam("nobody")
        self.root.chmod(0o755)
        for path in [self.accounts, *(self.root / "mail").rglob("*")]:
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        self.assertIn("only root opens ports below", self.found("port", "--user=nobody")[0][1])
        self.assertEqual(self.found("port", "--uid=nobody")[0], ("ok", "127.0.0.1:1 for POP3: free"))
        unit = self.root / "pop3toy.service"
        unit.write_text("[Service]\nUser=nobody\n")
        self.assertIn("only root opens", self.found("port", f"--unit={unit}")[0][1])
        unit.write_text("[Service]\nUser=nobody\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n")
        self.assertEqual(self.found("port", f"--unit={unit}")[0][0], "ok")

    @is_root
    def test_key_of_root(self) -> None:
        """A key that only root reads is right for --uid, where root reads it, and wrong for a unit's user."""
        authority = Authority(self.root)
        authority.issue("localhost").write(self.root / "certificate.pem")
        (self.root / "certificate.pem").chmod(0o600)
        self.root.chmod(0o755)
        nobody = pwd.getpwnam("nobody")
        for path in [self.accounts, *(self.root / "mail").rglob("*")]:
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        self.write("[tls]", "certificate = 'certificate.pem'")
        self.assertEqual(len(self.found("certificate", "--uid=nobody")), 1)
        self.assertIn("permission denied", self.found("options", "--user=nobody")[0][1])

    def test_unknown_user(self) -> None:
        """A user whom nobody knows is one line."""
        outcome = self.run_command("config", "check", "--user=no-such-user", str(self.file))
        self.assertEqual(
            outcome, Outcome(os.EX_NOUSER, "", "Error: there is no user no-such-user on this machine\n")
        )

    def test_online(self) -> None:
        """A store on a network is asked with --online alone."""
        url = f"file://{self.root}/objects"
        (self.root / "objects").mkdir()
        self.file.write_text(
            f"[pop3]\nport = 0\n[store]\nstore = '{url}'\n[accounts]\naccounts = 'accounts'\n"
        )
        [(status, _)] = self.found("store")
        self.assertEqual(status, "note")
        # Folders are no object storage that mail can be in, which is known when they are asked.
        [(status, text)] = self.found("store", "--online")
        self.assertEqual(status, "wrong")
        self.assertIn("folders (file://) cannot replace a file only if it is still the same", text)


class SmarthostTests(CommandTests):
    """``--online`` of a smarthost."""

    def test_refused(self) -> None:
        """A smarthost that cannot be reached is wrong, and none is nothing."""
        settings = Settings(
            store=Maildirs(self.pattern),
            smarthost=f"smtp://127.0.0.1:{free_port()}",
            queue=str(self.root / "queue"),
            submission_port=0,
            domains=("example.org",),
        )
        [found] = _smarthost_answers(settings)
        self.assertEqual((found.about, found.status), ("smarthost", "wrong"))
        self.assertIn("refused", found.text)
        self.assertEqual(list(_smarthost_answers(Settings())), [])


class AsUserTests(CommandTests):
    """``as_user``."""

    def test_oneself(self) -> None:
        """As the user that one is, no process is needed."""
        here: list[int] = []
        as_user(pwd.getpwuid(os.geteuid()), lambda: here.append(os.getpid()))
        self.assertEqual(here, [os.getpid()])

    @is_root
    def test_another(self) -> None:
        """As another one it happens elsewhere, with that one's rights."""
        nobody = pwd.getpwnam("nobody")
        uid, groups, pid = as_user(nobody, lambda: [os.geteuid(), os.getgroups(), os.getpid()])
        self.assertEqual(uid, nobody.pw_uid)
        self.assertNotIn(0, groups)
        self.assertNotEqual(pid, os.getpid())

    def test_who(self) -> None:
        """A unit says who it is; without a User= it is root."""
        unit = self.root / "a.service"
        unit.write_text("[Service]\nExecStart=/x\n")
        found = who_runs_it(None, None, unit)
        assert found is not None
        self.assertEqual((found.user.pw_name, found.may_bind, found.unit), ("root", False, str(unit)))
        self.assertIsNone(who_runs_it(None, None, None))

    def test_holders(self) -> None:
        """Nobody has a port that is free."""
        self.assertEqual(holders(free_port()), [])
