"""Mail-like text, the same for the same seed.

Lives here: what the messages say.  How they are kept and what a server must
answer for them is told in ``datasets``.
"""

from __future__ import annotations

import base64
import random
import re
from functools import lru_cache

_WORDS = re.findall(
    r"\w+",
    """mail server quarterly report please find attached regards meeting tomorrow invoice number the a of
    and to in is that it was for on are with as his they be at one have this from or had by hot but some
    what there we can out other were all your when up use word how said an each she which do their time if""",
)

#: Text is made once and cut from; a prime length keeps the cuts of a big message unlike one another.
_POOL_OCTETS = 1_048_573


@lru_cache(maxsize=4)
def _pool(seed: int) -> bytes:
    """Lines of text with LF ends; many hold dots, about one in 150 begins with one."""
    rng = random.Random(seed)
    lines: list[str] = []
    size = 0
    while size < _POOL_OCTETS:
        line = " ".join(rng.choices(_WORDS, k=rng.randint(4, 13)))
        luck = rng.random()
        if luck < 0.004:
            line = "." + line
        elif luck < 0.007:
            line = rng.choice([".", "..", "..."])
        elif luck < 0.10:
            line = ""
        elif luck < 0.30:
            line += "."
        lines.append(line)
        size += len(line) + 1
    return "\n".join(lines).encode("ascii")[:_POOL_OCTETS]


def _text(seed: int, start: int, octets: int) -> bytes:
    """``octets`` octets of text that begin at a line of their own and end with LF."""
    pool = _pool(seed)
    start %= _POOL_OCTETS
    start = pool.find(b"\n", start) + 1
    parts: list[bytes] = []
    missing = octets - 1
    while missing > 0:
        part = pool[start : start + missing]
        parts.append(part)
        missing -= len(part)
        start = 0
    return b"".join(parts) + b"\n"


def message(seed: int, number: int, octets: int, attachment: bool = False) -> bytes:
    """A whole message with LF line ends.

    :param octets: how large about; never smaller than its headers.
    :param attachment: most of it is one base64 part, as in most large mail,
        between two short texts; otherwise all is text with dots at line starts.
    """
    boundary = f"=_part_{seed}_{number}"
    kind = f'multipart/mixed; boundary="{boundary}"' if attachment else "text/plain; charset=us-ascii"
    head = (
        f"Return-Path: <sender{number % 17}@example.org>\n"
        f"Received: from mx.example.org (mx.example.org [192.0.2.{number % 250 + 1}])\n"
        f"\tby mail.example.net with ESMTPS id {seed:x}{number:08x};\n"
        f"\tMon, 13 Nov 2023 {number // 3600 % 24:02d}:{number // 60 % 60:02d}:{number % 60:02d} +0000\n"
        f"Message-ID: <{seed}.{number}@example.org>\n"
        f"From: A Sender <sender{number % 17}@example.org>\n"
        f"To: user@example.net\n"
        f"Subject: Message {number} about {_WORDS[number % len(_WORDS)]}\n"
        f"MIME-Version: 1.0\nContent-Type: {kind}\n\n"
    ).encode("ascii")
    if not attachment:
        return head + _text(seed, number * 7919, max(octets - len(head), 2))
    text = f"--{boundary}\nContent-Type: text/plain\n\n".encode("ascii") + _text(seed, number * 7919, 2000)
    text += b".\n..two dots\n"
    name = (
        f'--{boundary}\nContent-Type: application/octet-stream; name="{number}.bin"\n'
        "Content-Transfer-Encoding: base64\n\n"
    ).encode("ascii")
    last = f"--{boundary}--\n".encode("ascii")
    room = max(octets - len(head) - len(text) - len(name) - len(last), 77)
    block = base64.encodebytes(random.Random(seed * 1_000_003 + number).randbytes(57 * 13_797))
    lines = (block * (room // len(block) + 1))[: room // 77 * 77]
    return head + text + name + lines + last
