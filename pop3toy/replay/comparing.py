"""Where a reply differs from the one that was recorded, and what of that counts."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from .recording import Hidden, Turn

__all__ = ["IGNORABLE", "Difference", "compare"]

#: What may be ignored, and what that is.
IGNORABLE = {
    "uids": "unique-ids in UIDL",
    "sizes": "octets in STAT and LIST",
    "dates": "the header fields of messages that are made for each delivery: Date, Received, Message-ID ...",
    "capabilities": "what CAPA tells",
    "messages": "what RETR and TOP give, but for whether they do",
}

#: Header fields that differ between two deliveries of one message.
_MADE = re.compile(
    r"(?i)(date|received|message-id|return-path|delivered-to|x-original-to|delivery-date|status|x-uidl)\s*:"
)


class Difference(NamedTuple):
    """A reply that is another one."""

    command: str
    #: Lines of what was recorded, and of what came now.
    recorded: Sequence[str]
    now: Sequence[str]


def compare(
    turn: Turn, now: Sequence[str], *, ignore: Collection[str] = (), exact: bool = False
) -> Difference | None:
    """Compare a reply.

    Unless all is compared exactly, the text behind ``+OK`` and ``-ERR`` does not count (response codes and
    the numbers of STAT, LIST and UIDL do), nor the timestamp of the greeting, SASL challenges, and the order
    of capabilities.

    :param turn: what was recorded.
    :param now: the lines of the reply that came, as :func:`~pop3toy.replay.recording.shown` shows them.
    :param ignore: of :data:`IGNORABLE`.
    :return: ``None`` if nothing differs that counts.
    """
    recorded = [line for line in turn.reply if isinstance(line, str)]
    if not turn.reply:
        # The connection was lost: whatever comes now is as good.
        return None
    if exact:
        same = _fits(turn.reply, now, cut=turn.cut)
    else:
        same = _fits(
            _normal(turn.keyword, turn.line, turn.reply, ignore),
            [line for line in _normal(turn.keyword, turn.line, now, ignore) if isinstance(line, str)],
            cut=turn.cut,
        )
    return None if same else Difference(turn.line, recorded, list(now))


def _fits(recorded: Sequence[str | Hidden], now: Sequence[str], *, cut: bool) -> bool:
    """Whether lines are those that were recorded, as far as they were."""
    at = 0
    for place, line in enumerate(recorded):
        if isinstance(line, Hidden):
            # As many as were hidden; what was in them nobody knows.
            at += line.lines
            continue
        if at >= len(now):
            return False
        last = cut and place == len(recorded) - 1
        if not (now[at].startswith(line) if last else _same_line(line, now[at])):
            return False
        at += 1
    return cut or at == len(now)


def _same_line(recorded: str, now: str) -> bool:
    # A transcript cuts long lines: `... (1234 more)`.
    found = re.fullmatch(r"(.*) \.\.\. \((\d+) more\)", recorded, re.DOTALL)
    if found is not None and now.startswith(found[1]):
        return True
    return recorded == now


def _normal(
    keyword: str, command: str, lines: Sequence[str | Hidden], ignore: Collection[str]
) -> Sequence[str | Hidden]:
    """A reply without what does not count."""
    first, rest = lines[0], list(lines[1:])
    head = _normal_head(keyword, command, first, ignore) if isinstance(first, str) else first
    if keyword == "CAPA" and rest:
        names = sorted(
            line for line in rest if isinstance(line, str) and not line.upper().startswith("IMPLEMENTATION")
        )
        return [head, *([] if "capabilities" in ignore else names)]
    if keyword in ("LIST", "UIDL") and rest:
        what = "sizes" if keyword == "LIST" else "uids"
        return [head, *(_without_second(line) if what in ignore else line for line in rest)]
    if keyword in ("RETR", "TOP"):
        if "messages" in ignore:
            return [head]
        return [head, *(_without_made(rest) if "dates" in ignore else rest)]
    return [head, *rest]


def _normal_head(keyword: str, command: str, line: str, ignore: Collection[str]) -> str:
    if line.startswith("+OK"):
        numbers = line.split(" ")[1:3]
        single = keyword == "STAT" or (keyword in ("LIST", "UIDL") and " " in command.strip())
        if single and len(numbers) == 2:
            what = "uids" if keyword == "UIDL" else "sizes"
            return f"+OK {numbers[0]} {'*' if what in ignore else numbers[1]}"
        return "+OK"
    if line.startswith("-ERR"):
        code = re.match(r"-ERR (\[[^\]]*\])", line)
        return f"-ERR {code[1].upper()}" if code else "-ERR"
    return "+" if line.startswith("+") else line


def _without_second(line: str | Hidden) -> str | Hidden:
    if isinstance(line, Hidden) or " " not in line:
        return line
    return line.partition(" ")[0] + " *"


def _without_made(lines: Sequence[str | Hidden]) -> list[str | Hidden]:
    """A message without the fields that each delivery makes anew."""
    kept: list[str | Hidden] = []
    header, skipping = True, False
    for line in lines:
        if header and isinstance(line, str):
            header = line != ""
            skipping = bool(_MADE.match(line)) or (skipping and line[:1] in (" ", "\t"))
            if skipping:
                continue
        kept.append(line)
    return kept
