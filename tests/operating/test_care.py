"""docs/operating/care.rst: upgrades and the way back, backups and what is restored from them."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twisted.trial.unittest import SkipTest

from ..clients.mailclients import Getmail, MailClient, Mpop
from ..folders import new_folder
from .followed import PASSWORD, FollowedCase, commands
from .scratch_host import ScratchHost

PAGE = "docs/operating/care.rst"

#: Sends messages to a user until standard input ends, or so many; prints how many it were.
SEND = """
import smtplib, sys, threading
user, most = sys.argv[1], int(sys.argv[2])
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
count = 0
with smtplib.SMTP("127.0.0.1", 25, timeout=60) as client:
    while count < most or most == 0 and not ended.is_set():
        count += 1
        text = f"Subject: {count}\\r\\n\\r\\n{'x' * 70}\\r\\n" * 50
        client.sendmail("me@example.net", [f"{user}@example.org"], text)
print(count)
"""

#: Logs in again and again until standard input ends; prints what came of it.
LOGINS = f"""
import json, poplib, sys, threading
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set())).start()
came = dict.fromkeys(("served", "refused", "ended"), 0)
while not ended.is_set():
    try:
        client = poplib.POP3("127.0.0.1", 110, timeout=60)
        client.user("ann")
        client.pass_("{PASSWORD}")
        client.quit()
        came["served"] += 1
    except ConnectionRefusedError:
        came["refused"] += 1
    except (OSError, EOFError, poplib.error_proto):
        came["ended"] += 1
print(json.dumps(came))
"""

#: What a user's UIDL says, without numbers; the messages that are named are removed behind it.
UIDL = f"""
import poplib, sys
client = poplib.POP3("127.0.0.1", 110, timeout=60)
client.user(sys.argv[1])
client.pass_("{PASSWORD}")
for line in client.uidl()[1]:
    print(line.decode().split()[1])
for number in sys.argv[2:]:
    client.dele(int(number))
