"""The faults: of each a function, the checks that must find it, and what server and client need for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from .badserver import Fault, Session

__all__ = ["ALLOWED", "FAULTS", "OURS", "Ours", "Planted", "instead", "languages"]

Answer = Callable[[], bytes]


class Ours(NamedTuple):
    """A fault of ``pop3toy.testing``, with what is said of it, and who must find it."""

    kind: str
    checks: str
    words: dict[str, Any] = {}
    tls: str = "none"


class Planted(NamedTuple):
    """A row: a fault, and who must find it.

    :ivar tls: how the server is spoken to.
    :ivar kind: ``removing`` if messages may be marked, ``mail`` if they are also brought, ``idle`` and
        ``public`` for what the client is told of time and network, or a certificate's kind.
    """

    name: str
    fault: Fault
    checks: str
    tls: str = "none"
    kind: str = ""


def verb_of(line: bytes) -> bytes:
    """The command's keyword in capitals; empty for the greeting."""
    return b"".join(line.split()[:1]).upper()


def edit(commands: str, change: Callable[[bytes], bytes]) -> Fault:
    """Change the answers to commands that match."""

    def fault(session: Session, line: bytes, answer: Answer) -> bytes:
        return change(answer()) if _is(commands, line) else answer()

    return fault


def swap(commands: str, pattern: bytes, new: bytes, count: int = 0) -> Fault:
    """Change a pattern in the answers to commands that match."""
    return edit(commands, lambda said: re.sub(pattern, new, said, count=count))


def instead(
    commands: str, said: bytes, *, after_login: bool | None = None, within_tls: bool | None = None
) -> Fault:
    """Say something else without asking the right server."""

    def fault(session: Session, line: bytes, answer: Answer) -> bytes:
        meant = after_login in (None, session.logged_in) and within_tls in (None, session.encrypted)
        return said if meant and _is(commands, line) else answer()

    return fault


def ask(commands: str, pattern: bytes, new: bytes) -> Fault:
    """Ask the right server something else."""

    def fault(session: Session, line: bytes, answer: Answer) -> bytes:
        return session.ask(re.sub(pattern, new, line)) if _is(commands, line) else answer()

    return fault


def flag(name: str, value: object = True) -> Fault:
    """Set what the session knows how to do."""

    def fault(session: Session, line: bytes, answer: Answer) -> bytes:
        setattr(session, name, value)
        return answer()

    return fault


def both(outer: Fault, inner: Fault) -> Fault:
    """One fault in front of another."""

    def fault(session: Session, line: bytes, answer: Answer) -> bytes:
        return outer(session, line, lambda: inner(session, line, answer))

    return fault


def _is(commands: str, line: bytes) -> bool:
    """Whether a line, without its end, is one of these."""
    return bool(re.fullmatch(commands.encode(), line.rstrip(b"\r\n"), re.IGNORECASE | re.DOTALL))


def capa(
    pattern: bytes, new: bytes, *, after_login: bool | None = None, within_tls: bool | None = None
) -> Fault:
    """Change what CAPA says."""

    def fault(session: Session, line: bytes, answer: Answer) -> bytes:
        meant = after_login in (None, session.logged_in) and within_tls in (None, session.encrypted)
        return re.sub(pattern, new, answer()) if meant and verb_of(line) == b"CAPA" else answer()

    return fault


def announce(line: bytes, fault: Fault) -> Fault:
    """One more capability, and a fault in it."""
    return both(fault, capa(rb"\r\n\.\r\n", b"\r\n%b\r\n.\r\n" % line))


def closes(commands: str) -> Fault:
    """Close instead of an answer."""
    return instead(commands, b"")


def lower_case_refused(session: Session, line: bytes, answer: Answer) -> bytes:
    """Keywords in capitals alone."""
    verb = line.split()[:1]
    return (
        answer()
        if verb == [one.upper() for one in verb] or session.exchange
        else b"-ERR capitals, please\r\n"
    )


