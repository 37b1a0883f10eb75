"""Every number of the delivery side, with the sentence or precedent that is its reason."""

from __future__ import annotations

from typing import Final

# -- lines ---------------------------------------------------------------------

#: Octets of a command line with its CRLF.  RFC 5321 section 4.5.3.1.4 says at
#: least 512, and the extensions of MAIL and RCPT add to it: SIZE 26, BODY 17,
#: SMTPUTF8 10, AUTH 500, and 255 octets more for each mailbox in UTF-8.
COMMAND_LINE: Final = 2048

#: Octets of an address.  RFC 5321 section 4.5.3.1.3 asks for 256 at least; with more
#: than these a Return-Path line would be longer than the 998 of RFC 5322 section 2.1.1.
PATH: Final = 900

#: Octets of a line in an AUTH exchange, RFC 4954 section 4.
AUTH_LINE: Final = 12_288

#: Octets of a line of a reply with its CRLF, RFC 5321 section 4.5.3.1.5.
REPLY_LINE: Final = 512

# A line of the message itself has no limit of its own: RFC 5321 section 4.5.3.1
# asks for "implementation techniques that impose no limits", and the size of the
# whole message bounds it.

# -- messages ------------------------------------------------------------------

#: Octets of a message, unless --max-message-size says otherwise: about what large
#: providers take, so that few senders ever meet it.
MESSAGE: Final = 50 * 1024 * 1024

#: Recipients of one message.  RFC 5321 section 4.5.3.1.8: at least 100.
RECIPIENTS: Final = 100

# -- patience ------------------------------------------------------------------

#: Bad commands on one connection, unknown recipients among them, after which it
#: is closed; Postfix has the same number.  A message that is accepted begins the
#: count anew, so that a long-lived good sender never meets it.
ERRORS: Final = 20

#: Commands between two messages, or before the first, after which a connection is closed: several
#: envelopes of a hundred recipients that all had to be put off.
COMMANDS: Final = 500

#: Seconds that a transaction may take before its connection may be closed to make room, like an idle one: a
#: client that sends an octet now and then would keep its connection for ever.
MESSAGE_TIME: Final = 600

#: Failed authentications on one connection after which it is closed.
FAILED_LOGINS: Final = 3

#: Seconds of silence after which a connection ends.  RFC 5321 section 4.5.3.2.7:
#: "An SMTP server SHOULD have a timeout of at least 5 minutes".
IDLE: Final = 300
