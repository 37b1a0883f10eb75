"""Connections to object storage: which credentials, how long it may take, what is said of trouble."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from twisted.logger import capturedLogs
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from pop3toy.errors import BadSetting, CannotStart, StoreFull, StoreTrouble
from pop3toy.stores.objects import connecting
from pop3toy.stores.objects.credentials import Credentials
from pop3toy.stores.objects.engine import LARGE, Engine, NoSuchObject
from pop3toy.stores.objects.settings import Objects

try:
    import obstore  # noqa: F401
except ImportError:
    raise SkipTest("obstore is not installed") from None

from .fake_s3 import FakeS3

KEY, SECRET = "AKIDEXAMPLE", "hunter2hunter2"
#: For what does not answer.
SHORT = connecting.Patience(request=0.3, connect=0.2, retries=1, altogether=0.6)
#: For what does, on a busy machine too.
LONG = connecting.Patience(request=30.0, connect=30.0, retries=1, altogether=60.0)


class Time:
    """Clocks that are set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.day = time.time()

    def clock(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.day

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.day += seconds


class EnginesCase(SynchronousTestCase):
    """An S3 of our own, and credentials in the environment."""

    def setUp(self) -> None:
        self.time = Time()
        self.variables({"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET})

    def variables(self, given: dict[str, str]) -> None:
        """Have these in the environment, and no others for object storage."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AWS_", "GOOGLE_", "AZURE_"))
        }
        self.patch(os, "environ", kept | given)

    def fake(self, wrong: str = "", ahead: float = 0.0) -> FakeS3:
        fake = FakeS3(wrong, clock=lambda: self.time.day + ahead)
        self.addCleanup(fake.close)
        return fake

    def engines(self, where: str, **more: Any) -> connecting.Engines:
        patience = more.pop("patience", LONG)
        settings = Objects(url=more.pop("url", "s3://mail/pre"), endpoint=where, **more)
        return connecting.Engines(settings, clock=self.time.clock, wall=self.time.wall, patience=patience)

    def trouble(self, function: Any, *args: Any) -> StoreTrouble:
        """What a call fails with."""
        error = self.assertRaises(StoreTrouble, function, *args)
        for secret in (KEY, SECRET, "http:", "127.0.0.1"):
            self.assertNotIn(secret, f"{error} {error.detail} {error!r}")
        return error


class CredentialsTests(EnginesCase):
    """Where credentials come from."""

    def file(self, text: str, mode: int = 0o600) -> str:
        path = Path(tempfile.mkdtemp(), "credentials")
        path.touch(0o600)
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def refused(self, scheme: str = "s3", path: str | None = None, **environ: str) -> str:
        error = self.assertRaises(BadSetting, Credentials, scheme, path, environ)
        self.assertNotIn(SECRET, str(error))
        self.assertNotIn("\n", str(error))
        return str(error).replace(path or "\0", "FILE")

    def test_environment(self) -> None:
        """The usual variables; one line names those that are missing."""
        both = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        more = {"AWS_SESSION_TOKEN": "t", "AWS_REGION": "r"}
        self.assertEqual(Credentials("s3", None, both | {"OTHER": "x"}).read(), both)
        self.assertEqual(Credentials("s3", None, both | more).read(), both | more)
        self.assertEqual(
            self.refused(AWS_ACCESS_KEY_ID=SECRET),
            "--store s3:// needs credentials: AWS_SECRET_ACCESS_KEY in the environment, or"
            " --store-credentials FILE with such lines",
        )
        self.assertIn("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in", self.refused(AWS_ACCESS_KEY_ID=""))
        self.assertEqual(Credentials("memory", None, {}).read(), {})

    def test_google_and_azure(self) -> None:
        """Any of the ways that their libraries know; the first that is complete."""
        for scheme, given in (
            ("gs", {"GOOGLE_APPLICATION_CREDENTIALS": "/x"}),
            ("az", {"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_SAS_TOKEN": "b"}),
        ):
            self.assertEqual(Credentials(scheme, None, given).read(), given)
        self.assertIn("GOOGLE_SERVICE_ACCOUNT_KEY", self.refused("gs"))
        self.assertIn("AZURE_STORAGE_ACCOUNT_KEY in", self.refused("az", AZURE_STORAGE_ACCOUNT_NAME="a"))

    def test_file(self) -> None:
        """Lines as systemd has them; the environment does not count then."""
        path = self.file(f"# ours\n\nexport AWS_ACCESS_KEY_ID={KEY}\n AWS_SECRET_ACCESS_KEY = '{SECRET}'\n")
        credentials = Credentials("s3", path, {"AWS_SESSION_TOKEN": "another's"})
        self.assertEqual(credentials.read(), {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET})
        self.assertNotIn(SECRET, repr(credentials))
        Path(path).write_text("AWS_ACCESS_KEY_ID=b\nAWS_SECRET_ACCESS_KEY=c\n")
        self.assertEqual(credentials.read()["AWS_SECRET_ACCESS_KEY"], "c")

    def test_bad_file(self) -> None:
        """One line says what is wrong with it, and holds nothing of it."""
        for text, mode, said in (
            (SECRET, 0o640, "FILE: others may read it, use chmod 600"),
            (SECRET, 0o604, "FILE: others may read it, use chmod 600"),
            (f"# x\n{SECRET}\n", 0o600, "FILE, line 2: a line is NAME=VALUE"),
            (f"AWS_SECRET_ACCESS_KEY={SECRET}\n", 0o600, "FILE: AWS_ACCESS_KEY_ID is missing in it"),
            ("A=" + "x" * 70000, 0o600, "FILE: this is too long for credentials"),
        ):
            path = self.file(text, mode)
            self.assertEqual(self.refused(path=path), f"--store-credentials {said}")
        Path(path).write_bytes(b"A=\xff")
        self.assertIn("UTF-8", self.refused(path=path))
        self.assertIn("no such file", self.refused(path="/nonexistent/x"))
        self.assertIn("is a directory", self.refused(path="/tmp"))

    def test_what_is_sent(self) -> None:
        """Credentials of a file are used even where the environment has others, and read again if changed."""
        self.variables({"AWS_ACCESS_KEY_ID": "other", "AWS_SECRET_ACCESS_KEY": "x", "AWS_SESSION_TOKEN": "y"})
        path = self.file(f"AWS_ACCESS_KEY_ID={KEY}\nAWS_SECRET_ACCESS_KEY={SECRET}\nAWS_REGION=mars-1\n")
        fake = self.fake()
        seen: list[str] = []
        do = fake.do

        def look(request: Any, body: bytes) -> None:
            seen.append(str(request.headers))
            do(request, body)

        self.patch(fake, "do", look)
        self.engines(fake.url, credentials=path).main.list("a")
        self.assertIn(f"Credential={KEY}/", seen[-1])
        self.assertIn("/mars-1/s3", seen[-1])
        self.assertNotIn("security-token", seen[-1].lower())

    def test_provider(self) -> None:
        """A file that cannot be read any more leaves the credentials that there were, and is told of."""
        path = self.file(f"AWS_ACCESS_KEY_ID={KEY}\nAWS_SECRET_ACCESS_KEY=a\n")
        credentials = Credentials("s3", path)
        provider = connecting._Provider(credentials, credentials.read())
        Path(path).write_text(f"AWS_ACCESS_KEY_ID={KEY}\nAWS_SECRET_ACCESS_KEY=b\nAWS_SESSION_TOKEN=t\n")
        found = provider()
        self.assertEqual((found["secret_access_key"], found["token"]), ("b", "t"))
        Path(path).write_text(SECRET)
        with capturedLogs() as logs:
            self.assertEqual(provider()["secret_access_key"], "b")
        self.assertIn("line 1", logs[0]["why"])
        self.assertNotIn(SECRET, f"{logs} {provider!r}")


class EnginesTests(EnginesCase):
    """The first call connects; what comes of it."""

    def test_nothing_is_asked_before(self) -> None:
        """Making engines asks nothing; the first call looks, the second does not, and nothing is left."""
        fake = self.fake()
        engines = self.engines(fake.url)
        self.assertEqual(fake.requests, [])
        engines.main.create("a/b", b"x")
        self.assertGreater(len(fake.requests), 5)
        self.assertEqual(set(fake.objects), {"pre/a/b"})
        fake.requests.clear()
        self.assertEqual(engines.main.get("a/b").body, b"x")
        self.assertEqual(fake.requests, [("GET", "pre/a/b")])

    def test_endpoint(self) -> None:
        """The endpoint that is said counts, not one that the library finds in the environment by itself."""
        for name in ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            os.putenv(name, "http://127.0.0.1:1")
            self.addCleanup(os.unsetenv, name)
        self.assertEqual(self.engines(self.fake().url).main.list("m"), [])

    def test_buckets(self) -> None:
        """A bucket has its engine, which is kept, with the same prefix; the store's own is ``""``."""
        fake = self.fake()
        engines = self.engines(fake.url, buckets=("mail", "more"))
        self.assertEqual(engines.buckets, ("mail", "more"))
        self.assertIs(engines.of(""), engines.main)
        self.assertIs(engines.of("mail"), engines.main)
        self.assertIs(engines.of("more"), engines.of("more"))
        self.assertIsNot(engines.of("more"), engines.main)
        self.assertIn("no such bucket", self.trouble(engines.of("more").get, "x").detail)

    def test_memory(self) -> None:
        """The same name is the same store, wherever it is asked for in this process."""
        for other, found in (("memory://one", True), ("memory://two", False)):
            connecting.Engines(Objects(url="memory://one")).main.call("put", f"for-{found}", b"x")
            engine = connecting.Engines(Objects(url=other)).main
            if found:
                self.assertEqual(engine.get("for-True").body, b"x")
            else:
                self.assertRaises(NoSuchObject, engine.get, "for-False")

    def test_folder(self) -> None:
        """A folder is refused with a sentence, and nothing is made in it."""
        folder = Path(tempfile.mkdtemp())
        engine = connecting.Engines(Objects(url=f"file://{folder}")).main
        with capturedLogs():
            self.assertIn("file://", self.trouble(engine.get, "x").detail)
        self.assertEqual(list(folder.iterdir()), [])

    def test_not_installed(self) -> None:
        """Without the library one line says what to install."""
        self.patch(connecting, "find_spec", lambda name: None)
        error = self.assertRaises(CannotStart, connecting.Engines, Objects(url="memory://x"))
        self.assertIn("needs the extra 'objects': ", str(error))

    def test_missing_credentials(self) -> None:
        """They are missed at once."""
        self.variables({})
        error = self.assertRaises(BadSetting, self.engines, "http://127.0.0.1:1")
        self.assertEqual(error.option, "store")

    def test_outage(self) -> None:
        """Refused connections: an error in bounded time, none asked for a second, then service again."""
        fake = self.fake()
        engines = self.engines(fake.url)
        fake.answer = (503, "SlowDown")
        self.assertIn("503", self.trouble(engines.main.get, "x").detail)
        asked = len(fake.requests)
        self.trouble(engines.main.get, "x")
        self.assertEqual(len(fake.requests), asked)
        fake.answer = None
        self.time.advance(1.1)
        self.assertRaises(NoSuchObject, engines.main.get, "x")
        self.assertEqual(fake.objects, {})

    def test_refused_and_hanging(self) -> None:
        """Ports where nobody is, and where nobody answers: bounded, with a reason; waiting threads, too."""
        tried: list[object] = []
        made = connecting._made

        def counted(*how: Any) -> Any:
            tried.append(how)
            return made(*how)

        self.patch(connecting, "_made", counted)
        with socket.create_server(("127.0.0.1", 0)) as hung:
            free = socket.create_server(("127.0.0.1", 0))
            nobody = free.getsockname()[1]
            free.close()
            for port, why in ((nobody, "(Connection refused)"), (hung.getsockname()[1], "(TimedOut)")):
                tried.clear()
                engine = self.engines(f"http://127.0.0.1:{port}", patience=SHORT).main
                details: list[str] = []

                def get(engine: Engine = engine, details: list[str] = details) -> None:
                    details.append(self.trouble(engine.get, "x").detail)

                threads = [threading.Thread(target=get) for _ in range(8)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(60)
                # One try for all eight.
                self.assertEqual(len(tried), 1)
                self.assertEqual(len(details), 8)
                self.assertEqual(len(set(details)), 1)
                self.assertEqual(details[0], f"object storage: it cannot be reached {why}")

    def test_large(self) -> None:
        """A large body may take longer than the time of a small request; the credentials are the same."""
        fake = self.fake()
        patience = LONG._replace(request=1.0, retries=0)
        engine = self.engines(fake.url, patience=patience).main
        engine.create("before", b"")
        fake.slow = 2 * patience.request
        self.assertIn("(TimedOut)", self.trouble(engine.create, "small", b"x").detail)
        large = bytes(LARGE + 1)
        engine.create("large", large)
        self.assertEqual(fake.objects["pre/large"][0], large)

    def test_full(self) -> None:
        """A quota of the storage is no fault of the credentials, before the first look or behind it."""
        for before in (True, False):
            fake = self.fake()
            engine = self.engines(fake.url).main
            if not before:
                engine.create("x", b"x")
            fake.answer = (403, "QuotaExceeded")
            with capturedLogs() as logs:
                full = self.trouble(engine.create, "y", b"y")
            self.assertIsInstance(full, StoreFull, full.detail)
            self.assertIn("(QuotaExceeded)", full.detail)
            self.assertEqual(logs, [])

    def test_unfit(self) -> None:
        """What somebody has to mend is logged once, tried again after ten seconds, and needs no restart."""
        fake = self.fake()
        engines = self.engines(fake.url)
        for status, code, said in (
            (403, "SignatureDoesNotMatch", "credentials are refused"), (401, "X", "credentials are refused"),
            (404, "NoSuchBucket", "no such bucket"), (501, "NotImplemented", "no conditional requests"),
        ):  # fmt: skip
            fake.answer = (status, code)
            with capturedLogs() as logs:
                for _ in range(3):
                    self.assertIn(said, self.trouble(engines.main.get, "x").detail)
                    self.time.advance(11)
            again = status == 401
            self.assertEqual([event["log_level"].name for event in logs], [] if again else ["critical"])
            self.assertNotIn(SECRET, str(logs))
            self.trouble(engines.main.get, "x")
            asked = len(fake.requests)
            self.time.advance(9)
            self.trouble(engines.main.get, "x")
            self.assertEqual(len(fake.requests), asked)
            self.time.advance(2)
        fake.answer = None
        self.assertRaises(NoSuchObject, engines.main.get, "x")

    def test_error_texts(self) -> None:
        """What is said of errors at work holds no address and no credentials, but S3's code."""
        fake = self.fake()
        engine = self.engines(fake.url).main
        self.assertEqual(engine.list("m"), [])
        for status, code in ((403, "SignatureDoesNotMatch"), (400, "InvalidRequest"), (500, "InternalError")):
            fake.answer = (status, code)
            for call, *args in (
                (engine.get, "x"), (engine.get_range, "x", 0, 3), (engine.create, "x", b""),
                (engine.list, "x"), (engine.delete, ["x"]),
            ):  # fmt: skip
                detail = self.trouble(call, *args).detail
                self.assertIn(str(status), detail)
                self.assertIn(f"({code})", detail)
                self.assertLess(len(detail), 220)


class TimeTests(EnginesCase):
    """The store's time of day."""

    def test_offset(self) -> None:
        """It is learned by the first call, and again after ten minutes or when our clock was set."""
        fake = self.fake(ahead=300.0)
        engines = self.engines(fake.url)
        self.assertEqual(engines.wall(), self.time.day)
        engines.learn_time()

        def difference() -> float:
            return engines.wall() - self.time.day

        self.assertApproximates(difference(), 300.0, 0.6)
        asked = len(fake.requests)
        self.time.advance(590)
        engines.learn_time()
        self.assertEqual(len(fake.requests), asked)
        fake.clock = lambda: self.time.day - 50
        self.time.advance(20)
        engines.learn_time()
        self.assertApproximates(difference(), -50.0, 0.6)
        # Our clock is set back by an hour, the store's is not.
        store = self.time.day - 50
        fake.clock = lambda: store
        self.time.day -= 3600
        engines.learn_time()
        self.assertApproximates(engines.wall(), store, 0.6)
        self.assertEqual(fake.objects, {})

    def test_one_machine(self) -> None:
        """Processes that look at the store at different moments of a second agree about the time."""
        fake = self.fake()
        walls = []
        for part in (0.05, 0.5, 0.95):
            self.time.day = 1_000_000_000 + part
            engines = self.engines(fake.url)
            engines.learn_time()
            walls.append(engines.wall() - part)
        self.assertEqual(walls, [1_000_000_000.0] * 3)

    def test_trouble(self) -> None:
        """What cannot be learned anew stays as it was."""
        fake = self.fake(ahead=300.0)
        engines = self.engines(fake.url)
        engines.learn_time()
        self.time.advance(700)
        fake.answer = (503, "SlowDown")
        self.trouble(engines.learn_time)
        self.assertApproximates(engines.wall() - self.time.day, 300.0, 0.6)
