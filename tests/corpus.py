"""Awkward messages, and what a POP3 server must send for each of them.

Here live the messages that break mail programs, their expected wire form, and
a writer that lays them down in a Maildir under the names that real delivery
programs use.  The wire form is computed from its definition alone (RFC 1939
section 3, RFC 5322 section 2.1) and by another method than the server's: this
module imports nothing of pop3toy, and must not, or the tests would compare the
server with itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

__all__ = ["Awkward", "Stored", "awkward_messages", "fill_maildir", "make_maildir", "stuffed", "wire_form"]

#: Sizes in which servers like to read files; lines are laid across their multiples.
CHUNKS = (64 * 1024, 256 * 1024)
MEBIBYTE = 1024 * 1024
#: What most messages of the corpus begin with: 7 header lines are enough for every client.
HEADER = (
    b"Return-Path: <bob@example.org>\n"
    b"From: Bob <bob@example.org>\n"
    b"To: ann@example.net\n"
    b"Date: Sat, 01 Jun 2024 10:00:00 +0000\n"
    b"Message-ID: <%s@example.org>\n"
    b"Subject: %s\n"
)


def wire_form(stored: bytes) -> bytes:
    """What RETR sends of a stored message, before dot-stuffing.

    LF and CRLF both end a line and become CRLF; a CR anywhere else is data; the
    last line gets its CRLF if it has none; a message without any empty line
    (CRs aside) gets one at its end, which closes its headers.
    """
    *ended, rest = stored.split(b"\n")
    lines = [line.removesuffix(b"\r") for line in ended]
    if rest:
        lines.append(rest)
    if all(line.strip(b"\r") for line in lines):
        lines.append(b"")
    return b"".join(line + b"\r\n" for line in lines)


def stuffed(wire: bytes) -> bytes:
    """The octets between ``+OK`` and the final dot for a message in wire form (RFC 1939 section 3)."""
    lines = wire.split(b"\r\n")
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)


@dataclass(frozen=True)
class Awkward:
    """One message that some mail program has got wrong."""

    #: Short, unique, one word with hyphens.
    name: str
    #: The octets of its file.
    stored: bytes

    @cached_property
    def wire(self) -> bytes:
        """Its wire form before dot-stuffing; its length is what LIST must say."""
        return wire_form(self.stored)

    @property
    def longest_line(self) -> int:
        """Octets of its longest line in wire form, with CRLF."""
        return max(map(len, self.wire.split(b"\r\n"))) + 2


@dataclass(frozen=True)
class Stored:
    """A message of the corpus in its place in a Maildir."""

    message: Awkward
    path: Path


def _header(name: str) -> bytes:
    return HEADER % (name.encode(), name.encode())


def _with(name: str, body: bytes, *, crlf: bool = False) -> Awkward:
    """A message with the common header, an empty line and this very body."""
    head = _header(name) + b"\n"
    return Awkward(name, (head.replace(b"\n", b"\r\n") if crlf else head) + body)


def _laid_across(name: str, edge: int, before: bytes, after: bytes, rest: bytes = b"The end.\n") -> Awkward:
    """A message whose octets at each of the first multiples of ``edge`` are ``before`` | ``after``."""
    stored = _header(name) + b"\n"
    for multiple in (edge, 2 * edge):
        room = multiple - len(before) - len(stored)
        lines, odd = divmod(room, 64)
        stored += (b"x" * 63 + b"\n") * (lines - 1) + b"y" * (odd + 64) + before + after
    return Awkward(name, stored + rest)


def _ending_at(name: str, octets: int, end: bytes) -> Awkward:
    """A message of exactly so many octets that ends with ``end``."""
    head = _header(name) + b"\n"
    lines, odd = divmod(octets - len(head) - len(end), 64)
    return Awkward(name, head + (b"x" * 63 + b"\n") * lines + b"z" * odd + end)


def _dice(name: str, seed: int, octets: int) -> Awkward:
    """A body thrown from the octets that have a meaning somewhere; the same in every run."""
    dice = random.Random(seed)
    faces = (b"\r", b"\n", b".", b"\r\n", b"\n.", b"\r\n.", b"\n.\n", b"\r.\r", b"From ", b"word ", b"\xe9")
    body = b"".join(dice.choices(faces, k=octets // 2))
    return _with(name, body)


def _chunk_edges() -> Iterable[Awkward]:
    """Everything that must not be torn, torn by each likely read size."""
    tears: dict[str, tuple[bytes, bytes]] = {
        "dot-after-edge": (b"\n", b".dotted\n"),
        "lone-dot-after-edge": (b"\n", b".\n"),
        "dot-before-edge": (b"\n.", b"dotted\n"),
        "lone-dot-before-edge": (b"\n.", b"\n"),
        "crlf-dot-after-edge": (b"\r\n", b".\r\n"),
        "cr-lf-torn": (b"\r", b"\nnext\n"),
        "cr-lf-dot-torn": (b"\r", b"\n.\r\n"),
        "cr-data-torn": (b"\r", b"data\n"),
        "cr-cr-lf-torn": (b"\r", b"\r\nnext\n"),
        "cr-cr-lf-torn-late": (b"\r\r", b"\nnext\n"),
        "blank-lines-torn": (b"\n\n", b"\n\nnext\n"),
    }
    for edge in CHUNKS:
        for name, (before, after) in tears.items():
            yield _laid_across(f"{name}-{edge // 1024}k", edge, before, after)
        yield _ending_at(f"ends-with-lf-at-{edge // 1024}k", edge, b"\n")
        yield _ending_at(f"ends-with-cr-at-{edge // 1024}k", edge, b"\r")
        yield _ending_at(f"ends-with-dot-at-{edge // 1024}k", edge, b"\n.")
        yield _ending_at(f"lf-alone-after-{edge // 1024}k", edge + 1, b"\r\n")


def _header_edges() -> Iterable[Awkward]:
    """Headers that end, or do not end, where a chunk does."""
    for edge in CHUNKS:
        name = f"header-ends-at-{edge // 1024}k"
        head = _header(name)
        filling = b"X-Filling: " + b"f" * 60 + b"\n"
        while len(head) + len(filling) < edge - 200:
            head += filling
        head += b"X-Last: " + b"l" * (edge - 1 - len(head) - len(b"X-Last: ")) + b"\n"
        assert len(head) == edge
        yield Awkward(name, head + b"\nThe body.\n")
        yield Awkward(f"headers-only-{edge // 1024}k", head)


def awkward_messages(*, large: bool = True) -> list[Awkward]:
    """The corpus, in an order that never changes.

    :param large: with the message of 10 MB.
    """
    octets = bytes(range(256))
    corpus = [
        _with("plain", b"Hello.\n"),
        _with("plain-crlf", b"Hello.\r\n", crlf=True),
        _with("mixed-line-ends", b"lf\ncrlf\r\nlf\n\r\n\ncrlf\r\n"),
        _with("crlf-header-lf-body", b"one\ntwo\n", crlf=True),
        _with("lone-dot", b"before\n.\nafter\n"),
        _with("lone-dot-crlf", b"before\r\n.\r\nafter\r\n", crlf=True),
        _with("lone-dot-first", b".\nafter\n"),
        _with("lone-dot-last", b"before\n.\n"),
        _with("lone-dot-no-newline", b"before\n."),
        _with("two-dots-no-newline", b"before\n.."),
        _with("dots-everywhere", b".\n..\n...\n. \n.x\n..x\n x.\n \n.\n.\n\n.\n\n..\n"),
        _with("dots-everywhere-crlf", b".\r\n..\r\n...\r\n.x\r\n\r\n.\r\n\r\n..\r\n", crlf=True),
        _with("a-thousand-dots", b".\n" * 1000),
        Awkward("dot-first-octet", b".dotted: header\n" + _header("dot-first-octet") + b"\nbody\n"),
        _with("no-final-newline", b"one\ntwo"),
        _with("no-final-newline-crlf", b"one\r\ntwo", crlf=True),
        _with("bare-cr", b"one\rtwo\r\rthree\n\rfour\n"),
        _with("bare-cr-dot", b"one\r.\n\r.\r\n.\r.\n.\rtwo\n"),
        _with("cr-cr-lf", b"one\r\r\ntwo\r\r\r\n\r\r\n"),
        _with("cr-at-the-end", b"one\r"),
        _with("cr-cr-at-the-end", b"one\n\r\r"),
        _with("only-crs", b"\r" * 100),
        _with("nul", b"a\0b\n\0\n.\0\n\0.\nthe end\0\n"),
        Awkward("nul-in-header", _header("nul-in-header") + b"X-Nul: a\0b\n\nbody\n"),
        Awkward("latin-1-header", _header("latin-1-header") + b"X-Name: J\xfcrgen Stra\xdfe\n\nbody\n"),
        Awkward("utf-8-header", _header("utf-8-header") + "X-Name: Jürgen 李\n\nbody\n".encode()),
        _with("8-bit-body", b"\xe4\xf6\xfc \xff\xfe \x80\n" + "ÄÖÜ 🐍\n".encode()),
        _with("every-octet", octets + octets[::-1] + b"".join(bytes((o, 10)) for o in range(256))),
        _with("control-z-and-del", b"\x1a\n\x04\n\x7f\n\x1b[2J\n"),
        _with("from-lines", b"From here on\n>From there\n>>From\nFrom bob Sat Jun  1\n\nFrom \n"),
        Awkward(
            "mbox-from-first",
            b"From bob@example.org Sat Jun  1 10:00:00 2024\n" + _header("mbox-from-first") + b"\nbody\n",
        ),
        _with("looks-like-replies", b"+OK\n-ERR\n+OK 1 2\n+ \nQUIT\n.\n+OK\n"),
        _with("empty-body", b""),
        _with("empty-body-crlf", b"", crlf=True),
        Awkward("headers-only", _header("headers-only")),
        Awkward("headers-only-no-newline", _header("headers-only-no-newline")[:-1]),
        Awkward("headers-only-crlf", _header("headers-only-crlf").replace(b"\n", b"\r\n")),
        Awkward("headers-only-cr-at-the-end", _header("headers-only-cr")[:-1] + b"\r"),
        Awkward("no-colon-anywhere", b"just a line\nand one more\n"),
        Awkward("empty-file", b""),
        Awkward("one-lf", b"\n"),
        Awkward("one-crlf", b"\r\n"),
        Awkward("one-cr", b"\r"),
        Awkward("one-dot", b"."),
        Awkward("one-dot-line", b".\n"),
        Awkward("body-without-header", b"\nbody\n"),
        _with("blank-lines", b"\n" * 500),
        _with("trailing-blanks", b"one \ntwo\t\n \n\t\n   three   \n\n\n"),
        Awkward("folded-header", _header("folded-header") + b"X-Folded: a\n b\n\tc\n d\n\nbody\n"),
        Awkward("long-header", _header("long-header") + b"X-Long: " + b"h" * 70_000 + b"\n\nbody\n"),
        Awkward("many-headers", _header("many-headers") + b"X-Many: y\n" * 10_000 + b"\nbody\n"),
        _with("line-lengths", b"".join(b"l" * n + b"\n" for n in (78, 510, 512, 998, 1000, 1022, 1024))),
        _with("line-lengths-2k", b"".join(b"l" * n + b"\n" for n in range(2040, 2052))),
        _with("line-lengths-8k", b"".join(b"l" * n + b"\n" for n in range(8180, 8200))),
        _with("line-of-1-mb", b"m" * 1_000_000 + b"\n.\n"),
        _with("line-of-1-mb-no-newline", b"." + b"m" * 1_000_000),
        *_chunk_edges(),
        *_header_edges(),
        _dice("dice-short", 1, 5_000),
        _dice("dice-long", 2, 600_000),
    ]
    if large:
        corpus.append(_with("ten-megabytes", (b"." + b"m" * 70 + b"\n") * (10 * MEBIBYTE // 72)))
    names = [message.name for message in corpus]
    assert len(set(names)) == len(names)
    return corpus


#: How delivery programs name a file: (folder, name); ``time`` is what orders them.
_NAMING: Sequence[Callable[[int, Awkward], tuple[str, str]]] = (
    # qmail, and the Maildir paper itself.
    lambda time, _: ("new", f"{time}.4711.mail.example.net"),
    # Dovecot with both sizes, seen and not.
    lambda time, m: (
        "cur",
        f"{time}.M{time % 997}P4711.mail,S={len(m.stored)},W={len(m.wire)}:2,S",
    ),
    lambda time, m: ("new", f"{time}.M{time % 991}P4711.mail,S={len(m.stored)},W={len(m.wire)}"),
    # Dovecot and Courier with the size on disk alone, and Dovecot's keywords.
    lambda time, m: ("cur", f"{time}.M5P4711.mail,S={len(m.stored)}:2,RSab"),
    # Postfix: device and inode in hexadecimal.
    lambda time, _: ("new", f"{time}.Vfe01I{time:x}M{time % 983:06d}.mail.example.net"),
    # Courier: a name of more than 70 octets, which can be no unique-id as it is.
    lambda time, m: (
        "cur",
        f"{time}.M000042P00004711V{'0' * 12}0801I{time:016x}_0.mail-{'long' * 6}.example.net"
        f",S={len(m.stored)}:2,",
    ),
    # Moved into cur/ without any flags, as some programs do.
    lambda time, _: ("cur", f"{time}.R{time % 977}.mail"),
    # A host name with the escapes of the Maildir paper (slash and colon), and Python's mailbox module.
    lambda time, _: ("new", rf"{time}.Q1.host\057with\072marks"),
    lambda time, _: ("cur", f"{time}.M7P4711Q{time % 971}.mail:2,"),
)


def make_maildir(maildir: Path) -> Path:
    """Make an empty Maildir, with its parents."""
    for folder in ("tmp", "new", "cur"):
        (maildir / folder).mkdir(parents=True)
    return maildir


def fill_maildir(maildir: Path, messages: Iterable[Awkward]) -> list[Stored]:
    """Write the messages into a Maildir, in their order, under names of every style.

    :param maildir: is made if it is not there.
    :return: what lies where, in the order in which a server must number it:
        by the time of delivery, which the names begin with.
    """
    if not maildir.is_dir():
        make_maildir(maildir)
    stored = []
    for position, message in enumerate(messages):
        folder, name = _NAMING[position % len(_NAMING)](1_700_000_000 + position, message)
        path = maildir / folder / name
        path.write_bytes(message.stored)
        stored.append(Stored(message, path))
    return stored