def second_mistake(session: Session, line: bytes, answer: Answer) -> bytes:
    """A second mistake closes."""
    said = answer()
    if said.startswith(b"-ERR"):
        session.notes["mistakes"] = session.notes.get("mistakes", 0) + 1
    return b"" if session.notes.get("mistakes", 0) > 1 else said


def bare_line_feeds_vanish(session: Session, line: bytes, answer: Answer) -> bytes:
    """A line with a bare LF is passed over."""
    if line and not line.endswith(b"\r\n"):
        session.notes["silent"] = True
        return b""
    return answer()


def pieces_refused(session: Session, line: bytes, answer: Answer) -> bytes:
    """A command that comes in several packets is not known."""
    return b"-ERR in one piece, please\r\n" if session.reads > 2 else answer()


def input_lost(session: Session, line: bytes, answer: Answer) -> bytes:
    """What came in one packet behind a command is lost."""
    session.buffer = b""
    return answer()


def unread_is_dropped(session: Session, line: bytes, answer: Answer) -> bytes:
    """The end of input ends all at once."""
    return b"" if line and session.ended() else answer()


def lock_for_nobody(session: Session, line: bytes, answer: Answer) -> bytes:
    """A second session is let in."""
    return answer().replace(b"-ERR [IN-USE]", b"+OK") if verb_of(line) == b"PASS" else answer()


def extra_lock_kept(session: Session, line: bytes, answer: Answer) -> bytes:
    """A lock outlives its session."""
    session.holds = True
    return answer() if verb_of(line) != b"QUIT" else b"+OK\r\n"


def other_way_round(session: Session, line: bytes, answer: Answer) -> bytes:
    """Every second session has the unique-ids in another order."""
    if not line:
        session.server.notes["sessions"] = session.server.notes.get("sessions", 0) + 1
    said = answer()
    if not _is("UIDL", line) or session.server.notes["sessions"] % 2:
        return said
    first, *lines, end = said.splitlines(keepends=True)
    uids = [one.split()[1] for one in lines][::-1]
    return first + b"".join(b"%d %b\r\n" % pair for pair in enumerate(uids, 1)) + end


def upper_and_lower(session: Session, line: bytes, answer: Answer) -> bytes:
    """Two unique-ids that differ in case."""
    return (
        answer()
        if not _is("UIDL", line)
        else re.sub(rb"(?m)^2 \S+", b"2 A", re.sub(rb"(?m)^1 \S+", b"1 a", answer()))
    )


def changing(session: Session, line: bytes, answer: Answer) -> bytes:
    """A message that is another one each time."""
    if verb_of(line) != b"RETR":
        return answer()
    count = session.server.notes["count"] = session.server.notes.get("count", 0) + 1
    return answer().replace(b"Subject: ", b"Subject: %08d" % count)


def marks_nothing(session: Session, line: bytes, answer: Answer) -> bytes:
    """DELE says yes and does nothing."""
    return b"+OK\r\n" if verb_of(line) == b"DELE" else answer()


def numbers_move(session: Session, line: bytes, answer: Answer) -> bytes:
    """Behind DELE messages are counted anew."""
    said = answer()
    if verb_of(line) == b"DELE":
        session.notes["marked"] = True
    if _is("UIDL|LIST", line) and session.notes.get("marked"):
        first, *lines, end = said.splitlines(keepends=True)
        said = first + b"".join(b"%d %b" % (at, one.split(b" ")[1]) for at, one in enumerate(lines, 1)) + end
    return said


def removed_when_dropped(session: Session, line: bytes, answer: Answer) -> bytes:
    """DELE is final."""
    said = answer()
    if verb_of(line) == b"DELE":
        # Which ends the right server's session, and the client will hear of that soon enough.
        session.ask(b"QUIT\r\n")
    return said


