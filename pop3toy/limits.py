"""Every number that bounds the protocol, with the sentence or precedent that is its reason.

What guards against strangers (connections, penalties) is in ``auth/throttle``;
what a store keeps for itself is beside the store.
"""

from __future__ import annotations

from typing import Final

# -- lines ---------------------------------------------------------------------

#: Octets of a command line with its CRLF.  RFC 2449 section 4: "The maximum
#: length of a command is 255 octets, including the terminating CRLF."
COMMAND_LINE: Final = 255

#: Octets of a line in a SASL exchange, RFC 5034 section 4.  It is allowed for
#: the AUTH command as well: clients send OAuth tokens as initial responses
#: that do not fit into 255 octets (JavaMail does by default).
SASL_LINE: Final = 12_288

#: Octets of the first line of a reply with its CRLF, RFC 2449 section 4.
REPLY_LINE: Final = 512

#: Octets of a unique-id, RFC 1939 section 7.
UID: Final = 70

# -- patience ------------------------------------------------------------------

#: Bad commands in a row after which the connection is closed.  A person on
#: telnet makes three mistakes, a port scanner makes hundreds.
BAD_COMMANDS: Final = 20
#: The same before login.
BAD_COMMANDS_BEFORE_LOGIN: Final = 10

#: Failed logins on one connection after which it is closed; popa3d and Dovecot
#: have limits of this order, a mail client asks its user again after one.
FAILED_LOGINS: Final = 5

#: Seconds of silence after which a session ends.  RFC 1939 section 3: "such a
#: timer MUST be of at least 10 minutes' duration".
IDLE: Final = 600.0
#: The same for a client that has said nothing valid yet.  RFC 1939 speaks of an
#: autologout timer of sessions; a client that is not logged in gets a minute.
IDLE_BEFORE_LOGIN: Final = 60.0
#: The same between one that speaks POP3 and its login: mail programs begin with
#: USER or AUTH, and only then ask for the password, which their user has to find.
#: Dovecot waits for three minutes, too.
IDLE_WITHIN_AUTH: Final = 180.0
#: Seconds in all that a client may stay without a login, whatever it sends; one that was asked
#: for a password before that may still send it.
STRANGER: Final = 300.0

#: Seconds of silence after which the kernel asks whether a client is still
#: there, seconds between two questions, and how often it asks.  A client whose
#: machine vanished holds its maildrop for two minutes then, not for ten; one
#: that merely says nothing answers without knowing of it.
KEEPALIVE: Final = (60, 15, 4)

#: Seconds between two looks whether a client has hung up that waits for an answer and is not
#: read from meanwhile.  It may have one of the few places in the queue for a locked maildrop.
HUNG_UP: Final = 0.25

#: Seconds that a closed connection may take to read its last lines.
LINGER: Final = 30.0

#: Seconds that QUIT's answer waits for the maildrop to be given back.  A store on a
#: network does that in some milliseconds; mail programs wait for about a minute.
RELEASE: Final = 10.0

#: Seconds that sessions may go on after the server was told to stop, and the
#: silence after which such a session is not waited for.
SHUTDOWN_GRACE: Final = 10.0
SHUTDOWN_SILENCE: Final = 1.0

# -- memory for each session ---------------------------------------------------

#: Octets of pipelined input that are kept while an answer is pending; beyond
#: this the transport is paused.  One read of a Twisted socket is 64 KiB, so a
#: session holds at most about twice this.
PENDING_INPUT: Final = 64 * 1024

#: Octets of replies that are gathered before they are written.
GATHER: Final = 64 * 1024

#: Octets of one chunk of a body.  Smaller ones cost more calls; one write of a large
#: body as a whole was several times slower, because Twisted joins what it could not send.
CHUNK: Final = 256 * 1024

#: Octets that are sent to one client before others have their turn, and for how
#: many of them a reply counts besides: 2 or 3 milliseconds for one that takes
#: all as fast as it comes, or sends commands by the thousand.  A client that
#: fetches some 20 messages with its commands in one piece stays below it.
TURN: Final = 2 * 1024 * 1024
REPLY: Final = 64 * 1024

#: The same for TOP, which is mostly asked for headers: those of 99 in 100
#: messages fit, and a large message is not read for nothing.
TOP_CHUNK: Final = 16 * 1024

#: Lines of one block of a LIST or UIDL reply; 4,096 lines are at most 350 KiB.
LISTING_BLOCK: Final = 4096

# -- transcript ----------------------------------------------------------------

#: Lines of one reply that a transcript shows before it begins to count.
TRANSCRIPT_LINES: Final = 40
#: Characters of one line that a transcript shows.
TRANSCRIPT_COLUMNS: Final = 512
#: Lines that may wait for a slow terminal before the transcript drops some.
TRANSCRIPT_BACKLOG: Final = 10_000
#: Seconds after which a transcript that could not be written (a full disk) is tried again.
TRANSCRIPT_RETRY: Final = 5.0
