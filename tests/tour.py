"""The experiments of ``docs/pop3-by-example.rst``: ``python -m tests.tour`` puts them into the pages.

A page has ``.. conversation: NAME`` before each block.  What differs each time, such as times and random
text, is left as the page has it, as long as all else is the same.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import poplib
import re
import shutil
import smtplib
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from pop3toy.observe.colours import Paint, coloured, plain
from pop3toy.observe.explain.explainer import Explainer
from pop3toy.observe.explained import ExplainedTranscript
from pop3toy.observe.line_writer import LineWriter
from pop3toy.testing.in_memory import MemoryClient, MemoryServer

from .realserver import RealServer, wait_until

CHECKOUT = Path(__file__).parent.parent
#: The page of each language.
PAGES = {"en": "docs/pop3-by-example.rst", "it": "docs/pop3-by-example.it.rst"}

_HELLO = b"""\
From: Ada <ada@example.org>\r
To: user@example.org\r
Subject: Hello\r
\r
This is the first line.\r
.hidden begins with a dot.\r
"""
_SECOND = b"From: Bob <bob@example.org>\r\nSubject: Second\r\n\r\nShort.\r\n"

#: What is different each time, and what stands for it in a comparison.
_CHANGING = (
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:PORT"),
    (re.compile(r"\d+\.\d{3} s\b"), "TIME s"),
    (re.compile(r"<[0-9a-f.]{16,}@pop3toy>"), "<CHALLENGE>"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "DIGEST"),
    # Of a challenge and its answer, and of a proof.
    (re.compile(r"(?<=S: \+ )[A-Za-z0-9+/=]{20,}|(?<=C: )[A-Za-z0-9+/=]{40,}"), "BASE64"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "QUEUE-ID"),
    (re.compile(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}"), "DATE"),
    (re.compile(r"(\[\d+\] S: \d+ )\w+-[\w-]+"), r"\1UID"),
    (re.compile(r"TLSv1\.\d|TLS_\w+"), "TLS"),
    (re.compile(r"pop3toy-[\d.]+"), "VERSION"),
)


def settled(text: str) -> str:
    """A conversation without what is different each time."""
    for pattern, replacement in _CHANGING:
        text = pattern.sub(replacement, text)
    return text


# -- the experiments ---------------------------------------------------------------------


class _Memory:
    """The toy in memory, and what it explains."""

    def __init__(self, language: str, paint: Paint = plain) -> None:
        self.lines: list[str] = []
        writer = LineWriter(lambda: self, started=False)  # type: ignore[arg-type, return-value]
        explained = ExplainedTranscript(writer, Explainer(language), paint)
        self.server = MemoryServer({"user": [_HELLO, _SECOND]}, {"user": "pass"}, observers=[explained])
        # As with --show-secrets.
        self.server.factory.observers.secrets = True

    encoding = "utf-8"

    def write(self, text: str) -> None:
        """Of a stream."""
        self.lines += text.splitlines()

    def flush(self) -> None:
        """Of a stream."""

    def connect(self) -> MemoryClient:
        """A client."""
        return self.server.connect()

    def type(self, client: MemoryClient, *lines: str, seconds: float = 0.004) -> None:
        """Say lines one by one."""
        for line in lines:
            self.server.clock.advance(seconds)
            client.say(line)


def _telnet(world: _Memory) -> None:
    said = ("USER user", "PASS pass", "STAT", "LIST", "RETR 1", "DELE 1", "LIST", "QUIT")
    world.type(world.connect(), *said, seconds=3.0)


def _first(world: _Memory) -> None:
    client = world.connect()
    world.type(client, "USER user", "PASS pass", "LIST", "DELE 1", seconds=3.0)
    client.drop()
    world.server.pump()


def _two_at_once(world: _Memory) -> None:
    first, second = world.connect(), world.connect()
    world.type(first, "USER user", "PASS pass")
    world.type(second, "USER user", "PASS pass")
    world.type(first, "QUIT")
    world.type(second, "USER user", "PASS pass", "QUIT")


def _lost(world: _Memory) -> None:
    client = world.connect()
    world.type(client, "USER user", "PASS pass", "DELE 1")
    client.drop()
    world.server.pump()
    world.type(world.connect(), "USER user", "PASS pass", "STAT", "QUIT")


def _apop(world: _Memory) -> None:
    client = world.connect()
    timestamp = client.greeting[client.greeting.index("<") :]
    digest = hashlib.md5(f"{timestamp}pass".encode()).hexdigest()
    world.type(client, f"APOP user {digest}", "QUIT")
    world.type(world.connect(), "USER user", "PASS pass", "QUIT")


def _base64(world: _Memory) -> None:
    plain = base64.b64encode(b"\0user\0pass").decode()
    world.type(world.connect(), f"AUTH PLAIN {plain}", "QUIT")
    client = world.connect()
    world.server.clock.advance(0.004)
    [challenge] = client.say("AUTH CRAM-MD5")
    digest = hmac.new(b"pass", base64.b64decode(challenge[2:]), "md5").hexdigest()
    world.type(client, base64.b64encode(f"user {digest}".encode()).decode(), "QUIT")


def _one_packet(world: _Memory) -> None:
    world.connect().say("USER user", "PASS pass", "STAT", "RETR 2", "QUIT")


def _wrong_track(world: _Memory) -> None:
    for line in ("GET / HTTP/1.1", "USER: user", "EHLO me"):
        client = world.connect()
        world.type(client, line, "QUIT")


def _curl(server: RealServer, folder: Path) -> None:
    url = f"pop3://user:pass@127.0.0.1:{server.port}/1"
    subprocess.run(["curl", "-s", url], check=True, stdout=subprocess.DEVNULL)


def _tls(server: RealServer, folder: Path) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    client = poplib.POP3("127.0.0.1", server.port)
    client.stls(context)
    client.user("user")
    client.pass_("pass")
    client.quit()


def _in_and_out(server: RealServer, folder: Path) -> None:
    with smtplib.SMTP("127.0.0.1", server.port_for("SMTP"), local_hostname="client.example") as sender:
        text = "From: Me <me@example.org>\r\nTo: You\r\nSubject: Hi\r\n\r\n.dot\r\n"
        sender.sendmail("bounces@example.org", ["user@example.org"], text)
    client = poplib.POP3("127.0.0.1", server.port)
    client.user("user")
    client.pass_("pass")
    client.retr(2)
    client.dele(2)
    client.quit()


def _thunderbird(server: RealServer, folder: Path) -> None:
    from .clients.thunderbird import Thunderbird

    with Thunderbird(server.port, folder) as thunderbird:
        thunderbird.get_messages()


_IN_MEMORY: dict[str, Callable[[_Memory], None]] = {
    "first": _first,
    "telnet": _telnet,
    "two-at-once": _two_at_once,
    "lost": _lost,
    "apop": _apop,
    "base64": _base64,
    "one-packet": _one_packet,
    "wrong-track": _wrong_track,
}
#: Each with the options that its server has, and how many sessions there are.
_REAL: dict[str, tuple[Callable[[RealServer, Path], None], tuple[str, ...], int]] = {
    "curl": (_curl, (), 1),
    "thunderbird": (_thunderbird, (), 1),
    "tls": (_tls, ("--self-signed",), 1),
    "in-and-out": (_in_and_out, ("--smtp-port", "0", "--hostname", "mx.example.org"), 2),
}
#: In the order of the pages.
EXPERIMENTS = (
    "telnet", "curl", "thunderbird", "two-at-once", "lost", "one-packet", "apop", "base64", "tls",
    "in-and-out", "wrong-track",
)  # fmt: skip


def missing(name: str) -> str | None:
    """Why an experiment cannot be made here; ``None`` if it can."""
    if name == "curl" and shutil.which("curl") is None:
        return "curl is not installed"
    if name == "thunderbird":
        from .clients.thunderbird_process import missing as no_thunderbird

        return no_thunderbird()
    return None


def conversation(name: str, language: str) -> list[str]:
    """Make an experiment; what the server has written then."""
    if name in _IN_MEMORY:
        world = _Memory(language)
        _IN_MEMORY[name](world)
        world.server.stop()
        return world.lines
    act, options, sessions = _REAL[name]
    folder = Path(tempfile.mkdtemp())
    message, transcript = folder / "hello.eml", folder / "transcript"
    message.write_bytes(_HELLO)
    written = (
        "--message",
        str(message),
        "--transcript",
        str(transcript),
        "--explain",
        "--language",
        language,
    )
    with RealServer(*options, *written) as server:
        (folder / "client").mkdir()
        act(server, folder / "client")
        wait_until(
            lambda: transcript.read_text("utf-8").count("-- closed (") == sessions, "the sessions' end"
        )
    found = transcript.read_text("utf-8").splitlines()
    shutil.rmtree(folder)
    return found


# -- the pages ----------------------------------------------------------------------------


def block(lines: list[str]) -> str:
    """A conversation as it stands in a page."""
    return "".join(f"    {line}".rstrip() + "\n" for line in lines)


def pieces(text: str) -> list[str]:
    """A page, cut: text, an experiment's name, its conversation, text, and so on."""
    return re.split(r"^\.\. conversation: (.*)\n\n::\n\n((?:    .*\n)*)", text, flags=re.MULTILINE)


