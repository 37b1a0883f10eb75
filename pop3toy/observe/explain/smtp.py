"""SMTP, submission and LMTP: what each command asks and each reply says (RFC 5321, 6409, 2033)."""

from __future__ import annotations

import re
from email.parser import BytesHeaderParser
from email.policy import default

from ...interfaces import Channel
from ...printable import printable
from .conversation import Conversation, Turn
from .explanation import N_, Explanation, Say, clause

__all__ = ["CODES", "COMMANDS", "EXTENSIONS", "SMTP"]

#: What a command asks for, and where it stands.
COMMANDS: dict[str, tuple[str, str]] = {
    "AUTH": (N_("Logs in by a SASL mechanism."), clause(4954, "4")),
    "DATA": (
        N_("Announces the message itself, header and body; its end is a line with a dot alone."),
        clause(5321, "4.1.1.4"),
    ),
    "EHLO": (N_("The client says its host name, and asks for the extensions."), clause(5321, "4.1.1.1")),
    "HELO": (N_("The client says its host name, as before there were extensions."), clause(5321, "4.1.1.1")),
    "HELP": (N_("Asks which commands there are."), clause(5321, "4.1.1.8")),
    "LHLO": (
        N_("The client says its host name; LMTP begins with another word, so that nobody takes it for SMTP."),
        clause(2033, "4.1"),
    ),
    "MAIL": (
        N_("Begins a message with the sender of the envelope; who is to hear if it cannot be delivered."),
        clause(5321, "4.1.1.2"),
    ),
    "NOOP": (N_("Asks for nothing but a reply."), clause(5321, "4.1.1.9")),
    "QUIT": (N_("Ends the session."), clause(5321, "4.1.1.10")),
    "RCPT": (N_("Adds a recipient to the envelope; the header has no part in it."), clause(5321, "4.1.1.3")),
    "RSET": (N_("Forgets the message that was begun."), clause(5321, "4.1.1.5")),
    "STARTTLS": (N_("Asks for TLS on this connection, from the next octet on."), clause(3207, "4")),
    "VRFY": (N_("Asks whether there is somebody of this name."), clause(5321, "4.1.1.6")),
}

#: What a line of EHLO's list says, and where it stands.
EXTENSIONS: dict[str, tuple[str, str]] = {
    "8BITMIME": (N_("messages may hold octets above 127"), clause(6152)),
    "AUTH": (N_("the mechanisms for AUTH"), clause(4954, "3")),
    "ENHANCEDSTATUSCODES": (N_("three numbers behind the code say more exactly what is meant"), clause(2034)),
    "PIPELINING": (N_("commands may be sent without waiting for the replies"), clause(2920)),
    "SIZE": (N_("the largest message that is taken, in octets"), clause(1870)),
    "SMTPUTF8": (N_("addresses may be in UTF-8"), clause(6531)),
    "STARTTLS": (N_("TLS can be begun on this connection"), clause(3207)),
}

#: What a reply's code says (RFC 5321 section 4.2.3; RFC 4954 section 6).
CODES: dict[str, str] = {
    "214": N_("The commands that there are."),
    "220": N_("Ready."),
    "221": N_("The server says goodbye, and ends the connection."),
    "235": N_("Name and password are right."),
    "250": N_("Done."),
    "252": N_("Whether there is such a user is not told; mail for them would be taken or refused at RCPT."),
    "334": N_("The server's next line of the exchange, in base64."),
    "354": N_("From now on lines are no commands any more, until a line with a dot alone."),
    "421": N_("The server ends the connection: it is stopping, or has had enough."),
    "450": N_("Not now, but later: the user has handed in as much as may be for the moment."),
    "451": N_("The server is in trouble, which is not the mail's fault."),
    "452": N_("There is no room now: the mailbox is full, or there are too many recipients for one message."),
    "454": N_("What was asked for does not work at the moment."),
    "500": N_("There is no such command."),
    "501": N_("There is such a command, but what stands behind it cannot be understood."),
    "502": N_("There is such a command, but not here."),
    "503": N_("Not in this order: first EHLO, then MAIL, RCPT and DATA."),
    "504": N_("There is no such mechanism here."),
    "530": N_("The client has to log in first, or to begin TLS before that."),
    "535": N_("Name or password are wrong; which of them is not said."),
    "538": N_("This way to log in needs TLS, since it shows the password."),
    "550": N_("There is no such user here."),
    "552": N_("The message is larger than what is taken here."),
    "553": N_("This address cannot be used here."),
    "555": N_("A parameter behind the address is not known here."),
}

#: What the first digit of a refusal says (RFC 5321 section 4.2.1).
REFUSALS: dict[str, str] = {
    "4": N_("Refused for now: the sender keeps the message and tries again later."),
    "5": N_("Refused for good: trying again would not help."),
}

#: What an enhanced status code says where the code alone says less (RFC 3463).
ENHANCED: dict[str, str] = {
    "4.2.2": N_("The user's mailbox is full."),
    "5.2.3": N_("The message is larger than what the user's mailbox may hold at all."),
    "5.7.1": N_(
        "This mail would go elsewhere, or in somebody else's name; this server is not there for that."
    ),
}

#: What 250 says behind a command, where it says more.
_DONE: dict[str, str] = {
    "MAIL": N_("The sender is taken; next come the recipients."),
    "RCPT": N_("Mail for this recipient is taken."),
    "RSET": N_("The message that was begun is forgotten."),
    "EHLO": N_("The server's name; each line behind it is an extension that works here."),
    "LHLO": N_("The server's name; each line behind it is an extension that works here."),
}

