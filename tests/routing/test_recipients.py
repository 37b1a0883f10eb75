"""From an address to users: domains, plus, case, aliases, catch-all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.addresses import Address, parse_address
from pop3toy.errors import StoreTrouble
from pop3toy.net.threads import run_now
from pop3toy.routing.aliases import ALIAS_LOOK, AliasFile, BadAliases, parse_aliases
from pop3toy.routing.recipients import RecipientResolver
from tests.smtp_world import NOW, find_in


def ours(address: Address) -> bool:
    """Everything in no domain or in example.org."""
    return address.domain in ("", "example.org")


class RecipientsTests(SynchronousTestCase):
    """Whose an address is."""

    def users(self, text: str, aliases: Mapping[str, tuple[str, ...]] | None = None, **options: Any) -> Any:
        """The users behind an address, or the error's name."""
        recipients = RecipientResolver(
            find_in("ann", "bob", "Cat", "d+e", "eve@example.org", "fay", "fay@münchen.example"),
            domains=("example.org", "münchen.example"), aliases=lambda: aliases or {}, **options,
        )  # fmt: skip
        found = Deferred.fromCoroutine(recipients.resolve(parse_address(text)))
        return self.successResultOf(found.addErrback(lambda failure: type(failure.value).__name__))

    def test_local_parts(self) -> None:
        """Local parts are found as they are written and without +detail."""
        for text, users in (
            ("ann@example.org", ("ann",)), ("ANN@Example.ORG", ("ann",)), ("ann", ("ann",)),
            ("cat@example.org", ("Cat",)), ("ann+lists@example.org", ("ann",)), ("ann+a+b", ("ann",)),
            ("d+e@example.org", ("d+e",)), ("d@example.org", "NoSuchMailbox"), ("nobody", "NoSuchMailbox"),
            ('"ann"@example.org', ("ann",)), ("+x@example.org", "NoSuchMailbox"),
            ("ann@xn--mnchen-3ya.example", ("ann",)), ("ann@MÜNCHEN.example", ("ann",)),
            ("ann@elsewhere.example", "NotOurs"), ("ann@sub.example.org", "NotOurs"),
            ("ann@[192.0.2.1]", "NotOurs"),
        ):  # fmt: skip
            with self.subTest(text=text):
                self.assertEqual(self.users(text), users)

    def test_whole_addresses(self) -> None:
        """A user may be called by a whole address, which counts more than its local part."""
        for text, users in (
            ("eve@example.org", ("eve@example.org",)), ("EVE+x@Example.Org.", ("eve@example.org",)),
            ("eve", ("eve@example.org",)), ("eve@münchen.example", "NoSuchMailbox"),
            ("fay@example.org", ("fay",)), ('"eve"@example.org', ("eve@example.org",)),
        ):  # fmt: skip
            with self.subTest(text=text):
                self.assertEqual(self.users(text), users)

    def test_in_full(self) -> None:
        """An address without a domain is in the first of ours."""
        recipients = RecipientResolver(find_in(), domains=("Example.org", "b.example"))
        for text, written in (("Bob", "Bob@Example.org"), ("bob@b.example", "bob@b.example")):
            self.assertEqual(recipients.in_full(parse_address(text)).written, written)

    def test_later(self) -> None:
        """Accounts may take their time to find a user, and to find that of catch-all."""
        asked: dict[str, Deferred[str | None]] = {}
        recipients = RecipientResolver(lambda name: asked.setdefault(name, Deferred()), catch_all="Cat")
        found = Deferred.fromCoroutine(recipients.resolve(parse_address("Ann+x")))
        for name, user in (
            ("Ann+x@localhost", None), ("Ann+x", None), ("Ann@localhost", None), ("Ann", None),
            ("Cat", "cat"),
        ):  # fmt: skip
            self.assertNoResult(found)
            asked[name].callback(user)
        self.assertEqual(self.successResultOf(found), ("cat",))

    def test_catch_all(self) -> None:
        """What nobody else in our domains gets goes to one user, and nothing of other domains."""
        self.assertEqual(self.users("nobody@example.org", catch_all="bob"), ("bob",))
        self.assertEqual(self.users("ann@example.org", catch_all="bob"), ("ann",))
        self.assertEqual(self.users("x@elsewhere.example", catch_all="bob"), "NotOurs")
        self.assertEqual(self.users("x@elsewhere.example", catch_all="bob", any_domain=True), ("bob",))
        # Where that user is none any more, the rest waits.
        self.assertEqual(self.users("nobody@example.org", catch_all="ghost"), "StoreTrouble")

    def test_aliases(self) -> None:
        """An alias stands for users, other aliases and addresses of ours, each user once."""
        aliases = {
            "all": ("ann", "staff", "bob@example.org"), "staff": ("bob+staff", "Cat"), "ann": ("ann", "bob"),
            "loop": ("pool",), "pool": ("loop", "ann"), "self": ("self",), "x+y": ("bob",),
            "info@example.org": ("bob",), "info": ("ann",), "eva": ("eve",),
        }  # fmt: skip
        for text, users in (
            ("all@example.org", ("ann", "bob", "Cat")), ("STAFF", ("bob", "Cat")), ("ann", ("ann", "bob")),
            ("ann+x", ("ann", "bob")), ("loop", ("ann", "bob")), ("self", "StoreTrouble"), ("x+y", ("bob",)),
            ("Info@Example.org", ("bob",)), ("info", ("bob",)), ("info@münchen.example", ("ann", "bob")),
            ("eva@example.org", ("eve@example.org",)), ("info+x@example.org", ("bob",)),
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

    def test_alias_that_leads_nowhere(self) -> None:
        """Mail for an alias without any user behind it waits: it is not refused, nor anybody else's."""
        aliases = {"info": ("annn",), "a": ("b",), "b": ("a",), "ann": ("annn",), "x+y": ("gone",)}
        for text in ("info", "INFO@example.org", "info+x", "a", "b@example.org", "ann", "x+y"):
            for options in ({}, {"catch_all": "bob"}):
                self.assertEqual(self.users(text, aliases, **options), "StoreTrouble", text)

    def test_dead_ends(self) -> None:
        """Targets that lead to no user are found: slips and circles, and none that lead somewhere."""
        aliases = {
            "info": ("annn", "ann"), "a": ("b",), "b": ("a",), "c": ("a", "bob"), "ann": ("ann", "bob"),
            "fine": ("info", "c", "Cat", "eve@example.org", "eve"), "self": ("self",),
            "fay@b.example": ("fay", "eve"), "eva@example.org": ("eve",),
        }  # fmt: skip
        recipients = RecipientResolver(
            find_in("ann", "bob", "Cat", "eve@example.org", "fay@b.example"),
            domains=("example.org", "b.example"),
        )
        dead = {
            alias: self.successResultOf(Deferred.fromCoroutine(recipients.dead_ends(alias, aliases)))
            for alias in aliases
        }
        self.assertEqual(
            {alias: targets for alias, targets in dead.items() if targets},
            {
                "info": ["annn"], "a": ["b"], "b": ["a"], "c": ["a"], "self": ["self"],
                "fay@b.example": ["eve"],
            },
        )  # fmt: skip

    def test_circles(self) -> None:
        """Aliases that lead in circles are not followed again and again."""
        asked: list[str] = []
        circle = dict.fromkeys("abc", ("a", "b", "c"))
        recipients = RecipientResolver(lambda name: asked.append(name), aliases=lambda: circle)
        found = Deferred.fromCoroutine(recipients.resolve(parse_address("a")))
        self.failureResultOf(found, StoreTrouble)
        self.assertLess(len(asked), 50)

    def test_deep(self) -> None:
        """A long chain of aliases ends somewhere."""
        chain = {f"a{n}": (f"a{n + 1}",) for n in range(1000)}
        self.assertEqual(self.users("a0", chain), "StoreTrouble")


class AliasFileTests(SynchronousTestCase):
    """The alias file."""

    def test_syntax(self) -> None:
        """Names, targets, comments, blank lines, and lines that go on."""
        text = "# who is who\n\nPostmaster: ann\nall :ann,bob@example.org ,\n   cat,\n\tdan\n"
        self.assertEqual(
            parse_aliases(text + "Info@EXAMPLE.org: cat\n\"a b\": ann\n", lambda address: True),
            {
                "postmaster": ("ann",), "all": ("ann", "bob@example.org", "cat", "dan"),
                "info@example.org": ("cat",), "a b": ("ann",),
            },
        )  # fmt: skip

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
            ("a: b\nx@y@z: b\n", "line 2: 'x@y@z' is no name and no address"),
            (
                "a@elsewhere.example: b\n",
                "line 1: a@elsewhere.example is elsewhere, and its mail does not come here",
            ),
            ('a: "|rm -rf /"\n', "files, commands and includes are not supported"),
            ("a: :include:/etc/passwd\n", "files, commands and includes are not supported"),
        ):
            with self.subTest(text=text):
                error = self.assertRaises(BadAliases, parse_aliases, text, ours)
                self.assertIn(why, str(error))

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.clock = Clock()
        self.clock.advance(NOW)
        self.reads = 0

    def in_thread(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """A thread that is done at once, and counted."""
        self.reads += 1
        return run_now(work, *args)

    def aliases(self) -> AliasFile:
        """The aliases of the file."""
        return AliasFile(str(self.path), ours, self.in_thread, self.clock, wall=self.clock.seconds)

    def after_a_while(self, aliases: AliasFile) -> Any:
        """What they are when it is time for another look."""
        self.clock.advance(ALIAS_LOOK)
        result = aliases()
        return self.successResultOf(result) if isinstance(result, Deferred) else result

    def test_changes(self) -> None:
        """The file is read again when it changes; one that has become unusable changes nothing."""
        self.path.write_text("a: ann\n")
        aliases = self.aliases()
        self.assertEqual(aliases(), {"a": ("ann",)})
        self.path.write_text("a: bob, ann\n")
        self.assertEqual(self.after_a_while(aliases), {"a": ("bob", "ann")})
        for broken in (b"nonsense\n", b"\xff: ann\n"):
            self.path.write_bytes(broken)
            self.assertEqual(self.after_a_while(aliases), {"a": ("bob", "ann")})
        os.unlink(self.path)
        self.assertEqual(self.after_a_while(aliases), {"a": ("bob", "ann")})

    def test_being_written(self) -> None:
        """A file into which somebody has just written is believed two seconds later: it may be half there."""
        self.clock.advance(time.time() - NOW)
        text = "a: ann\nb: bob, ann\n"
        self.path.write_text(text)
        aliases = self.aliases()
        for octets in range(len(text)):
            self.path.write_text(text[:octets])
            self.clock.advance(self.path.stat().st_mtime - self.clock.seconds())
            self.assertEqual(self.after_a_while(aliases), {"a": ("ann",), "b": ("bob", "ann")}, octets)
        self.path.write_text("a: ann\n")
        self.clock.advance(2.5)
        self.assertEqual(self.after_a_while(aliases), {"a": ("ann",)})
        self.path.write_text("a: cat\n")
        self.assertEqual(self.after_a_while(aliases), {"a": ("cat",)})

    def test_seldom_and_in_a_thread(self) -> None:
        """However much mail comes, the file is looked at once a second, and in a thread."""
        self.path.write_text("a: ann\n")
        aliases = self.aliases()
        self.reads = 0
        for _ in range(10):
            self.assertEqual(aliases(), {"a": ("ann",)})
        self.assertEqual(self.reads, 0)
        self.assertEqual(self.after_a_while(aliases), {"a": ("ann",)})
        self.assertEqual(self.reads, 1)

    def test_looking(self) -> None:
        """While a thread looks, mail goes by what was known before."""
        self.path.write_text("a: ann\n")
        looking: list[Deferred[Any]] = []
        aliases = AliasFile(
            str(self.path), ours, lambda *work: looking.append(Deferred()) or looking[-1], self.clock
        )
        self.clock.advance(ALIAS_LOOK)
        self.assertNoResult(aliases())
        self.clock.advance(ALIAS_LOOK)
        self.assertEqual(aliases(), {"a": ("ann",)})
        self.assertEqual(len(looking), 1)

    def test_told_once(self) -> None:
        """What is wrong with the file is in the log once, however often it is looked at."""
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.path.write_text("a: ann\n")
        aliases = self.aliases()
        self.path.write_text("nonsense")
        for _ in range(3):
            self.after_a_while(aliases)
        self.assertEqual(len([event for event in events if "not usable" in event.get("log_format", "")]), 1)

    def test_told_of_changes(self) -> None:
        """Who wants to know hears of other aliases, once, and not of the same."""
        self.path.write_text("a: ann\n")
        heard: list[Any] = []
        aliases = AliasFile(
            str(self.path), ours, self.in_thread, self.clock, wall=self.clock.seconds, changed=heard.append
        )
        for text in ("a: ann\n", "a: bob\n", "a:  bob\n", "nonsense"):
            self.path.write_text(text)
            self.after_a_while(aliases)
        self.assertEqual(heard, [{"a": ("bob",)}])

    def test_unusable_at_first(self) -> None:
        """A file that cannot be used when the server starts is an error."""
        self.assertRaises(OSError, self.aliases)
        self.path.write_text("nonsense")
        self.assertRaises(BadAliases, self.aliases)