def quit_without_update(session: Session, line: bytes, answer: Answer) -> bytes:
    """QUIT says yes and removes nothing."""
    return b"+OK\r\n" if verb_of(line) == b"QUIT" else answer()


def news_at_once(session: Session, line: bytes, answer: Answer) -> bytes:
    """UIDL has new mail in the middle of a session."""
    if not _is("UIDL", line):
        return answer()
    count = session.notes["listings"] = session.notes.get("listings", 0) + 1
    return answer() if count == 1 else answer().removesuffix(b".\r\n") + b"999 new\r\n.\r\n"


def used_again(session: Session, line: bytes, answer: Answer) -> bytes:
    """A new message gets the unique-id of one that was removed."""
    notes = session.server.notes
    if not _is("UIDL", line):
        said = answer()
        if verb_of(line) == b"DELE":
            session.notes["dele"] = int(line.split()[1])
        if verb_of(line) == b"QUIT" and "dele" in session.notes:
            notes.setdefault("removed", session.notes["listing"][session.notes["dele"]])
        return said
    said = answer()
    listing = {int(number): uid for number, uid in (one.split() for one in said.split(b"\r\n")[1:-2])}
    session.notes["listing"] = listing
    if "removed" in notes:
        new = [uid for uid in listing.values() if uid not in notes["seen"]]
        for uid in new[:1]:
            said = said.replace(b" %b\r\n" % uid, b" %b\r\n" % notes["removed"])
    else:
        notes.setdefault("seen", set()).update(listing.values())
    return said


def languages(session: Session, line: bytes, answer: Answer) -> bytes:
    """UTF8 and LANG as RFC 6856 has them, which the right server has not."""
    if verb_of(line) == b"CAPA":
        return answer().replace(b"\r\n.\r\n", b"\r\nUTF8 USER\r\nLANG\r\n.\r\n")
    if _is("UTF8", line) and not session.logged_in:
        return b"+OK\r\n"
    if _is("LANG", line):
        return b"+OK\r\nen English\r\nde-AT Deutsch\r\n.\r\n"
    return b"+OK en\r\n" if _is(r"LANG \*", line) else answer()


_LISTED = rb"(?m)^(\d+) (\S+)\r$"

