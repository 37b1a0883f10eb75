"""RFC 1939 section 3: lines, replies, and what is no command."""

from __future__ import annotations

import re
from contextlib import suppress

from ..connection import Closed, Connection, Trouble
from ..examination import Examination
from ..replies import Reply
from ..results import Failed, NotTested, require

__all__ = [
    "bare_line_feed",
    "crlf",
    "eight_bit",
    "empty_line",
    "errors_stay",
    "greeting",
    "idle",
    "invalid_arguments",
    "keyword_case",
    "long_line",
    "longest_command",
    "nul",
    "octet_by_octet",
    "quit_after",
    "quit_before",
    "reply_ascii",
    "reply_length",
    "status_words",
    "unknown_command",
    "wrong_state_after",
    "wrong_state_before",
]

#: A command that no server has.
UNKNOWN = "XCHECK"


def tour(server: Examination) -> list[Reply]:
    """What is said to the usual commands, and to some mistakes: all first lines of answers."""
    # Where it breaks off, other checks tell why.
    with suppress(Trouble), server.stranger() as connection:
        connection.ask(UNKNOWN)
        server.capabilities(connection)
        connection.ask("QUIT")
    with suppress(Trouble), server.session() as session:
        server.capabilities(session)
        session.ask("STAT")
        numbers = server.sizes(session)
        if session.ask("UIDL").ok:
            session.block("UIDL")
        for number, octets in list(numbers.items())[:1]:
            session.ask(f"LIST {number}")
            session.ask(f"UIDL {number}")
            if octets < 1 << 20 and session.ask(f"RETR {number}").ok:
                session.block(f"RETR {number}", listing=False)
        session.ask(f"RETR {max(numbers, default=0) + 1}")
        session.ask("NOOP")
        session.ask("RSET")
        session.ask(UNKNOWN)
    if not server.trace.replies:
        raise NotTested("nothing was said")
    return list(server.trace.replies)


def _each(server: Examination, wrong: re.Pattern[bytes], text: str) -> None:
    """Fail at the first line of an answer in which something is found."""
    for reply in tour(server):
        if wrong.search(reply.raw):
            raise Failed(f"{reply}: {text}", server.trace.shown(reply.asked, reply.raw))


def greeting(server: Examination) -> None:
    """One line, a yes, and nothing behind it."""
    with server.dial() as connection:
        found = connection.reply("(greeting)")
        require(found.ok, str(found))
        require(not connection.waiting(0.2), "something is said behind the greeting that nobody asked for")


def crlf(server: Examination) -> None:
    """CRLF, and no CR or LF but in it."""
    _each(server, re.compile(rb"(?<!\r)\n|\r(?!\n)"), "it does not end with CRLF alone")
    for asked, end in server.trace.ends:
        if end != b".\r\n":
            raise Failed(
                f"the end of the answer to {asked} is no dot and CRLF", server.trace.shown(asked, end)
            )
    for asked, block in server.trace.listings:
        for line in block.raw.splitlines(keepends=True):
            if not line.endswith(b"\r\n"):
                raise Failed(
                    f"a line of the answer to {asked} does not end with CRLF", server.trace.shown(asked, line)
                )


def status_words(server: Examination) -> None:
    """``+OK`` or ``-ERR`` in capitals, then the end or a blank."""
    _each(server, re.compile(rb"\A(?!(?:\+OK|-ERR)(?:[ \r\n]|\Z))"), "neither +OK nor -ERR in capitals")


def reply_length(server: Examination) -> None:
    """512 octets."""
    _each(server, re.compile(rb"\A.{513}", re.DOTALL), "it has more than 512 octets")


def reply_ascii(server: Examination) -> None:
    """ASCII, and no control characters."""
    _each(server, re.compile(rb"[^\x20-\x7e\r\n]"), "there is more in it than printable ASCII")


def keyword_case(server: Examination) -> None:
    """Any case."""
    with server.session() as session:
        for command in ("noop", "NoOp", "sTAT"):
            session.ask_ok(command)


def unknown_command(server: Examination) -> None:
    """-ERR in both states, and the session goes on."""
    with server.stranger() as connection:
        connection.ask_refused(UNKNOWN)
    with server.session() as session:
        session.ask_refused(UNKNOWN)
        session.ask_ok("NOOP")


def empty_line(server: Examination) -> None:
    """-ERR, and the session goes on."""
    _refused_and_goes_on(server, b"\r\n", "an empty line")


def nul(server: Examination) -> None:
    """-ERR, or the end; nothing else."""
    _refused_and_goes_on(server, b"NO\0OP\r\n", "a command with a NUL in it")