client.quit()
"""


class OnHost(MailClient):
    """A program on the host, which leaves mail on the server and remembers what it has."""

    def __init__(self, host: ScratchHost, home: Path) -> None:
        super().__init__(110, home)
        self.host = host

    def _run(self, *command: str, statuses: tuple[int, ...] = (0,)) -> str:
        return super()._run(*self.host.inside(*command), statuses=statuses)

    def new(self) -> int:
        """How many messages it fetches that it has not fetched before."""
        return len(self.fetch(0, only_new=True))


class MpopThere(OnHost, Mpop):
    """mpop."""


class GetmailThere(OnHost, Getmail):
    """getmail6."""


class CareCase(FollowedCase):
    """A server for friends that runs."""

    def setUp(self) -> None:
        super().setUp()
        self.served()

    def python(self, program: str, *arguments: str) -> str:
        """Run a program on the host to its end; what it prints."""
        return self.host.run(f"{sys.executable} - {' '.join(arguments)}", stdin=program)

    def send(self, user: str, count: int) -> None:
        """Bring so many messages."""
        self.host.run(f"{sys.executable} -c {shlex.quote(SEND)} {user} {count}")

    def uids(self, user: str, *removed: int) -> list[str]:
        """The unique-ids of a user's mail; some messages are removed afterwards."""
        return self.python(UIDL, user, *map(str, removed)).split()

    @contextmanager
    def meanwhile(self, program: str, *arguments: str) -> Iterator[list[str]]:
        """Run a program on the host meanwhile; what it has printed when it was ended."""
        printed: list[str] = []
        process = subprocess.Popen(
            self.host.inside(sys.executable, "-c", program, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield printed
        finally:
            printed.append(process.communicate("", 60)[0])


class UpgradeTests(CareCase):
    """Another version, and the first one again."""

    def version(self) -> str:
        """Which version serves."""
        return self.host.run(
            f"tr '\\0' '\\n' < /proc/$(cat {self.host.run_folder}/pid)/environ | grep ^VERSION= || true"
        )

    def test_there_and_back(self) -> None:
        """Nobody is refused by either restart, and what the newer version has written does no harm."""
        for script in ("twistd", "pop3toy"):
            text = f'#!/bin/sh\nVERSION=0.2.0 exec {sys.prefix}/bin/{script} "$@"\n'
            self.host.write(f"/opt/pop3toy-0.2.0/bin/{script}", text, mode=0o755)
        for user in ("ann", "bob"):
            self.send(user, 3)
        before = self.uids("ann")
        steps = commands("Upgrading, and the way back", PAGE)
        back = steps.index("ln -sT pop3toy-0.1.0 /opt/pop3toy.new")
        self.assertEqual(self.version(), "")
        with self.meanwhile(LOGINS) as printed:
            self.do(steps[:back])
            self.host.wait_for("pop3toy listens for", 10)
            self.assertEqual(self.version(), "VERSION=0.2.0\n")
            self.later_files()
            self.do(steps[back:])
            self.host.wait_for("pop3toy listens for", 15)
        self.assertEqual(self.version(), "")
        came = json.loads(printed[0])
        self.assertEqual(came["refused"], 0)
        self.assertGreater(came["served"], 10)
        self.assertEqual(self.uids("ann"), before)
        with self.assertRaisesRegex(AssertionError, "SYS/TEMP"):
            self.uids("bob")

    def later_files(self) -> None:
        """Files beside mail as a version may write them that is not there yet."""
        for name in ("sizes", "usage", "last", "quota-told", "adopting"):
            self.host.write(f"/srv/mail/ann/pop3toy-{name}", f"pop3toy-{name} 9\nwhatever\n")
        self.host.write("/srv/mail/bob/pop3toy-uidl", "pop3toy-uidl 9\nwhatever\n")
        self.host.run("chown -R pop3toy:pop3toy /srv/mail")


class BackupTests(CareCase):
    """To another disk, and from it."""

    def setUp(self) -> None:
        for why in (Mpop.missing(), Getmail.missing()):
            if why:
                raise SkipTest(why)
        if shutil.which("rsync") is None:
            raise SkipTest("rsync is not installed (Debian package rsync)")
        super().setUp()
        self.disk = new_folder(self)
        self.mount(self.host)
        self.runs, [self.with_tar] = commands("Backups", PAGE)[:2], commands("Backups", PAGE)[2:3]

    def mount(self, host: ScratchHost) -> None:
        """The disk, at its place on a host."""
        host.run(f"mkdir -p /mnt/backup && mount --bind {self.disk} /mnt/backup")

    def back_up(self) -> None:
        """As each night."""
        for command in self.runs:
            self.assertTrue(command.startswith("rsync "))
            self.host.run(f"{command} || [ $? = 24 ]")

    def test_elsewhere(self) -> None:
        """Copied while mail comes and goes, and served by another host, it is new to no mail program."""
        self.send("ann", 40)
        clients = [kind(self.host, new_folder(self)) for kind in (MpopThere, GetmailThere)]
        self.assertEqual([client.new() for client in clients], [40, 40])
        before = self.uids("ann")
        with self.meanwhile(SEND, "ann", "0"), self.meanwhile(SEND, "bob", "0"):
            self.back_up()
            self.uids("bob", 1, 2)
        after = self.uids("ann")
        self.assertGreater(min(client.new() for client in clients), 0)
        self.host = ScratchHost(self)
        self.mount(self.host)
        self.host.run("useradd --system another")
        self.do([*commands("The program"), *commands("Restoring", PAGE)[:3], *commands("Start")[:3]])
        self.host.wait_for("pop3toy listens for", 5)
        restored = self.uids("ann")
        self.assertLessEqual(set(before), set(restored))
        self.assertEqual(restored, [uid for uid in after if uid in restored])
        for client in clients:
            client.host = self.host
            self.assertEqual(client.new(), 0)
        owners = self.host.run(
            "find /srv/mail /etc/pop3toy ! -user pop3toy; ls -ld /srv/mail /etc/pop3toy/key.pem"
        )
        self.assertRegex(owners, r"\A-rw------- .*key\.pem\ndrwx------ .*/srv/mail\n\Z")

    def test_one_user(self) -> None:
        """What a user has deleted since comes back while the server runs; what has come since stays."""
        self.send("ann", 5)
        client = MpopThere(self.host, new_folder(self))
        self.assertEqual(client.new(), 5)
        self.back_up()
        before = self.uids("ann", 2, 3)
        self.send("ann", 1)
        self.assertEqual(len(self.uids("ann")), 4)
        self.do(commands("Restoring", PAGE)[3:])
        now = self.uids("ann")
        self.assertEqual(now[:5], before)
        self.assertEqual(len(now), 6)
        self.assertEqual(client.new(), 1)

    def test_with_tar(self) -> None:
        """The command for tar leaves caches out, and nothing else."""
        self.send("ann", 3)
        self.uids("ann")
        self.host.run("touch /srv/mail/ann/pop3toy-sizes /srv/mail/ann/pop3toy-uidl")
        self.host.run(self.with_tar)
        there = set(self.host.run("cd / && find srv/mail etc/pop3toy").split())
        kept = {name.rstrip("/") for name in self.host.run("tar -tzf /mnt/backup/mail.tar.gz").split()}
        self.assertEqual({name.rpartition("/")[2] for name in there - kept}, {"pop3toy-sizes"})
