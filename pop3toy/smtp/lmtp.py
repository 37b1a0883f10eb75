"""LMTP (RFC 2033): SMTP for a mail server that hands over mail, one reply for each recipient."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import StoreTrouble
from .connection import Connection
from .session import Settings
from .smtp import SMTPServer
from .transaction import Message, answer_to, log_trouble

__all__ = ["LMTPServer"]


class LMTPServer(SMTPServer):
    """One connection of a mail server that we trust: behind a Unix socket, or on loopback."""

    name = "LMTP"
    protocols = ("LMTP", "LMTP")
    # Each recipient has a reply, and so a fate of its own.
    together = False

    def __init__(self, settings: Settings, number: int, lost: Callable[[Connection], None]) -> None:
        super().__init__(settings, number, lost)
        # RFC 2033 section 4.1: "the HELO and EHLO commands" are replaced by LHLO.
        del self.commands[b"HELO"], self.commands[b"EHLO"]
        self.commands[b"LHLO"] = self.do_EHLO

    def greeting(self) -> bytes:
        """What stands behind 220."""
        return self.host + b" LMTP pop3toy"

    def unknown(self, code: int, enhanced: str, text: str) -> None:
        """Refuse a recipient; a mail server that has many unknown ones is not guessing."""
        self.reply(code, enhanced, text)

    def message_done(self, message: Message, results: Sequence[bytes | StoreTrouble]) -> None:
        """RFC 2033 section 4.2: one reply for each RCPT that was accepted, in their order."""
        of_user = dict(zip(message.transaction.users, results, strict=False))
        refused = {user: result for user, result in of_user.items() if isinstance(result, StoreTrouble)}
        for user, error in refused.items():
            log_trouble(error, user)
        for _, users in message.transaction.recipients:
            # An alias for several: as in SMTP, one that failed makes the sender try again.
            failed = [refused[user] for user in users if user in refused]
            if message.answer is not None:
                self.reply(*message.answer)
            elif failed:
                self.reply(*answer_to(failed[0], message.text.octets))
            else:
                self.reply(250, "2.1.5", f"delivered as {message.ident}")
