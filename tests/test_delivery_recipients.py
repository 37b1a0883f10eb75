"""From an address to users: domains, plus, case, aliases, catch-all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.delivery.aliases import AliasFile, BadAliases, parse_aliases
from pop3toy.delivery.envelope import Address, parse_address
from pop3toy.delivery.recipients import NotOurs, Recipients, find_by
from pop3toy.errors import NoSuchMailbox
from tests.smtp_world import find_in


def ours(address: Address) -> bool:
    """Everything in no domain or in example.org."""
    return address.domain in ("", "example.org")


class RecipientsTests(SynchronousTestCase):
    """Whose an address is."""

    def users(self, text: str, aliases: Mapping[str, tuple[str, ...]] | None = None, **options: Any) -> Any:
        """The users behind an address, or the error's name."""
        recipients = Recipients(
            find_in("ann", "bob", "Cat", "d+e"), domains=("example.org", "münchen.example"),
            aliases=lambda: aliases or {}, **options,
        )  # fmt: skip
        found = Deferred.fromCoroutine(recipients.resolve(parse_address(text)))
        return self.successResultOf(found.addErrback(lambda failure: type(failure.value).__name__))

    def test_local_parts(self) -> None:
        """Local parts are found in the accounts' spelling, in lower case, and without +detail."""
        for text, users in (
            ("ann@example.org", ("ann",)), ("ANN@Example.ORG", ("ann",)), ("ann", ("ann",)),
            ("Cat@example.org", ("Cat",)), ("ann+lists@example.org", ("ann",)), ("ann+a+b", ("ann",)),
            ("d+e@example.org", ("d+e",)), ("d@example.org", "NoSuchMailbox"), ("nobody", "NoSuchMailbox"),
            ('"ann"@example.org', ("ann",)), ("+x@example.org", "NoSuchMailbox"),
            ("ann@xn--mnchen-3ya.example", ("ann",)), ("ann@MÜNCHEN.example", ("ann",)),
            ("ann@elsewhere.example", "NotOurs"), ("ann@sub.example.org", "NotOurs"),
            ("ann@[192.0.2.1]", "NotOurs"),
        ):  # fmt: skip
            with self.subTest(text=text):
                self.assertEqual(self.users(text), users)

    def test_later(self) -> None:
        """Accounts may take their time to find somebody."""
        asked: dict[str, Deferred[str | None]] = {}
        recipients = Recipients(lambda name: asked.setdefault(name, Deferred()))
        found = Deferred.fromCoroutine(recipients.resolve(parse_address("Ann+x")))
        for name, user in (("Ann+x", None), ("ann+x", None), ("Ann", None), ("ann", "ann")):
            self.assertNoResult(found)
            asked[name].callback(user)
        self.assertEqual(self.successResultOf(found), ("ann",))

    def test_accounts_that_know_names_only(self) -> None:
        """Accounts need only say whether somebody exists, at once or later."""
        for exists in (lambda name: name == "ann", lambda name: succeed(name == "ann")):
            recipients = Recipients(find_by(exists))
            for address, users in (("ANN", ("ann",)), ("bob", None)):
                found = Deferred.fromCoroutine(recipients.resolve(parse_address(address)))
                self.assertEqual(self.successResultOf(found.addErrback(lambda failure: None)), users)

    def test_catch_all(self) -> None:
        """What nobody else in our domains gets goes to one user, and nothing of other domains."""
        self.assertEqual(self.users("nobody@example.org", catch_all="bob"), ("bob",))
        self.assertEqual(self.users("ann@example.org", catch_all="bob"), ("ann",))
        self.assertEqual(self.users("x@elsewhere.example", catch_all="bob"), "NotOurs")
        self.assertEqual(self.users("x@elsewhere.example", catch_all="bob", any_domain=True), ("bob",))

    def test_aliases(self) -> None:
        """An alias stands for users, other aliases and addresses of ours, each user once."""
        aliases = {
            "all": ("ann", "staff", "bob@example.org"), "staff": ("bob+staff", "Cat"), "ann": ("ann", "bob"),
            "loop": ("pool",), "pool": ("loop", "ann"), "self": ("self",), "x+y": ("bob",),
        }  # fmt: skip
        for text, users in (
            ("all@example.org", ("ann", "bob", "Cat")), ("STAFF", ("bob", "Cat")), ("ann", ("ann", "bob")),
            ("ann+x", ("ann", "bob")), ("loop", ("ann", "bob")), ("self", "NoSuchMailbox"), ("x+y", ("bob",)),
        ):  # fmt: skip
            with self.subTest(text=text):
                self.assertEqual(self.users(text, aliases), users)

    def test_alias_for_nobody(self) -> None:
        """A target that is no user is told in the log, and the others get their mail."""
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.assertEqual(self.users("both", {"both": ("gone", "bob")}), ("bob",))
        self.assertTrue([event for event in events if event.get("target") == "gone"])

    def test_circles(self) -> None:
        """Aliases that lead in circles are not followed again and again."""
        asked: list[str] = []
        circle = dict.fromkeys("abc", ("a", "b", "c"))
        recipients = Recipients(lambda name: asked.append(name), aliases=lambda: circle)
        found = Deferred.fromCoroutine(recipients.resolve(parse_address("a")))
        self.failureResultOf(found, NoSuchMailbox)
        self.assertLess(len(asked), 50)

    def test_deep(self) -> None:
        """A long chain of aliases ends somewhere."""
        chain = {f"a{n}": (f"a{n + 1}",) for n in range(1000)}
        self.assertEqual(self.users("a0", chain), "NoSuchMailbox")

    def test_errors(self) -> None:
        """To be nobody's and to be elsewhere are two things."""
        self.assertFalse(issubclass(NotOurs, NoSuchMailbox))