NO = "-ERR no"
#: The faults that a server can be given by itself (docs/faults.rst).
OURS = (
    Ours("drop", "greeting", {"command": "GREETING"}),
    Ours("drop", "dots octets line-ends", {"command": "RETR", "octets": 30}),
    Ours("drop", "auth-blank", {"command": "AUTH"}),
    Ours("drop", "utf8-polite", {"command": "UTF8"}),
    Ours("drop-behind", "mistakes", {"command": "XCHECK"}),
    Ours("drop-before-dot", "capa", {"command": "CAPA"}),
    Ours("no-dot", "list", {"command": "LIST"}),
    Ours("silence", "noop", {"command": "NOOP"}),
    Ours("garbage", "greeting"),
    Ours("answer", "stat stat-sum"),
    Ours("answer", "noop", {"command": "NOOP", "text": NO}),
    Ours("answer", "rset", {"command": "RSET", "text": NO}),
    Ours("answer", "dele", {"command": "DELE", "text": NO}),
    Ours("answer", "capa-top", {"command": "TOP", "text": NO}),
    Ours("answer", "capa-user", {"command": "USER", "text": NO}),
    Ours("answer", "capa-uidl", {"command": "UIDL", "text": NO}),
    Ours("answer", "sasl-initial sasl-works", {"command": "AUTH", "text": NO}),
    Ours("answer", "sasl-challenge", {"command": "AUTH", "text": "+"}),
    Ours("answer", "sasl-unknown sasl-after-login", {"command": "AUTH", "text": "+OK"}),
    Ours("answer", "unknown", {"command": "XCHECK", "text": "+OK"}),
    Ours("answer", "last", {"command": "XTND", "text": "+OK"}),
    Ours("answer", "before-login", {"command": "STAT", "text": "+OK 0 0"}),
    Ours("answer", "pass-alone wrong-password", {"command": "PASS", "text": "+OK"}),
    Ours("answer", "apop-wrong", {"command": "APOP", "text": "+OK"}),
    Ours("answer", "stls-after-login", {"command": "STLS", "text": "+OK"}),
    Ours("long-reply", "reply-length"),
    Ours("unasked", "pipelining pipelined-login"),
    Ours("status", "status stat"),
    Ours("wrong-size", "octets stat-sum"),
    Ours("huge-size", "size-32 stat-sum"),
    Ours("negative-size", "list stat"),
    Ours("missing-number", "list stat"),
    Ours("wrong-count", "stat-sum"),
    Ours("list-missing", "numbers stat-sum"),
    Ours("uidl-missing", "uidl-numbers"),
    Ours("uidl-duplicate", "uidl-unique"),
    Ours("uidl-changing", "uidl-persistent"),
    Ours("uidl-long", "uidl"),
    Ours("uidl-empty", "uidl"),
    Ours("not-implemented", "capa-early"),
    Ours("capa", "capa-lines", {"lines": ["EXPIRE  NEVER"]}),
    Ours("capa", "expire login-delay", {"lines": ["EXPIRE soon", "LOGIN-DELAY soon"]}),
    Ours("capa", "capa-arguments", {"lines": ["TOP yes"]}),
    Ours("capa", "codes-announced", {"lines": ["UIDL"]}),
    Ours("capa", "sasl-names no-plus", {"lines": ["SASL plain! SCRAM-SHA-1-PLUS"]}),
    Ours("capa", "sasl-names", {"case": "lower"}),
    Ours("capa", "sasl-plain", {"lines": ["STLS", "SASL CRAM-MD5"]}, tls="stls"),
    Ours("capa", "capa-short", {"lines": ["IMPLEMENTATION " + "x" * 60]}),
    Ours("login-refused", "login", {"code": "SYS/TEMP"}),
    Ours("login-refused", "login", {"code": "SYS/PERM"}),
    # Whoever was turned away does not try again.
    Ours("login-refused", "login", {"code": "AUTH"}),
    Ours("bare-lf", "line-ends"),
    Ours("no-final-crlf", "octets"),
    Ours("unstuffed", "dots"),
    Ours("vanished", "octets"),
    Ours("quit-refused", "quit quit-before-login"),
    Ours("quit-silent", "quit quit-time"),
    Ours("stls-refused", "stls", tls="stls"),
    Ours("tls-expired", "certificate", tls="implicit"),
    Ours("tls-expired", "certificate", tls="stls"),
    Ours("tls-wrong-name", "certificate", tls="implicit"),
    Ours("tls-self-signed", "certificate", tls="implicit"),
    Ours("tls-hangs", "tls-version", tls="implicit"),
    Ours("tls-no-close-notify", "close-notify", tls="implicit"),
)

#: Those that break no rule, each with what makes it quick, and why.
ALLOWED: dict[str, tuple[dict[str, Any], str]] = {
    "delay": ({"seconds": 0.01}, "a reply may take its time, and a client's patience is its own"),
    "split-end": ({"seconds": 0.001}, "TCP promises no packets"),
    "packets": ({"octets": 9}, "TCP promises no packets"),
    "slow": ({"rate": 200_000}, "as slow as it likes"),
    "login-refused": ({}, "somebody else may read this mail at the moment: nothing is known then"),
}

