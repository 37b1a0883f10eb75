"""The toy's mailbox: one built-in message that says hello, for one public account.

The message is made at start and is a new one each time, with a date, a
Message-ID and a unique-id of its own; so a client that has fetched yesterday's
fetches today's as well.  A deleted one stays deleted until the next start.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from .memory import MemoryStore

__all__ = ["PASSWORD", "USER", "hello_message", "hello_store"]

#: The built-in account; it is public, hence nothing to hide.
USER = "user"
PASSWORD = "pass"

_TEXT = """\
Hello World!

If you can read this in your mail program, it has just spoken POP3: it logged
in, asked what there is, and fetched this message. Look at the terminal where
pop3toy runs: every line of the conversation stands there, with C: before what
your program (the client) said and S: before what the server answered.

Things to try next: delete this message, fetch mail again, and find DELE and
QUIT in the conversation. The rules of the game are in RFC 1939.
"""


def hello_message(now: float) -> bytes:
    """The built-in message as octets with CRLF line ends.

    :param now: seconds since the epoch, for its date and its Message-ID.
    """
    message = EmailMessage()
    message["Date"] = format_datetime(datetime.fromtimestamp(int(now), UTC))
    message["From"] = "pop3toy <hello@pop3toy.example>"
    message["To"] = "You <user@pop3toy.example>"
    message["Subject"] = "Hello World!"
    message["Message-ID"] = f"<hello.{int(now * 1000):x}@pop3toy.example>"
    message.set_content(_TEXT, charset="us-ascii", cte="7bit")
    return message.as_bytes(policy=SMTP)


def hello_store(
    now: float, users: Iterable[str] = (USER,), messages: Sequence[bytes] | None = None
) -> MemoryStore:
    """A memory store with the built-in message for each user.

    Mail that is delivered to it lands beside the message, until the next start.

    :param now: seconds since the epoch.
    :param users: whose maildrops it holds.
    :param messages: instead of the built-in one, with any line ends.
    """
    mail = [hello_message(now)] if messages is None else messages
    start = f"{int(now * 1000):x}"
    numbers = itertools.count(1)
    return MemoryStore(dict.fromkeys(users, mail), new_uid=lambda: f"hello-{start}-{next(numbers)}")
