"""RFC 1939 sections 4, 7 and 13, RFC 3206: who comes in, and what others hear."""

from __future__ import annotations

import hashlib
import re

from ..connection import Trouble
from ..examination import WRONG, Examination, may_pass
from ..results import Failed, NotTested, require
from .lines import UNKNOWN

__all__ = [
    "another_try",
    "apop_timestamp",
    "apop_wrong",
    "auth_code",
    "lock",
    "lock_code",
    "lock_freed",
    "login",
    "missing_arguments",
    "pass_takes_the_line",
    "pass_without_user",
    "user_tells_nothing",
    "user_then_something",
    "wrong_password",
]

_TIMESTAMP = re.compile(rb"<[\x21-\x3b\x3d\x3f-\x7e]+@[\x21-\x3b\x3d\x3f-\x7e]+>")


def login(server: Examination) -> None:
    """Name and password let in."""
    if server.turned_away is not None:
        raise Failed(str(server.turned_away))
    with server.stranger() as connection:
        try:
            found = server.log_in(connection)
            # Somebody else may read this mail at the moment.
            if found.later:
                raise NotTested(str(found))
            if found.refused and not may_pass(found):
                server.turn_away(found)
            require(found.ok, str(found))
            server.quit(connection)
        except Trouble as trouble:
            raise Failed(str(trouble)) from None


def user_tells_nothing(server: Examination) -> None:
    """A name that nobody has is answered as one that somebody has."""
    server.needs(b"USER") if server.announced.lines else None
    answers = []
    for name in (server.target.user, "check-nobody-has-this-name"):
        with server.stranger() as connection:
            answers.append(connection.ask(f"USER {name}").line.replace(name.encode(), b""))
    require(answers[0] == answers[1], "USER is answered differently for a name that does not exist")


def pass_without_user(server: Examination) -> None:
    """PASS alone is refused."""
    with server.stranger() as connection:
        found = connection.ask(f"PASS {WRONG}", "PASS ****")
        require(found.refused, str(found))


def user_then_something(server: Examination) -> None:
    """PASS counts directly behind USER."""
    with server.stranger() as connection:
        if not connection.ask(f"USER {server.target.user}").ok:
            raise NotTested("USER is refused")
        connection.ask(UNKNOWN)
        found = connection.ask(f"PASS {server.secret}", "PASS ****")
        require(found.refused, f"{found}, with another command between it and USER")


def missing_arguments(server: Examination) -> None:
    """USER without a name, PASS without a password."""
    with server.stranger() as connection:
        connection.ask_refused("USER")
        connection.ask_refused("PASS")


def wrong_password(server: Examination) -> None:
    """-ERR, and nobody is logged in."""
    with server.stranger() as connection:
        found = server.password(connection, WRONG)
        require(found.refused, str(found))
        # Who closes behind it may.
        try:
            found = connection.ask("STAT")
        except Trouble:
            return
        require(found.refused, f"behind a wrong password {found}")


def another_try(server: Examination) -> None:
    """Behind a wrong password the right one counts, on the same connection."""
    with server.stranger() as connection:
        if not server.password(connection, WRONG).refused:
            raise NotTested("a wrong password is not refused")
        found = server.log_in(connection)
        if found.later:
            raise NotTested(str(found))
        require(found.ok, str(found))
        server.quit(connection)


def auth_code(server: Examination) -> None:
    """[AUTH], where that is announced."""
    server.needs(b"AUTH-RESP-CODE")
    found = server.wrong_password()
    if not found.refused:
        raise NotTested(f"a wrong password is not refused: {found}")
    shown = server.trace.shown("PASS ****", found.raw)
    require(found.code.upper() in (b"AUTH", b"SYS/TEMP"), f"{found}: the code is not AUTH", shown)


def pass_takes_the_line(server: Examination) -> None:
    """A blank and more behind the right password make it a wrong one."""
    with server.stranger() as connection:
        found = server.password(connection, f"{server.secret} and more")
        require(found.refused, f"{found}: what stands behind a blank in the password is passed over")


def lock(server: Examination) -> None:
    """A second session is not let in."""
    found = server.second_login()
    shown = server.trace.shown("(login of a second session)", found.raw)
    require(not found.ok, "a second session is let into the mailbox", shown)


def lock_code(server: Examination) -> None:
    """[IN-USE] for it."""
    server.needs(b"RESP-CODES")
    found = server.second_login()
    if found.ok:
        raise NotTested("a second session is let in")
    shown = server.trace.shown("(login of a second session)", found.raw)
    require(found.code.upper() == b"IN-USE", f"{found}: the code is not IN-USE", shown)


def lock_freed(server: Examination) -> None:
    """A session that was dropped keeps nobody out for long."""
    with server.session() as session:
        session.drop()
    try:
        with server.session():
            pass
    except NotTested as why:
        raise Failed(f"behind a session that was dropped: {why}") from None


def apop_timestamp(server: Examination) -> None:
    """In the form of a message-id, another one in each greeting."""
    found = []
    for _ in range(2):
        with server.greeted() as connection:
            if b"<" not in connection.greeting:
                raise NotTested("the greeting has no timestamp")
            match = _TIMESTAMP.search(connection.greeting)
            require(match, "the timestamp has not the form of a message-id")
            found.append(connection.greeting)
    require(found[0] != found[1], "two greetings have the same timestamp")


def apop_wrong(server: Examination) -> None:
    """A wrong digest is refused."""
    with server.stranger() as connection:
        if b"<" not in connection.greeting:
            raise NotTested("the greeting has no timestamp")
        digest = hashlib.md5(connection.greeting + WRONG.encode()).hexdigest()
        found = connection.ask(f"APOP {server.target.user} {digest}", f"APOP {server.target.user} ****")
        require(found.refused, str(found))
