"""The image of docs/examples/container, made and run by the commands of docs/operating/container.rst."""

from __future__ import annotations

import configparser
import json
import os
import re

from twisted.trial.unittest import SynchronousTestCase

from .container_world import PodmanWorld, wheels
from .folders import new_folder
from .pages import CHECKOUT, literal_blocks, page
from .realserver import wait_until

PAGE = "docs/operating/container.rst"
CONTAINERFILE = "docs/examples/container/Containerfile"
PASSWORD = "no secret"
MESSAGE = "Subject: hello\r\n\r\nIt works.\r\n"


def commands(wanted: str) -> str:
    """The block of the page in which these words stand, as a script."""
    [block] = [lines for lines in literal_blocks(PAGE) if wanted in "\n".join(lines)]
    return "\n".join(block)


class TextTests(SynchronousTestCase):
    """What needs no podman to be seen."""

    def test_ports(self) -> None:
        """The image exposes the ports of its example of options, and the page publishes the same."""
        options = (CHECKOUT / "docs/examples/config/container.toml").read_text()
        ports = set(re.findall(r"^(?:[a-z]+-)*port = (\d+)$", options, re.MULTILINE))
        [exposed] = re.findall(r"^EXPOSE (.*)$", page(CONTAINERFILE), re.MULTILINE)
        self.assertEqual(set(exposed.split()), ports)
        self.assertEqual(set(re.findall(r"--publish \d+:(\d+)", commands("podman run"))), ports)

    def test_extras(self) -> None:
        """What is installed if nobody asks for more is there to be asked for."""
        setup = configparser.ConfigParser()
        setup.read(CHECKOUT / "setup.cfg")
        [extras] = re.findall(r"^ARG EXTRAS=(\S+)$", page(CONTAINERFILE), re.MULTILINE)
        self.assertLessEqual(set(extras.split(",")), set(setup["options.extras_require"]))