class AliasFileTests(SynchronousTestCase):
    """The alias file."""

    def test_syntax(self) -> None:
        """Names, targets, comments, blank lines, and lines that go on."""
        text = "# who is who\n\nPostmaster: ann\nall :ann,bob@example.org ,\n   cat,\n\tdan\n"
        self.assertEqual(
            parse_aliases(text, ours),
            {"postmaster": ("ann",), "all": ("ann", "bob@example.org", "cat", "dan")},
        )

    def test_mistakes(self) -> None:
        """A mistake is told with its line."""
        for text, why in (
            ("ann\n", 'line 1: expected "name: target, target"'),
            ("\n: ann\n", 'line 2: expected "name: target, target"'),
            (" ann: bob\n", "line 1: begins with a blank, but there is no line to go on with"),
            ("a: b\nA: c\n", "line 2: a is there twice"),
            ("a: ,\n", "line 1: a has no target"),
            (
                "a: b@elsewhere.example\n",
                "line 1: b@elsewhere.example is elsewhere, and this server sends nothing on",
            ),
            ('a: "|rm -rf /"\n', "files, commands and includes are not supported"),
            ("a: :include:/etc/passwd\n", "files, commands and includes are not supported"),
        ):
            with self.subTest(text=text):
                error = self.assertRaises(BadAliases, parse_aliases, text, ours)
                self.assertIn(why, str(error))

    def test_changes(self) -> None:
        """The file is read again when it changes; one that has become unusable changes nothing."""
        path = Path(self.mktemp())
        path.write_text("a: ann\n")
        aliases = AliasFile(str(path), ours)
        self.assertEqual(aliases(), {"a": ("ann",)})
        path.write_text("a: bob, ann\n")
        self.assertEqual(aliases(), {"a": ("bob", "ann")})
        for broken in (b"nonsense\n", b"\xff: ann\n"):
            path.write_bytes(broken)
            self.assertEqual(aliases(), {"a": ("bob", "ann")})
        os.unlink(path)
        self.assertEqual(aliases(), {"a": ("bob", "ann")})
        path.write_text("a: cat\n")
        self.assertEqual(aliases(), {"a": ("cat",)})

    def test_unusable_at_first(self) -> None:
        """A file that cannot be used when the server starts is an error."""
        path = Path(self.mktemp())
        self.assertRaises(OSError, AliasFile, str(path), ours)
        path.write_text("nonsense")
        self.assertRaises(BadAliases, AliasFile, str(path), ours)