#: Those that only a go-between can have.
FAULTS = (
    Planted("bare-lf-replies", swap("STAT", b"\r\n", b"\n"), "crlf"),
    Planted("bare-lf-listing", swap("LIST", b"\r\n", b"\n"), "crlf"),
    Planted("latin-1-reply", instead("NOOP", b"+OK gr\xfc\xdfe\r\n"), "reply-ascii"),
    Planted("capitals-only", lower_case_refused, "case"),
    Planted("yes-to-nothing", instead("", b"+OK\r\n", after_login=True), "empty-line"),
    Planted("yes-to-nul", instead("NO\0OP", b"+OK\r\n"), "nul"),
    Planted("yes-to-eight-bit", instead(r"N..P", b"+OK\r\n"), "eight-bit"),
    Planted("numbers-by-guess", instead("RETR 1x", b"+OK\r\n.\r\n"), "arguments"),
    Planted("user-at-any-time", instead("USER.*", b"+OK\r\n", after_login=True), "after-login"),
    Planted("short-lines", closes(".{200,}"), "longest-command"),
    Planted("long-line-twice", edit(".{10000,}", lambda said: said + b"-ERR again\r\n"), "long-line"),
    Planted("one-packet", pieces_refused, "octets-one-by-one"),
    Planted("bare-lf-vanishes", bare_line_feeds_vanish, "bare-lf"),
    Planted("two-mistakes", second_mistake, "mistakes"),
    Planted("impatient", flag("idle", 0.2), "idle", kind="idle"),
    Planted("quit-stays", flag("stays"), "quit quit-before-login"),
    Planted("tells-names", instead("USER check-.*", b"-ERR who?\r\n"), "user-tells-nothing"),
    Planted("user-nobody", instead("USER", b"+OK\r\n"), "user-argument"),
    Planted("any-password", instead("PASS check-.*", b"+OK\r\n"), "pass-alone wrong-password"),
    Planted("user-for-ever", instead("XCHECK", b"-ERR\r\n"), "pass-behind-user"),
    Planted("one-try", closes("PASS check-.*"), "another-try wrong-password"),
    Planted("first-word", ask("PASS .* and more", rb" and more", b""), "pass-with-blanks"),
    Planted("no-lock", lock_for_nobody, "lock"),
    Planted("lock-for-ever", extra_lock_kept, "lock-freed"),
    Planted("lock-behind-quit", extra_lock_kept, "hasty-quit"),
    Planted("same-timestamp", swap("", b"<.*>", b"<1@x>"), "apop-timestamp apop"),
    Planted("stat-two-blanks", swap("STAT", rb"OK (\d+) ", rb"OK \1  "), "stat"),
    Planted("stat-wrong", instead("STAT", b"+OK 1 1\r\n"), "stat-sum"),
    Planted("list-more", swap("LIST", _LISTED, b"\\1 \\2 new\r"), "list-plain"),
    Planted("numbers-from-ten", swap("LIST", rb"(?m)^(\d)", b"1\\1"), "numbers"),
    Planted("list-one-wrong", instead(r"LIST \d", b"+OK 1 1\r\n"), "list-one"),
    Planted("message-zero", instead("RETR 0", b"+OK\r\n.\r\n"), "no-such-message"),
    Planted("uidl-one-wrong", instead(r"UIDL \d", b"+OK 1 other\r\n"), "uidl-one"),
    Planted("message-changes", changing, "retr-again"),
    Planted("message-mended", swap("RETR.*", b"the last", b"The last"), "message-whole", kind="mail"),
    Planted("top-whole", ask(r"TOP \d+ 0", rb"TOP (\d+) 0", b"RETR \\1"), "top-0"),
    Planted("top-one-more", ask(r"TOP \d+ 2", b" 2\r", b" 3\r"), "top"),
    Planted("top-cut", ask(r"TOP .* 9+", b" 9+", b" 1"), "top-whole"),
    Planted("top-no-lines", instead(r"TOP \d+", b"+OK\r\n.\r\n"), "top-arguments"),
    Planted("no-capa-later", instead("CAPA", b"-ERR\r\n", after_login=True), "capa"),
    Planted("capa-less-later", capa(rb"TOP\r\n", b"", after_login=True), "capa-kept"),
    Planted("one-command-a-packet", input_lost, "pipelining pipelined-login"),
    Planted("code-open", swap("PASS check.*", rb"\[AUTH\]", b"[AUTH"), "codes"),
    Planted("code-unknown", swap("PASS check.*", rb"\[AUTH\]", b"[WRONG]"), "codes-known auth-code"),
    Planted("in-use-silent", swap("PASS.*", rb"\[IN-USE\].*\r", b"busy\r"), "in-use lock-word"),
    Planted("sasl-empty-promise", instead("AUTH CRAM-MD5", b"-ERR\r\n"), "sasl-works"),
    Planted("challenge-clear", swap("AUTH CRAM-MD5", rb"\+ .*\r", b"+ <1@x>\r"), "sasl-base64"),
    Planted("no-cancel", instead(r"\*", b"+OK\r\n"), "sasl-cancel"),
    Planted("any-base64", instead("!.*", b"+OK\r\n"), "sasl-bad-base64"),
    Planted("empty-gets-in", instead("AUTH PLAIN =", b"+OK\r\n"), "sasl-empty"),
    Planted("short-responses", closes(".{8000,}"), "sasl-long"),
    Planted("no-tls", instead("-", b""), "tls"),
    Planted("tls-1.1", flag("stays", False), "tls-version tls-old", tls="stls", kind="old"),
    Planted("clear-text", flag("stays", False), "clear-text", tls="stls", kind="public"),
    Planted("stls-injection", flag("keeps_input"), "stls-injection", tls="stls"),
    Planted("stls-remembers", flag("remembers"), "stls-forgets", tls="stls"),
    Planted("no-capa-in-tls", instead("CAPA", b"-ERR\r\n", within_tls=True), "stls-capa", tls="stls"),
    Planted("stls-in-tls", instead("STLS", b"+OK\r\n", within_tls=True), "stls-within", tls="stls"),
    Planted("stls-still-there", capa(b"TOP", b"STLS", within_tls=True), "stls-announced", tls="stls"),
    Planted("no-utf8", announce(b"UTF8", instead("UTF8", b"-ERR\r\n")), "utf8"),
    Planted("utf8-later", announce(b"UTF8", instead("UTF8", b"+OK\r\n")), "utf8-after-login"),
    Planted("utf8-argument", announce(b"UTF8 ALWAYS", flag("stays", False)), "utf8-argument"),
    Planted("lang-no-tags", announce(b"LANG", instead("LANG", b"+OK\r\n1 2\r\n.\r\n")), "lang-list"),
    Planted("lang-no-default", announce(b"LANG", instead(r"LANG \*", b"-ERR\r\n")), "lang-default"),
    Planted("lang-any", announce(b"LANG", instead("LANG qaa.*", b"+OK\r\n")), "lang-unknown"),
    Planted("capa-late", capa(b"TOP\r\n", b"", after_login=False), "capa-early"),
    Planted("half-close", unread_is_dropped, "half-close"),
    Planted("order", other_way_round, "order"),
    Planted("uidl-case", upper_and_lower, "uidl-case"),
    Planted("no-blank-line", swap("RETR.*", rb"\r\n\r\n", b"\r\n"), "blank-line"),
    Planted("long-lines", swap("RETR.*", b"Subject: ", b"Subject: " + b"x" * 3000), "long-lines"),
    Planted("nul-in-message", swap("RETR.*", b"Subject: ", b"Subject: \0"), "no-nul"),
    Planted("marks-nothing", marks_nothing, "dele-again dele-listings", kind="removing"),
    Planted("numbers-move", numbers_move, "dele-numbers", kind="removing"),
    Planted("rset-nothing", instead("RSET", b"+OK\r\n"), "rset-unmarks", kind="removing"),
    Planted("dele-final", removed_when_dropped, "dropped", kind="removing"),
    Planted("new-mail", news_at_once, "new-mail", kind="mail"),
    Planted("quit-removes-nothing", quit_without_update, "quit-removes", kind="removing"),
    Planted("uidl-again", used_again, "uidl-once", kind="mail"),
)