class PodmanTests(SynchronousTestCase):
    """Built and run by podman, as root, as the page says it."""

    def setUp(self) -> None:
        page(CONTAINERFILE)
        self.folder = new_folder(self)
        self.world = PodmanWorld(self.folder)
        self.addCleanup(self.world.close)
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.chdir(CHECKOUT)

    def build(self) -> None:
        """The image, from a base that has the name of the file's own."""
        text = page(CONTAINERFILE)
        [base] = re.findall(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
        [extras] = re.findall(r"^ARG EXTRAS=(\S+)$", text, re.MULTILINE)
        setup = configparser.ConfigParser()
        setup.read(CHECKOUT / "setup.cfg")
        needed = setup["options"]["install_requires"].split()
        for extra in extras.split(","):
            needed += setup["options.extras_require"][extra].split()
        self.world.image(base, wheels(self.folder / "wheels", "setuptools>=77", *needed))
        self.world.must(commands("podman build"))

    def start(self) -> None:
        """Certificate, folders, container, and a user."""
        self.certificate()
        self.world.must(commands("install -d").replace("/root/", f"{self.folder}/"))
        self.world.must(commands("podman run"))
        self.wait_for("listens for POP3 over TLS")
        check, add = commands("user add").splitlines()
        self.assertNotIn("WRONG", self.world.must(check))
        self.world.must(add.replace(" --tty", "") + f" --stdin <<< '{PASSWORD}'")

    def certificate(self) -> None:
        """One that nobody else trusts, by the command of the page about the start."""
        [make] = [lines for lines in literal_blocks("docs/operating/start.rst") if "openssl req" in lines[0]]
        self.world.must("\n".join(make).replace("/root/", f"{self.folder}/"))

    def log(self) -> str:
        """What the server has written."""
        return self.world.must("podman logs pop3toy 2>&1")

    def wait_for(self, words: str) -> None:
        """Until the log has them."""
        wait_until(lambda: words in self.log(), words, pause=0.2)

    def inspected(self, what: str) -> object:
        """A part of what podman knows of the container."""
        shown = self.world.must(["podman", "inspect", "--format", f"{{{{json {what}}}}}", "pop3toy"])
        answer: object = json.loads(shown)
        return answer

    def inside(self, *words: str) -> str:
        """What a command in the container prints."""
        return self.world.must(["podman", "exec", "pop3toy", *words])

    def fetched(self) -> str:
        """The first message, by the page's curl, from the port that the host has."""
        fetch = "\n".join(commands("pop3s://").splitlines()[1:])
        return self.world.must(fetch.replace("--user ann", f"--silent --show-error --user 'ann:{PASSWORD}'"))

    def is_well(self) -> bool:
        """Whether the health check says so."""
        status = self.world.run(commands("healthcheck run").splitlines()[0]).returncode
        self.assertIn(status, (0, 1))
        return status == 0

    def test_life(self) -> None:
        """From the image to its end: mail, another file of options, health, and the image after it."""
        self.build()
        self.start()
        self.has_no_rights()
        self.serves()
        self.reloads()
        self.tells_its_health()
        self.stops()
        self.is_upgraded()

    def has_no_rights(self) -> None:
        """Process 1 is the server, as nobody in particular, and can change nothing of the image."""
        status = self.inside("python", "-c", "print(open('/proc/1/status').read())")
        self.assertRegex(status, r"\nUid:\t2110\t2110\t2110\t2110\n")
        self.assertRegex(status, r"\nCapBnd:\t0+\n")
        self.assertRegex(status, r"\nNoNewPrivs:\t1\n")
        self.assertIn("pop3toy", self.inside("python", "-c", "print(open('/proc/1/cmdline').read())"))
        for place in ("/opt/pop3toy/x", "/etc/x"):
            refused = self.world.run(["podman", "exec", "--user=0", "pop3toy", "sh", "-c", f"echo > {place}"])
            self.assertIn("ead-only file system", refused.stderr)
        # Twisted's list of plugins could not be written now.
        self.assertNotIn("dropin.cache", self.log())

    def serves(self) -> None:
        """What is delivered within, and what comes by SMTP to the host's port, is fetched over TLS."""
        self.world.must(commands("deliver ann").splitlines()[0])
        self.assertTrue(self.fetched().endswith(MESSAGE))
        send = (
            "curl --silent --show-error --crlf smtp://127.0.0.1:25/ --mail-from me@there.example --mail-rcpt"
        )
        self.world.must(f"{send} ann@example.org --upload-file -", stdin=MESSAGE)
        self.assertRegex(self.inside("pop3toy", "mailbox", "list"), r"(?m)^ann\b.*\b2\b")

    def reloads(self) -> None:
        """The file of options, which root has edited, and the certificate."""
        domains = 'domain = ["example.org", "example.net"]'
        self.world.must(f"sed -i 's/^domain = .*/{domains}/' /srv/pop3toy/etc/pop3toy.toml")
        self.certificate()
        copies = commands("install -d").replace("/root/", f"{self.folder}/").splitlines()[-2:]
        self.world.must("\n".join(copies))
        self.world.must(commands("--signal HUP"))
        self.wait_for("taken: domain")
        self.assertTrue(self.fetched().endswith(MESSAGE))

    def tells_its_health(self) -> None:
        """Well; not well when the accounts cannot be read, and why; well again."""
        wait_until(self.is_well, "it is well", pause=0.5)
        self.world.must("mv /srv/pop3toy/etc/accounts /srv/pop3toy/etc/away")
        wait_until(lambda: not self.is_well(), "it is not well", pause=0.5)
        self.assertIn("/etc/pop3toy/accounts", self.world.must(commands("healthcheck run").splitlines()[1]))
        self.world.must("mv /srv/pop3toy/etc/away /srv/pop3toy/etc/accounts")
        wait_until(self.is_well, "it is well again", pause=0.5)

    def stops(self) -> None:
        """With status 0, by SIGTERM, and says so."""
        self.world.must(commands("podman stop"))
        self.assertEqual(self.inspected(".State.ExitCode"), 0)
        self.assertIn("Server Shut Down", self.log())

    def is_upgraded(self) -> None:
        """A container of another image in its place has the mail; here with an option behind its name."""
        self.world.must(commands("podman tag"))
        self.world.must(commands("podman run").replace("--detach", "--detach --replace") + " --workers=2")
        self.wait_for("worker 2 serves")
        self.assertTrue(self.fetched().endswith(MESSAGE))
        self.assertTrue(self.is_well())
        # A file of options without a port for it.
        self.world.must("sed -i 's/^metrics/#metrics/' /srv/pop3toy/etc/pop3toy.toml")
        self.world.must(["podman", "restart", "pop3toy"])
        wait_until(lambda: self.log().count("worker 2 serves") == 2, "it serves again", pause=0.2)
        self.assertFalse(self.is_well())
        self.assertIn("needs metrics = 9110", self.world.must(commands("healthcheck run").splitlines()[1]))