def eight_bit(server: Examination) -> None:
    """The same for octets that are no ASCII."""
    _refused_and_goes_on(server, b"N\xd6\xd6P\r\n", "a keyword that is no ASCII")


def _refused_and_goes_on(server: Examination, line: bytes, what: str) -> None:
    with server.session() as session:
        session.send(line)
        try:
            found = session.reply(what)
        except Closed:
            raise Failed(f"{what} ends the connection") from None
        require(found.refused, str(found))
        session.ask_ok("NOOP")


def invalid_arguments(server: Examination) -> None:
    """Numbers that are none, and arguments that are missing."""
    with server.session() as session:
        for command in ("RETR", "RETR x", "RETR 1x", "LIST x", "LIST -1", "RETR 99999999999999999999"):
            session.ask_refused(command)


def wrong_state_before(server: Examination) -> None:
    """Nothing of TRANSACTION works before login."""
    with server.stranger() as connection:
        for command in ("STAT", "LIST", "RETR 1", "UIDL", "TOP 1 0"):
            # Some close after a few mistakes; they may.
            with suppress(Closed):
                found = connection.ask(command)
                require(found.refused, str(found))
            if connection.over:
                return


def wrong_state_after(server: Examination) -> None:
    """Nothing of AUTHORIZATION works after login, and who is logged in stays so."""
    with server.session() as session:
        before = session.ask_ok("STAT").line
        session.ask_refused(f"USER {server.target.user}")
        session.ask_refused("PASS check")
        after = session.ask_ok("STAT").line
        require(after == before, "the session is another one than before")


def longest_command(server: Examination) -> None:
    """255 octets with CRLF are answered as any others are."""
    with server.stranger() as connection:
        connection.send(b"%b %b\r\n" % (UNKNOWN.encode(), b"x" * (253 - len(UNKNOWN) - 1)))
        found = connection.reply("a command of 255 octets")
        require(found.refused, str(found))
        connection.ask_refused(UNKNOWN)


def long_line(server: Examination) -> None:
    """A line that is too long is refused once, or ends the connection; no part of it is a command."""
    with server.session() as session:
        session.send(b"x" * 20_000 + b" NOOP\r\n", "xxxx... (20000 octets) NOOP")
        try:
            found = session.reply("a line of 20,000 octets")
            require(found.refused, str(found))
            found = session.ask("NOOP")
        except Closed:
            return
        require(found.ok, f"the line is answered more than once: {found}")


def octet_by_octet(server: Examination) -> None:
    """A command is a line, whatever packets it comes in; two lines in one packet are two."""
    with server.session() as session:
        session.send_in_pieces(b"NOOP\r\n")
        found = session.reply("NOOP, octet by octet")
        require(found.ok, str(found))
        require(not session.waiting(0.1), "it is answered more than once")


def bare_line_feed(server: Examination) -> str:
    """A bare LF is the end of a line or a mistake, and neither passed over nor waited for."""
    with server.session() as session:
        session.send(f"{UNKNOWN}\nNOOP\r\n".encode())
        first = session.reply("a command with a bare LF")
        require(first.refused, str(first))
        session.ask_ok("NOOP")
        # The answer to what stood behind the bare LF, if it was one, came before that to NOOP.
        two = session.waiting(0.2)
        if two:
            require(session.reply("NOOP").ok, "what stands behind a bare LF is neither a command nor refused")
        return "a bare LF ends a command" if two else "a bare LF does not end a command"


def errors_stay(server: Examination) -> None:
    """A few mistakes do not end a session."""
    with server.session() as session:
        for _ in range(3):
            session.ask_refused(UNKNOWN)
        session.ask_ok("NOOP")


def idle(server: Examination) -> str:
    """A session that says nothing lasts."""
    seconds = server.target.idle
    if not seconds:
        raise NotTested("it takes ten minutes: --idle 600")
    with server.session() as session:
        require(not session.waiting(seconds), f"the server does something within {seconds:g} s of silence")
        session.ask_ok("NOOP")
    return f"for {seconds:g} s"


def quit_before(server: Examination) -> None:
    """+OK, and the end."""
    with server.stranger() as connection:
        _quit(connection)


def quit_after(server: Examination) -> None:
    """The same in TRANSACTION."""
    with server.session() as session:
        _quit(session)


def _quit(connection: Connection) -> None:
    connection.ask_ok("QUIT")
    require(connection.ended(), "behind the answer to QUIT the connection is not closed")
