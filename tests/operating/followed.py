"""The commands of the pages, and a host on which somebody has followed them."""

from __future__ import annotations

import re
import shutil
import textwrap

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ..pages import page
from .scratch_host import ScratchHost

__all__ = ["PASSWORD", "FollowedCase", "commands"]

#: Commands that need the network or a public name; the tests have done what they do in another way.
ELSEWHERE = (
    "apt-get ",
    "certbot ",
    "/usr/bin/python3 -m venv ",
    "/opt/pop3toy-0.1.0/bin/pip ",
    "/opt/pop3toy-0.2.0/bin/pip ",
)

#: What curl and ``user add`` ask for.
PASSWORD = "secret"


def commands(section: str, name: str = "docs/operating.rst") -> list[str]:
    """The commands in the literal blocks of a section and its parts, each as one line."""
    text = page(name)
    heading = rf"^{section}\n([-=])\1+\n"
    found = re.search(rf"{heading}(.*?)(?=^\S[^\n]*\n(?:\1\1+|==+)\n|\Z)", text, re.DOTALL | re.MULTILINE)
    assert found is not None, section
    blocks = re.findall(r"::\n\n((?:    .*\n|\n(?=    ))+)", found[2])
    joined = textwrap.dedent("\n".join(map(textwrap.dedent, blocks)))
    return [line for line in re.sub(r"\\\n *", "", joined).splitlines() if line]


class FollowedCase(SynchronousTestCase):
    """A host on which the page was followed."""

    #: What ``export`` has said.
    environment = ""

    def setUp(self) -> None:
        for program in ("nginx", "curl", "openssl"):
            if shutil.which(program) is None:
                raise SkipTest(f"{program} is not installed")
        self.host = ScratchHost(self)
        # Debian starts it when it is installed.
        self.host.run("nginx")

    def follow(self, section: str, stdin: str = "") -> str:
        """Do what a section says; what the last command said."""
        return self.do(commands(section), stdin)

    def do(self, wanted: list[str], stdin: str = "") -> str:
        """Do what commands say; what the last one said."""
        said = ""
        for command in wanted:
            if command.startswith(ELSEWHERE):
                continue
            # A kernel may lack it.
            if command.startswith("nft ") and "rules" not in self.host.run(
                "nft list ruleset && echo rules || true"
            ):
                continue
            # There is no terminal on which these would ask for it.
            command = command.replace("--user ann@example.org", f"--user 'ann@example.org:{PASSWORD}'")
            command = command.replace(" user add ", " user add --stdin ")
            if command.startswith("export "):
                self.environment = f"{command}\n"
                continue
            said = self.host.run(f"{self.environment}{command}", stdin=stdin)
        return said

    def served(self) -> None:
        """From the empty host to a server that runs."""
        self.host.certificate()
        for section in ("The program", "The certificate", "Options"):
            self.follow(section, f"{PASSWORD}\n{PASSWORD}\n")
        self.follow("Start")
        self.host.wait_for("pop3toy listens for", 5)
