"""docs/operating/start.rst: the server beside another mail server, from nothing to the units."""

from __future__ import annotations

from ..realserver import wait_until
from .followed import PASSWORD, FollowedCase, commands

PAGE = "docs/operating/start.rst"


class StartTests(FollowedCase):
    """A host on which another mail server takes the mail."""

    def setUp(self) -> None:
        super().setUp()
        self.do(commands("Install", PAGE))
        self.do(commands("The file of options", PAGE))
        self.do(commands("Certificate", PAGE))
        self.do(commands("Users and passwords", "docs/operating/users.rst")[:4], f"{PASSWORD}\n")

    def test_by_hand(self) -> None:
        """With the commands of the page it runs on free ports, and mail comes and is fetched."""
        check, start, *rest = commands("Start it", PAGE)
        self.do([check])
        # It ends with the host, if not before.
        log = f"{self.host.run_folder}/log"
        self.do([f"{start} > {log} 2>&1 < /dev/null & echo $! > {self.host.run_folder}/pid"])
        self.host.wait_for("pop3toy listens for", 4)
        deliver, listed, fetched, submit = (
            line.replace("--user ann ", f"--user ann:{PASSWORD} ") for line in rest[:4]
        )
        self.do([deliver])
        self.assertIn("1 ", self.do([listed]))
        self.assertIn("It works.", self.do([fetched]))
        self.do([submit])
        wait_until(lambda: "2 " in self.do([listed]), "the message to herself", pause=0.2)
        self.host.run(f"kill $(cat {self.host.run_folder}/pid)")
        self.host.wait_for("Server Shut Down.")

    def test_without_systemd(self) -> None:
        """Started by root, it serves as its user on the file's ports, reloads, and ends by the commands."""
        steps = commands("Without systemd", PAGE)
        at = steps.index('kill -HUP "$(cat /run/pop3toy/pid)"')
        self.do(steps[:at])
        log = "/var/log/pop3toy/pop3toy.log"

        def logs(words: str) -> None:
            wait_until(lambda: words in self.host.run(f"cat {log} 2> /dev/null || true"), words, pause=0.2)

        logs("pop3toy listens for submission over TLS")
        cafile = "--cacert /etc/pop3toy/certificate.pem"
        self.host.run(f"curl {cafile} --user ann:{PASSWORD} pop3s://mail.example.org/")
        self.assertEqual(self.host.run("stat -c %U /proc/$(cat /run/pop3toy/pid)"), "pop3toy\n")
        self.do(steps[at : at + 1])
        logs("certificates reloaded")
        self.host.run(f"mv {log} {log}.before")
        self.do(steps[at + 1 : at + 2])
        self.do(steps[at + 2 :])
        wait_until(lambda: not self.host.run("ls /run/pop3toy"), "the pid file is gone", pause=0.2)

    def test_users(self) -> None:
        """Each command of the page about users works, one behind the other."""
        self.host.run("ln -s /opt/pop3toy/bin/pop3toy /usr/local/bin/")
        said = self.do(commands("Users and passwords", "docs/operating/users.rst")[4:], f"{PASSWORD}\n")
        self.assertNotIn("Error", said)
        self.assertIn("ann", self.host.run("pop3toy user list --config /etc/pop3toy/pop3toy.toml"))

    def test_units(self) -> None:
        """The units are right, and the server that they start serves on the ports that systemd has opened."""
        self.do(commands("With systemd", PAGE)[:2])
        self.host.run("systemctl enable --now pop3toy.socket pop3toy.service")
        self.host.wait_for("pop3toy listens for", 4)
        cafile = "--cacert /etc/pop3toy/certificate.pem"
        self.host.run(f"curl {cafile} --user ann:{PASSWORD} pop3s://mail.example.org/")
        self.do(commands("Firewall", PAGE)[:3])