#: The picture in README.rst.
PICTURE = CHECKOUT / "docs" / "explained.svg"
_CHALLENGE = "<0b1db3362ca2399fde139348d0179570@pop3toy>"


def picture() -> str:
    """The first experiment as a terminal shows it, in colours: SVG, with nothing from elsewhere."""
    from rich.console import Console
    from rich.text import Text

    world = _Memory("en", coloured())
    _first(world)
    world.server.stop()
    console = Console(
        record=True, width=112, file=io.StringIO(), force_terminal=True, color_system="standard", _environ={}
    )
    for line in world.lines:
        console.print(Text.from_ansi(re.sub(r"<[0-9a-f]{16,}@pop3toy>", _CHALLENGE, line)))
    drawn = console.export_svg(title="twistd -n pop3toy --port 2590 --explain", unique_id="explained")
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)


def words(drawn: str) -> list[str]:
    """What can be read in a picture."""
    return re.sub(r"<style>.*?</style>|<[^>]*>", " ", drawn, flags=re.DOTALL).split()


def main(*names: str) -> None:
    """Make the experiments, or those that are named, and put them into the pages."""
    for language, name in [*PAGES.items(), ("en", "README.rst")]:
        path = CHECKOUT / name
        found = pieces(path.read_text("utf-8"))
        for at in range(1, len(found), 3):
            experiment, shown = found[at : at + 2]
            made = shown
            if (not names or experiment in names) and missing(experiment) is None:
                made = block(conversation(experiment, language))
            if settled(made) == settled(shown):
                made = shown
            found[at] = f".. conversation: {experiment}\n\n::\n\n"
            found[at + 1] = made
        path.write_text("".join(found), "utf-8")
    if words(PICTURE.read_text("utf-8") if PICTURE.exists() else "") != words(drawn := picture()):
        PICTURE.write_text(drawn, "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
