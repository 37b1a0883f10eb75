"""Messages that are brought to be looked at and removed again."""

from __future__ import annotations

import secrets
import smtplib

from .results import CannotTry

__all__ = ["bring"]

#: Bodies that servers have stumbled over.  No line ends with a blank, which mail servers may take away.
_BODIES = (
    b".\r\n..\r\n.dot\r\n...\r\ntext\r\n\r\n.\r\n. \x2d\r\nthe last line\r\n.\r\n",
    b"\r\n\r\nbehind empty lines\r\n\r\n" + b"x" * 990 + b"\r\n" + b"From the start of a line\r\n",
    b"+OK\r\n-ERR\r\nQUIT\r\n.\r\n",
)


def bring(server: tuple[str, int], address: str, timeout: float) -> dict[bytes, bytes]:
    """Send some messages by SMTP.

    :return: their bodies, each by a word that stands in its message and in no other.
    :raises CannotTry: if the server does not take them.
    """
    sent = {}
    try:
        with smtplib.SMTP(*server, timeout=timeout) as smtp:
            for body in _BODIES:
                token = secrets.token_hex(12)
                header = (
                    f"From: <{address}>\r\nTo: <{address}>\r\nSubject: pop3toy check, to be removed\r\n"
                    f"Message-ID: <{token}@pop3toy.invalid>\r\n\r\n"
                )
                # No sender: what cannot be delivered comes back to nobody.
                smtp.sendmail("", [address], header.encode() + body)
                sent[token.encode()] = body
    except (OSError, smtplib.SMTPException, UnicodeError) as error:
        raise CannotTry(f"{server[0]}:{server[1]} takes no mail for {address}: {error}") from None
    return sent