#: Octets that are kept of a header that comes, and of a line of it that is not whole, and recipients.
_HEADER = 64 * 1024
_PARTIAL = 64
_END = len(b".\r\n")
_RECIPIENTS = 20


class SMTP(Conversation):
    """One session of SMTP, submission or LMTP."""

    commands = COMMANDS
    is_pop3 = False

    def __init__(self, say: Say, channel: Channel, protocol: str) -> None:
        super().__init__(say, channel)
        self._protocol = protocol
        self._sender = ""
        self._recipients: list[str] = []
        self._header = bytearray()
        self._text_octets = 0
        # The beginning of a line that a part of the text ended in the middle of.
        self._partial = b""

    # -- the client ---------------------------------------------------------------------

    def _besides(self, turn: Turn) -> list[Explanation]:
        path = re.search(rb"<([^>]*)>", turn.line)
        address = printable(path[1].decode("utf-8", "backslashreplace")) if path else ""
        if turn.keyword == "MAIL":
            self._sender, self._recipients = address, []
            if path and not address:
                return self._note(
                    "An empty sender: this is a report, and nobody is to hear if it cannot be delivered.",
                    clause(5321, "4.5.5"),
                )
        elif turn.keyword == "RCPT" and address and len(self._recipients) < _RECIPIENTS:
            self._recipients.append(address)
        return []

    def text(self, data: bytes, octets: int, *, last: bool) -> list[Explanation]:
        """Of a part of a message.

        :param data: empty where mail is private.
        """
        self._text_octets += octets
        if len(self._header) < _HEADER:
            self._header += data[: _HEADER - len(self._header)]
        said = self._doubled_dots(data)
        if not last:
            return said
        self._partial = b""
        said += self._note(
            "The line with a dot alone is the end of the message; {octets} octets came before it, dots that"
            " were doubled included.",
            clause(5321, "4.5.2"),
            octets=max(self._text_octets - _END, 0),
        )
        if self._header:
            said += self._envelope_and_header(bytes(self._header))
        self._header.clear()
        self._text_octets = 0
        return said

    def _doubled_dots(self, data: bytes) -> list[Explanation]:
        """At the lines where they are; places are those of lines that end in this part."""
        *lines, tail = (self._partial + data).split(b"\r\n")
        self._partial = tail[:_PARTIAL]
        [said] = self._note(
            "The client has put a dot before this line's own; the server takes it off again.",
            clause(5321, "4.5.2"),
        )
        return [said._replace(line=place) for place, line in enumerate(lines) if line.startswith(b"..")]

    def _envelope_and_header(self, data: bytes) -> list[Explanation]:
        header = BytesHeaderParser(policy=default).parsebytes(data)
        try:
            from_, to = str(header["From"] or ""), str(header["To"] or "")
        except (ValueError, LookupError, AttributeError):
            # Not every header can be read.
            return []
        return self._note(
            "Envelope: from {sender} to {recipients}. Header: From {from_}, To {to}. Mail goes by the"
            " envelope alone; the two may differ.",
            clause(5321, "2.3.1"),
            sender=self._sender or "<>",
            recipients=", ".join(self._recipients) or "?",
            from_=printable(from_) or "-",
            to=printable(to) or "-",
        )

    # -- the server ---------------------------------------------------------------------

    def reply_line(self, turn: Turn, line: bytes) -> list[Explanation]:
        """Of one line of a reply, without its end."""
        if turn.keyword not in ("EHLO", "LHLO") or turn.lines == 1 or not line.startswith(b"250"):
            return []
        name, *arguments = line[4:].decode("ascii", "replace").split(" ")
        name = name.upper()
        if name not in EXTENSIONS:
            return []
        return self._note(*EXTENSIONS[name]) + self._mechanisms(arguments if name == "AUTH" else ())

    def reply(self, turn: Turn) -> list[Explanation]:
        """Of a whole reply."""
        code = turn.first[:3].decode("ascii", "replace")
        if self._exchange is not None:
            if code == "334":
                return self._exchange.challenge(turn.first[4:].strip())
            self._exchange = None
        if code[:1] in REFUSALS:
            enhanced = turn.first[4:].decode("ascii", "replace").partition(" ")[0]
            said = []
            if enhanced in ENHANCED:
                said = self._note(ENHANCED[enhanced], clause(3463, "3"))
            elif code in CODES:
                said = self._note(CODES[code], clause(5321, "4.2.3"))
            return said + self._note(REFUSALS[code[:1]], clause(5321, "4.2.1"))
        if turn.keyword == "GREETING":
            return self._note("The server speaks first, says its name, and is ready.", clause(5321, "3.1"))
        if turn.keyword == "STARTTLS":
            return self._note(
                "What comes now is the TLS handshake; all that was said before is forgotten.",
                clause(3207, "4.2"),
            )
        if turn.keyword == "TEXT":
            return self._taken()
        text = _DONE.get(turn.keyword) if code == "250" else None
        text = text or CODES.get(code)
        where = clause(4954, "6") if turn.keyword == "AUTH" else clause(5321, "4.2.3")
        return self._note(text, where) if text is not None else []

    def _taken(self) -> list[Explanation]:
        self._sender, self._recipients = "", []
        if self._protocol != "LMTP":
            return []
        return self._note(
            "LMTP has a reply for each recipient: one may be refused and another not.", clause(2033, "4.2")
        )

    def removed(self) -> None:
        """Nothing is removed here."""

    def ended(self, why: str) -> list[Explanation]:
        """Of the connection's end."""
        if why == "quit" or not self._sender or not self._recipients:
            return []
        return self._note(
            "The connection ended without QUIT: what was not answered with 250 behind its dot is not taken.",
            clause(5321, "4.1.1.10"),
        )
