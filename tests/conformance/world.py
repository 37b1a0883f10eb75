"""What the tests of the checker share: a right server with mail in it, and one look at any server."""

from __future__ import annotations

import shutil
import ssl
import time
import warnings
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from pop3toy.conformance.examination import Examination
from pop3toy.conformance.rules import OUR_BUG, Outcome, Result, Rule, run
from pop3toy.conformance.table import RULES
from pop3toy.conformance.target import Target

from ..corpus import make_maildir
from ..realserver import RealServer, maildir_options
from ..tls_world import Authority, Pair

__all__ = ["PASSWORD", "USER", "RightServer", "failed", "look", "not_tested", "rules_named", "server_context"]

USER, PASSWORD = "ann", "open sesame"
MESSAGES = (
    b"Subject: one\n\nhello\n",
    b"Subject: dots\n\n.dot\n..\n.\ntext\n\nmore\nlines\n",
    b"Subject: three\n\n1\n2\n3\n4\n",
    b"Subject: four\n\n",
)


class RightServer:
    """This project's server with the mailbox of one user, and SMTP for it.

    :param root: a folder.
    :param pair: a certificate; without, there is no TLS.
    """

    def __init__(self, root: Path, pair: Pair | None = None) -> None:
        self.maildir = make_maildir(root / "mail" / USER)
        options = [f"--certificate={pair.write(root / 'pair.pem')}"] if pair else []
        self._server = RealServer(
            *maildir_options(root / "mail", [f"{USER}:{PASSWORD}"]),
            *(["--tls-port=0"] if pair else []),
            "--smtp-port=0",
            "--domain=example.org",
            "--lock-wait=0",
            "--max-per-address=1000",
            # Wrong passwords by the dozen have no penalty.
            "--trusted=127.0.0.0/8",
            *options,
        )
        self.port = self._server.port
        self.smtp = ("127.0.0.1", self._server.port_for("SMTP"))
        self.server = self._server

    def fill(self, messages: Sequence[bytes] = MESSAGES) -> None:
        """Put these messages in the mailbox, and no others."""
        for folder in ("new", "cur", "tmp"):
            shutil.rmtree(self.maildir / folder)
            (self.maildir / folder).mkdir(0o700)
        for at, message in enumerate(messages):
            (self.maildir / "cur" / f"{1_700_000_000 + at}.M{at}P1.mail:2,S").write_bytes(message)

    def stop(self) -> None:
        """End it."""
        self._server.terminate()


def server_context(pair: Pair, folder: Path, *, old: bool = False) -> ssl.SSLContext:
    """What a go-between shows a certificate with; ``old`` speaks nothing newer than TLS 1.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.write(folder / "between.pem"))
    if old:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def target(port: int, **changes: Any) -> Target:
    """A server on loopback, with little patience."""
    settings = {
        "host": "127.0.0.1", "port": port, "tls": "none", "user": USER, "password": PASSWORD, "timeout": 1.0,
        "patience": 1.0, "safe": True, "deliver_to": f"{USER}@example.org",
    }  # fmt: skip
    return Target(**{**settings, **changes})


def look(port: int, rules: Sequence[Rule] = RULES, **changes: Any) -> dict[str, Result]:
    """What is found, by the rule's name.

    :raises AssertionError: if a check itself fails.
    """
    examination = Examination(target(port, **changes), time.monotonic)
    examination.prepare()
    found = {one.rule.name: one for one in run(examination, rules)}
    for one in found.values():
        assert not one.text.startswith(OUR_BUG), one
        assert PASSWORD not in f"{one.text}{one.lines}", one
    return found


@cache
def rules_named(names: str) -> list[Rule]:
    """These rules, in the table's order."""
    wanted = names.split()
    assert set(wanted) <= {rule.name for rule in RULES}, names
    return [rule for rule in RULES if rule.name in wanted]


def failed(found: dict[str, Result]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The rules that are broken, each with how."""
    return {name: (one.text, one.lines) for name, one in found.items() if one.outcome is Outcome.FAILED}


def not_tested(found: dict[str, Result]) -> set[str]:
    """The rules that were not looked at."""
    return {name for name, one in found.items() if one.outcome is Outcome.NOT_TESTED}


def certificates(authority: Authority) -> dict[str, Pair]:
    """A right one, one that has expired, and one for another name."""
    return {
        "right": authority.issue("localhost", "127.0.0.1"),
        "expired": authority.issue("127.0.0.1", begins=timedelta(days=-9), ends=timedelta(days=-2)),
        "name": authority.issue("mail.example.org"),
    }
