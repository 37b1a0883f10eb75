"""The plugin of pytest, in real runs of it."""

from __future__ import annotations

import configparser
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ..realserver import DEADLINE, environment, run_python

CHECKOUT = Path(__file__).parents[2]
PLUGIN = "pop3toy.testing.pytest_plugin"

FETCH = """
import poplib
import pytest

def fetch(server, user="user", password="pass"):
    client = poplib.POP3(server.host, server.port, timeout=20)
    try:
        client.user(user)
        client.pass_(password)
        return client.stat()[0]
    finally:
        client.close()
"""


def plugin_options() -> tuple[str, ...]:
    """What makes pytest load the plugin in a checkout that was installed before there was one.

    :raises SkipTest: without pytest.
    """
    if importlib.util.find_spec("pytest") is None:
        raise SkipTest("pytest is not installed")
    installed = any(one.value == PLUGIN for one in importlib.metadata.entry_points(group="pytest11"))
    return () if installed else ("-p", PLUGIN)


class PytestTests(SynchronousTestCase):
    """Runs pytest over a file of tests."""

    def run_pytest(self, tests: str, *arguments: str) -> str:
        """What pytest says of a file of tests; warnings are errors."""
        options = ("-p", "no:cacheprovider", *plugin_options(), *arguments)
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "test_it.py").write_text(FETCH + tests)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "pytest", *options],
            cwd=folder,
            env=environment(folder),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        return done.stdout + done.stderr

    def test_entry_point(self) -> None:
        """setup.cfg tells pytest where the plugin is, and asks nobody to install pytest for it."""
        setup = configparser.ConfigParser()
        setup.read(CHECKOUT / "setup.cfg")
        self.assertEqual(setup["options.entry_points"]["pytest11"].strip(), f"pop3toy = {PLUGIN}")
        self.assertNotIn("pytest", setup["options"]["install_requires"])
        for name, extra in setup["options.extras_require"].items():
            if name not in ("test", "dev"):
                self.assertNotIn("pytest", extra, name)

    def test_fixture(self) -> None:
        """``pop3_server`` is the toy's, a new one for each test."""
        said = self.run_pytest(
            "ports = set()\n"
            "@pytest.mark.parametrize('number', range(3))\n"
            "def test_fetch(pop3_server, number):\n"
            "    assert fetch(pop3_server) == 1\n"
            "    assert pop3_server.sessions[0].user == 'user'\n"
            "    assert b'Hello World!' in pop3_server.mailbox('user').messages[0]\n"
            "    assert len(pop3_server.sessions) == 1\n"
        )
        self.assertIn("3 passed", said)

    def test_marker(self) -> None:
        """Markers say what the server is started with: the nearest wins, the others count as well."""
        said = self.run_pytest(
            "pytestmark = pytest.mark.pop3(passwords={'ann': 'secret'}, login_delay=60)\n"
            "@pytest.mark.pop3(mailboxes={'ann': ['Subject: x\\n\\nx\\n'] * 2})\n"
            "class TestAnn:\n"
            "    def test_fetch(self, pop3_server):\n"
            "        assert fetch(pop3_server, 'ann', 'secret') == 2\n"
            "    @pytest.mark.pop3(mailboxes={}, passwords={'ann': 'other'}, tls='stls')\n"
            "    def test_other(self, pop3_server):\n"
            "        assert fetch(pop3_server, 'ann', 'other') == 0\n"
            "        assert pop3_server.ca_file\n"
            "        with pytest.raises(poplib.error_proto, match='LOGIN-DELAY'):\n"
            "            fetch(pop3_server, 'ann', 'other')\n",
            "--strict-markers",
        )
        self.assertIn("2 passed", said)

    def test_marker_without_names(self) -> None:
        """What is given to a marker without a name is refused in one sentence."""
        said = self.run_pytest("@pytest.mark.pop3('stls')\ndef test_it(pop3_server):\n    pass\n")
        self.assertIn("takes arguments by name: @pytest.mark.pop3(tls='stls')", said)
        self.assertIn("1 error", said)

    def test_factory(self) -> None:
        """The factory makes as many as are wanted, which end with the test."""
        said = self.run_pytest(
            "servers = []\n"
            "def test_two(pop3_server_factory):\n"
            "    servers.append(pop3_server_factory({'ann': []}, {'ann': 'secret'}))\n"
            "    servers.append(pop3_server_factory(login_delay=1))\n"
            "    assert [fetch(servers[0], 'ann', 'secret'), fetch(servers[1])] == [0, 1]\n"
            "def test_gone():\n"
            "    for server in servers:\n"
            "        with pytest.raises(ConnectionRefusedError):\n"
            "            fetch(server)\n"
        )
        self.assertIn("2 passed", said)

    def test_report(self) -> None:
        """A test that fails shows the conversations of its servers; others, and those that pass, do not."""
        said = self.run_pytest(
            "def test_good(pop3_server):\n"
            "    fetch(pop3_server)\n"
            "def test_bad(pop3_server, pop3_server_factory):\n"
            "    other = pop3_server_factory()\n"
            "    fetch(pop3_server)\n"
            "    assert not pop3_server.sessions\n"
            "def test_without():\n"
            "    assert False\n"
        )
        self.assertIn("2 failed, 1 passed", said)
        titles = re.findall(r"^-+ (POP3 at 127\.0\.0\.1:\d+) -+$", said, re.MULTILINE)
        self.assertEqual(len(titles), 2, said)
        shown = said.partition(titles[0])[2]
        self.assertIn("C: USER user\nS: +OK send PASS\nC: PASS ****\nS: +OK maildrop has 1 message", shown)
        self.assertIn("nobody has connected", shown.partition(titles[1])[2])

    def test_faults(self) -> None:
        """A server is made wrong for one test, and its report tells of it."""
        said = self.run_pytest(
            "def test_bad(pop3_server):\n"
            "    pop3_server.faults.add('drop', command='PASS', octets=10)\n"
            "    fetch(pop3_server)\n"
            "def test_good(pop3_server):\n"
            "    fetch(pop3_server)\n"
            "def test_factory(pop3_server_factory):\n"
            "    wrong, right = pop3_server_factory(), pop3_server_factory()\n"
            "    wrong.faults.add('answer', command='STAT')\n"
            "    fetch(right)\n"
        )
        self.assertIn("1 failed, 2 passed", said)
        self.assertRegex(said, r"C: PASS \*+\n-- fault drop \(octets 10\)")

    def test_report_of_a_fixture(self) -> None:
        """So does one whose own fixture fails behind the server's."""
        said = self.run_pytest(
            "@pytest.fixture\n"
            "def mail(pop3_server):\n"
            "    return fetch(pop3_server, 'user', 'wrong')\n"
            "def test_mail(mail):\n"
            "    pass\n"
        )
        self.assertIn("1 error", said)
        self.assertIn("S: -ERR [AUTH]", said)

    def test_help(self) -> None:
        """pytest's own help tells of the fixtures and the marker."""
        said = self.run_pytest("", "--fixtures")
        self.assertRegex(said, r"(?m)^pop3_server(?!_).*\n +A POP3 server of this test")
        self.assertRegex(said, r"(?m)^pop3_server_factory.*\n +Starts POP3 servers")
        self.assertRegex(self.run_pytest("", "--markers"), r"@pytest\.mark\.pop3\(mailboxes")

    def test_costs_nothing(self) -> None:
        """A run that does not use it loads nothing of it but the plugin, and nothing of Twisted."""
        plugin_options()
        said = run_python(
            "import pytest, sys\n"
            "before = set(sys.modules)\n"
            f"import {PLUGIN}\n"
            "print(*sorted(set(sys.modules) - before))\n",
            folder=Path(self.mktemp()),
        )
        self.assertEqual(said.split(), ["pop3toy", "pop3toy._version", "pop3toy.testing", PLUGIN])
        said = self.run_pytest(
            "import sys\n"
            "def test_loaded():\n"
            "    assert not [name for name in sys.modules if name.startswith(('twisted', 'OpenSSL'))]\n"
        )
        self.assertIn("1 passed", said)
