"""``pop3toy store check``: which storage is taken, what is said, and that nothing is left there."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from functools import partial
from typing import Any

from twisted.trial.unittest import SkipTest

from pop3toy.errors import StoreTrouble
from pop3toy.stores.objects.connecting import Engines, Patience
from pop3toy.stores.objects.engine import Found, Tag
from pop3toy.stores.objects.qualification.contest import Asking, Process, judged
from pop3toy.stores.objects.qualification.examination import Report, examined
from pop3toy.stores.objects.qualification.latencies import figure
from pop3toy.stores.objects.settings import Objects
from tests.cli_world import CommandTests, Outcome

try:
    import obstore  # noqa: F401
except ImportError:
    raise SkipTest("obstore is not installed") from None

from ..stores.objects.fake_s3 import FakeS3
from ..stores.objects.places import AzurePlace, CephPlace, MotoPlace, Place
from ..stores.objects.test_connecting import KEY, SECRET, EnginesCase

#: For what does not answer.
SHORT = Patience(request=0.3, connect=0.2, retries=1, altogether=0.6)


class ExaminationTests(EnginesCase):
    """What is tried, and what comes of it."""

    def examined(self, where: str, url: str = "s3://mail/pre", **more: Any) -> Report:
        said: dict[str, Any] = {"processes": 2, "rounds": 4, "listed": 5, "clock": self.time.clock} | more
        return examined(Objects(url=url, endpoint=where), **said)

    def refused(self, fake: FakeS3) -> Report:
        """Examine it: it is not fit, and nothing is left in it."""
        report = self.examined(fake.url)
        self.assertFalse(report.fit)
        self.assertRegex(report.verdict, r"\As3://mail/pre cannot hold mail as it is: .*\.\Z")
        self.assertEqual(fake.objects, {})
        self.assertNotIn(SECRET, str(report))
        self.assertNotIn(KEY, str(report))
        return report

    def test_fit(self) -> None:
        """One winner in each round; several processes ask, each several times; all is removed."""
        fake = self.fake()
        fake.objects["pre/m/other"] = (b"somebody's mail", 0.0)
        seen: dict[str, list[int]] = {}
        do = fake.do

        def look(request: Any, body: bytes) -> None:
            if request.command == "PUT" and "/create/" in request.path:
                seen.setdefault(request.path, []).append(request.client_address[1])
            do(request, body)

        self.patch(fake, "do", look)
        report = self.examined(fake.url)
        self.assertEqual([one for one in report.results if not one.passed], [])
        self.assertEqual(
            report.verdict, "s3://mail/pre can hold mail: its conditions held in all of 8 rounds."
        )
        self.assertEqual(
            [one.name for one in report.results],
            ["conditions", "concurrent creates", "concurrent swaps", "listings after writes"],
        )
        self.assertIn("32 requests of 2 processes in 4 rounds", report.results[1].detail)
        # Two processes, each from four threads.
        self.assertEqual([len(ports) for ports in seen.values()], [8] * 4)
        self.assertTrue(all(len(set(ports)) >= 2 for ports in seen.values()), seen)
        self.assertEqual(
            [one.name for one in report.figures],
            ["GET 6 KB", "PUT 6 KB", "LIST 5", "GET 1 MiB of 4", "swap"],
        )
        self.assertEqual(set(fake.objects), {"pre/m/other"})
        self.assertEqual(
            [key for method, key in fake.requests if key and not key.startswith("pre/p/")], [], fake.requests
        )

    def test_unquoted(self) -> None:
        """Ceph 16 is taken; each process learns how it wants its ETags."""
        self.assertTrue(self.examined(self.fake("unquoted").url).fit)

    def test_racy(self) -> None:
        """One that looks and writes at different moments passes the look at the start, and fails here."""
        report = self.refused(self.fake("racy"))
        self.assertEqual([one.passed for one in report.results], [True, False])
        self.assertRegex(report.verdict, "[2-8] of 8 had the same object at the same time")

    def test_stale_listing(self) -> None:
        """So does one whose listings lag behind; what is left of it is said."""
        fake = self.fake("stale-list")
        report = self.examined(fake.url)
        self.assertIn("a listing lacks what was just written", report.verdict)
        self.assertEqual(report.results[-1].name, "listings after writes")

    def test_conditions_that_are_ignored(self) -> None:
        """The look at the start refuses it; no process is started."""
        self.assertIn("ignores If-None-Match", self.refused(self.fake("ignores-create")).verdict)
        self.assertIn("ignores If-Match", self.refused(self.fake("ignores-swap")).verdict)

    def test_answers(self) -> None:
        """No conditional requests, refused credentials, no bucket: a sentence for each."""
        for status, code, said in (
            (501, "NotImplemented", "it knows no conditional requests (501)"),
            (403, "InvalidAccessKeyId", "the credentials are refused, or do not suffice for it"),
            (404, "NoSuchBucket", "there is no such bucket"),
        ):  # fmt: skip
            fake = self.fake()
            fake.answer = (status, code)
            self.assertIn(said, self.refused(fake).verdict)

    def test_unreachable(self) -> None:
        """Nobody there, and nobody who answers: a sentence, in bounded time."""
        engines = partial(Engines, patience=SHORT)
        with socket.create_server(("127.0.0.1", 0)) as hung:
            port = hung.getsockname()[1]
            report = self.examined(f"http://127.0.0.1:{port}", engines=engines)
            self.assertIn("(TimedOut)", report.verdict)
        report = self.examined(f"http://127.0.0.1:{port}", engines=engines)
        self.assertRegex(
            report.verdict, r"\As3://mail/pre could not be tried: .*[(]Connection refused[)]\.\Z"
        )

    def test_trouble_on_the_way(self) -> None:
        """What was made before is removed; and if that cannot be, it is said where it is."""
        for broken, said in (("_list", "is left ("), ("_get", "503")):
            fake = self.fake()
            self.addCleanup(setattr, fake, broken, getattr(fake, broken))
            good, calls = getattr(fake, broken), []

            def sometimes(
                request: Any, *rest: Any, fake: FakeS3 = fake, good: Any = good, calls: list[int] = calls
            ) -> None:
                calls.append(1)
                if len(calls) > 8:
                    fake._refuse(request, 503, "SlowDown")
                else:
                    good(request, *rest)

            setattr(fake, broken, sometimes)
            report = self.examined(fake.url)
            self.assertFalse(report.fit)
            self.assertIn(said, str(report.results))
            if broken == "_get":
                self.assertEqual(fake.objects, {})

    def test_memory(self) -> None:
        """A store in memory is asked from threads: no other process sees it."""
        report = self.examined(None, url="memory://check")  # type: ignore[arg-type]
        self.assertTrue(report.fit)
        self.assertEqual(Engines(Objects(url="memory://check")).main.list("p"), [])

    def test_processes(self) -> None:
        """One that ends without an answer is told of; none is left when it is over."""
        fake = self.fake()
        process = Process(Objects(url="s3://mail", endpoint=fake.url))
        self.assertEqual(process.answer(), [Asking("won")])
        process._process.kill()
        process.ask(what="put", key="p/x")
        self.assertIn("has ended (-9)", self.assertRaises(StoreTrouble, process.answer).detail)
        process.end()
        fake.answer = (404, "NoSuchBucket")
        process = Process(Objects(url="s3://mail", endpoint=fake.url))
        (asked,) = process.answer()
        self.assertEqual(
            (asked.outcome, asked.detail), ("trouble", "object storage: there is no such bucket")
        )
        process.end()
        self.assertIsNotNone(process._process.returncode)
        self.assertNotIn("pop3toy", str(threading.enumerate()))


class JudgementTests(EnginesCase):
    """What is wrong with a round, and how figures are summed up."""

    def test_judged(self) -> None:
        """One may win, what is there is theirs, and a lost answer is no winner too many."""

        def found(body: bytes) -> Found:
            return Found(body, Tag("x"), 0.0)

        a, b = Asking("won", "a"), Asking("won", "b")
        lost, trouble = Asking("lost", "c"), Asking("trouble", "d", "503")
        for asked, after, wrong in (
            ([a, lost, trouble], b"a", ""),
            ([a, b, lost], b"a", "2 of 3 had the same object at the same time"),
            ([a, lost], b"c", "what one has written is not there"),
            ([a, lost], b"before", "what one has written is not there"),
            ([a, lost], None, "what one has written is not there"),
            ([lost, lost], b"before", "none of 2 got it"), ([lost, trouble], b"before", ""),
            ([lost, trouble], b"d", ""), ([lost, trouble], b"c", ""),
            ([lost, trouble], b"x", "there is what nobody has written"),
        ):  # fmt: skip
            self.assertEqual(judged(asked, b"before", None if after is None else found(after)), wrong)

    def test_figure(self) -> None:
        """Milliseconds; 95 of 100 took no longer than the second."""
        self.assertEqual(figure("x", [n / 1000 for n in range(100, 0, -1)]), ("x", 100, 50.5, 95.0, 100.0))
        self.assertEqual(figure("x", [0.25]), ("x", 1, 250.0, 250.0, 250.0))


class CommandCase(CommandTests):
    """The command itself."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(os, "environ", os.environ | {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET})
        self.patch(
            __import__("pop3toy.cli.store", fromlist=["store"]), "examined", partial(examined, listed=5)
        )
        self.fake = FakeS3(clock=lambda: 1e9)
        self.addCleanup(self.fake.close)

    def check(self, *words: str, url: str = "s3://mail") -> Outcome:
        """Run it."""
        few = ("--processes=2", "--rounds=2")
        return self.run_command("store", "check", url, f"--store-endpoint={self.fake.url}", *few, *words)

    def test_text(self) -> None:
        """A line for all that was tried, a table, a sentence; status 0."""
        outcome = self.check()
        self.assertEqual((outcome.status, outcome.err), (0, ""))
        self.assertRegex(
            outcome.out,
            r"\A(ok      [a-z ]{22}  .*\n){4}\nmilliseconds +median +p95 +max\n"
            r"((GET|PUT|LIST|swap).*\d\n){5}\ns3://mail can hold mail: .*\.\n\Z",
        )

    def test_json(self) -> None:
        """The same for programs."""
        said = json.loads(self.check("--json").out)
        self.assertTrue(said["fit"])
        self.assertEqual(len(said["results"]), 4)
        self.assertEqual(set(said["figures"][0]), {"name", "requests", "median", "p95", "max"})

    def test_refused(self) -> None:
        """A store that is not fit: status 69, and the sentence."""
        self.fake.wrong = "ignores-create"
        outcome = self.check()
        self.assertEqual(outcome.status, os.EX_UNAVAILABLE)
        self.assertIn("FAILED  conditions", outcome.out)
        self.assertIn("cannot hold mail as it is: it ignores If-None-Match", outcome.out)
        self.assertFalse(json.loads(self.check("--json").out)["fit"])
        self.assertEqual(self.check(url="s3://nope").status, os.EX_UNAVAILABLE)

    def test_store_of_a_file(self) -> None:
        """Without an address it is the store of a file of options, or of the environment."""
        file = self.root / "pop3toy.toml"
        endpoint = f'store-endpoint = "{self.fake.url}"\n'
        few = ("--processes=2", "--rounds=2")
        for text, words, status, said in (
            (f'store = "s3://mail"\n{endpoint}', (), 0, "s3://mail can hold mail"),
            (f'store = "s3://nope"\n{endpoint}', ("s3://mail",), 0, "s3://mail can hold mail"),
            (f'maildir = "{self.root}/{{user}}"\n', (), os.EX_CONFIG, "[store] store is missing"),
            ("", (), os.EX_CONFIG, "[store] store is missing"),
            ('store = "s3://mail"\nstore-region = 1\n', (), os.EX_CONFIG, "toml: [store] store-region"),
            ('store = "s3://mail"\n', ("--store-endpoint=x",), os.EX_USAGE, "--store-endpoint is an address"),
        ):
            file.write_text(f"[store]\n{text}")
            done = self.run_command("store", "check", f"--config={file}", *few, *words)
            self.assertEqual(done.status, status, done)
            self.assertIn(said, done.out + " ".join(done.err.split()))
        self.assertIn("Missing argument 'URL'", self.run_command("store", "check").err)
        os.environ["POP3TOY_STORE"] = "s3://mail"
        done = self.run_command("store", "check", f"--store-endpoint={self.fake.url}", *few)
        self.assertEqual(done.status, 0, done)

    def test_mistakes(self) -> None:
        """What is wrong on the command line, and missing credentials: one sentence, none of them shown."""
        file = self.root / "credentials"
        file.write_text(f"{SECRET}\n")
        for words, url, said in (
            ((), "mail", "URL"), ((), "s3://key:secret@mail", "no credentials"),
            ((f"--store-credentials={file}",), "s3://mail", "chmod 600"),
            ((f"--store-credentials={self.root}/no",), "s3://mail", "no such file"),
            (("--processes=0",), "s3://mail", "--processes"),
        ):  # fmt: skip
            outcome = self.check(*words, url=url)
            self.assertEqual(outcome.status, os.EX_USAGE, outcome)
            self.assertIn(said, outcome.err)
            self.assertNotIn(SECRET, outcome.err)
        self.patch(os, "environ", {})
        self.assertIn("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment", self.check().err)
        self.assertEqual(self.fake.requests, [])


class MotoTests(MotoPlace):
    """On moto's server."""

    def test_examined(self) -> None:
        """All is tried and removed; whether it holds when many ask is moto's own matter."""
        report = examined(self.settings(), processes=2, rounds=2, listed=5, clock=time.perf_counter)
        self.assertEqual(report.results[0][:2], ("conditions", True))
        self.assertEqual(self.engines().main.list("p"), [])


class FitCase(Place):
    """Stores that are fit."""

    def test_fit(self) -> None:
        """It can hold mail, by two processes' word; nothing is left there."""
        report = examined(self.settings(), processes=2, rounds=10, listed=20, clock=time.perf_counter)
        self.assertTrue(report.fit, report)
        self.assertEqual(len(report.figures), 5)
        self.assertEqual(self.engines().main.list("p"), [])


class CephTests(FitCase, CephPlace):
    """On a real Ceph."""


class AzureTests(FitCase, AzurePlace):
    """On Azurite."""


del FitCase
