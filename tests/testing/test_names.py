"""What ``pop3toy.testing`` promises: these names alone, documented, loaded when they are used."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import pop3toy
from pop3toy import testing

from ..realserver import run_python
from ..test_public import methods, parameters, undocumented

#: The whole of it: a name more is a promise more.
NAMES = [
    "running_server", "RunningServer", "Session", "Mailbox", "Message", "SMTPMessage", "POP3ServerMixin",
    "MemoryServer", "MemoryClient", "POP3Conversation", "Faults", "Fault", "BadFault",
]  # fmt: skip


class NameTests(SynchronousTestCase):
    """The names."""

    def test_list(self) -> None:
        """``__all__`` has exactly these, and each is there, the same each time."""
        self.assertEqual(sorted(testing.__all__), sorted(NAMES))
        self.assertLessEqual(set(NAMES), set(dir(testing)))
        for name in NAMES:
            self.assertIs(getattr(testing, name), getattr(testing, name))
        why = self.assertRaises(AttributeError, getattr, testing, "Store")
        self.assertEqual(str(why), "module 'pop3toy.testing' has no attribute 'Store'")

    def test_import(self) -> None:
        """Importing it loads no Twisted; no name needs pytest, and nothing but TLS what TLS needs."""
        said = run_python(
            "import sys\n"
            "import pop3toy.testing\n"
            "print(*[name for name in sys.modules if name.startswith(('twisted', 'zope', 'pytest'))])\n"
            "sys.modules |= dict.fromkeys(('pytest', '_pytest', 'OpenSSL', 'cryptography'))\n"
            "from pop3toy.testing import *\n"
            "with running_server(smtp=True) as server:\n"
            "    print(server.host, 'twisted.internet.reactor' in sys.modules)\n"
            "try:\n"
            "    running_server(tls='stls').__enter__()\n"
            "except Exception as error:\n"
            "    print(error)\n",
            folder=Path(self.mktemp()),
        )
        self.assertRegex(said, r"^\n127\.0\.0\.1 False\nTLS needs more than is installed: .*tls.*\n$")

    def test_documented(self) -> None:
        """Each name, each public method and each of their parameters says what it is."""
        for name in NAMES:
            what = getattr(testing, name)
            if name == "Message":
                continue
            self.assertTrue((what.__doc__ or "").strip(), name)
            if inspect.isclass(what):
                for method, function in methods(what):
                    self.assertTrue((function.__doc__ or "").strip(), f"{name}.{method}")
                    if callable(function) and inspect.isfunction(function):
                        missing = undocumented(function.__doc__, parameters(function))
                        self.assertEqual(missing, [], f"{name}.{method}")
            else:
                self.assertEqual(undocumented(what.__doc__, parameters(what)), [])

    def test_pages(self) -> None:
        """docs/testing.rst and docs/api.rst tell of each name."""
        docs = Path(pop3toy.__file__).parent.parent / "docs"
        if not docs.is_dir():
            raise SkipTest("there are no docs beside the tests")
        testing_page, api = ((docs / name).read_text("utf-8") for name in ("testing.rst", "api.rst"))
        self.assertEqual([name for name in NAMES if f"``{name}" not in testing_page], [])
        missing = [name for name in NAMES if not re.search(rf":: pop3toy\.testing\.{name}\b", api)]
        self.assertEqual(missing, [])
