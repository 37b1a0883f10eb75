"""The image of docs/examples/container, made and run by the commands of docs/operating/container.rst."""

from __future__ import annotations

import configparser
import json
import os
import re
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from .container_world import PodmanWorld, wheels
from .folders import new_folder
from .pages import CHECKOUT, literal_blocks, page
from .realserver import wait_until
from .tls_world import Authority

PAGE = "docs/operating/container.rst"
CONTAINERFILE = "docs/examples/container/Containerfile"
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
        """Certificate, folders, container, a user."""
        authority = Authority(self.folder)
        pair = authority.issue("mail.example.org")
        for name, octets in (("key", pair.key), ("certificate", pair.certificate)):
            (self.folder / f"{name}.pem").write_bytes(octets)

        authority_text = (self.folder / "certificate.pem").read_bytes()
        self.assertIn(b"CERTIFICATE", authority_text)
        self.world.must(commands("install -d").replace("/tmp/", f"{self.folder}/"))
        self.world.must(commands("podman run"))
        wait_until(lambda: "listens for POP3 over TLS" in self.log(), "it listens")
        check, add = commands("user add").splitlines()
        self.assertNotIn("WRONG", self.world.must(check))
        self.world.must(add.replace(" --tty", "") + " --stdin", stdin="ann's secret\n")

    def log(self) -> str:
        """What the server has written, and fails if it has ended."""
        return self.world.must("podman logs pop3toy 2>&1")

    def inspected(self, what: str) -> object:
        """A part of what podman knows of the container."""
        answer: object = json.loads(self.world.must(["podman", "inspect", "--format", f"{{{{json {what}}}}}", "pop3toy"]))
        return answer

    def test_life(self) -> None:
        """From the image to its end: mail, another file of options, health, and a restart that loses nothing."""
        self.build()
        self.start()
        # Who it is, and what it may not do.
        status = self.world.must(["podman", "exec", "pop3toy", "python", "-c", "print(open('/proc/1/status').read())"])
        self.assertRegex(status, r"\nUid:\t2110\t2110\t2110\t2110\n")
        self.assertRegex(status, r"\nCapBnd:\t0+\n")
        refused = self.world.run(["podman", "exec", "pop3toy", "sh", "-c", "echo > /opt/pop3toy/x"])
        self.assertIn("ead-only", refused.stderr)
        print(self.log())
