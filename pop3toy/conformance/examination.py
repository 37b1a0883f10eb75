"""The server that is looked at: how checks get sessions with it, and what they find."""

from __future__ import annotations

import base64
import select
import socket
import ssl
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from .budget import Budget
from .connection import Connection, Silent, Trouble
from .delivery import bring
from .replies import Block, Reply
from .results import CannotTry, Failed, NotTested
from .target import Capabilities, Target
from .trace import Trace

__all__ = ["WRONG", "Doomed", "Examination", "may_pass"]

#: What is nobody's password.
WRONG = "check-with-a-wrong-password"
#: What a second session hears where it hears nothing.
WAITS = Reply("PASS ****", b"")
#: Seconds between two tries.
_PAUSE = 0.3
#: Seconds for the end of a session, where one has not ended in time: it would be waited for in each check.
_AFTER_QUIT = 1.0
#: Octets of the largest message that is fetched to be looked at.
_SMALL = 4 << 20
#: How many times as long as an answer a message may take from SMTP to the mailbox.
_DELIVERY = 3
#: Sessions that may come to nothing before the checks that are left are not tried.
_GIVE_UP = 3


class Doomed(NamedTuple):
    """A message that may be removed.

    :ivar ours: whether it was brought for it.
    """

    uid: bytes
    octets: int
    ours: bool


class Examination:
    """Sessions with a server, and what they find.

    :param clock: seconds, of a clock that nobody sets.
    """

    def __init__(self, target: Target, clock: Callable[[], float]) -> None:
        self.target = target
        self._clock = clock
        self.trace = Trace([target.password, f"\0{target.user}\0{target.password}"])
        #: The messages that may be removed, and the bodies of those that were brought, by unique-id.
        self.doomed: list[Doomed] = []
        self.brought: dict[bytes, bytes] = {}
        #: The bodies of those that were sent and have not come, by a word in them.
        self._sent: dict[bytes, bytes] = {}
        self._capabilities: Capabilities | None = None
        #: The lines in which they came: for what is wrong with them, and was asked in another check.
        self.announcement: tuple[str, ...] = ()
        self._unknown = self._no_login = ""
        self._second: Reply | None = None
        self._wrong: Reply | None = None
        #: The answer to the right name and password, if that was a no for good.
        self.turned_away: Reply | None = None
        #: Whether somebody has logged in; until then, why a session came to nothing, the last one that did.
        self.logged_in = False
        self.shut_out = ""
        #: Whether STLS, which was asked for, was refused; then all is left out but what goes before it.
        self.no_stls = False
        #: The time of checks.
        self.budget = Budget(clock, target.timeout, target.patience + target.idle)
        self._in_vain = self._no_tls_in_vain = 0
        #: Seconds for the answer to QUIT, if not those of others.
        self._after_quit: float | None = None
        self._why = self._no_tls = ""

    # -- connections ---------------------------------------------------------------

    def dial(self) -> Connection:
        """A connection on which nothing was said, within TLS if that comes first.

        :raises CannotTry: if there is none.
        :raises NotTested: if the certificate is not trusted.
        """
        connection = self.unencrypted()
        if self.target.tls == "implicit":
            self.shake_hands(connection)
        return connection

    def unencrypted(self) -> Connection:
        """A connection on which not even TLS has begun.

        :raises CannotTry: if there is none.
        """
        try:
            sock = socket.create_connection((self.target.host, self.target.port), self.target.timeout)
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise CannotTry(f"{self.target.host}:{self.target.port} does not answer: {why}") from None
        # Each octet in a packet of its own where that is asked for.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Connection(sock, self.trace, self._clock, self.target.timeout, self.budget)

    def shake_hands(self, connection: Connection) -> None:
        """TLS on a connection, with the certificate looked at.

        :raises NotTested: if it is not trusted.
        :raises Trouble: if it comes to nothing.
        """
        try:
            connection.start_tls(self.target.context, self.target.host)
        except ssl.SSLCertVerificationError as error:
            connection.drop()
            raise NotTested(f"the certificate is not trusted: {error.verify_message}") from None
        except Trouble:
            connection.drop()
            raise

    def greeted(self) -> Connection:
        """A connection that was greeted, in the clear where TLS comes by STLS.

        :raises NotTested: if there is no greeting.
        """
        if self._why:
            raise NotTested(self._why)
        try:
            connection = self.dial()
        except (Trouble, CannotTry) as trouble:
            raise self._vain(f"no session: {trouble}") from None
        try:
            greeting = connection.reply("(greeting)")
        except Trouble as trouble:
            connection.drop()
            raise self._vain(f"no session: {trouble}") from None
        if not greeting.ok:
            connection.drop()
            raise self._vain(f"no session: {greeting}")
        connection.greeting = greeting.line
        return connection

    def _vain(self, why: str) -> NotTested:
        self._in_vain += 1
        if self._in_vain >= _GIVE_UP:
            self._why = why
        return NotTested(why)

    def stranger(self) -> Connection:
        """A connection in AUTHORIZATION, within TLS if there is any.

        :raises NotTested: if there is none.
        """
        with self._needed():
            return self._stranger()

    @contextmanager
    def _needed(self) -> Iterator[None]:
        """Remember why nobody came so far."""
        try:
            yield
        except NotTested as why:
            self.shut_out = str(why)
            raise

    def _stranger(self) -> Connection:
        if self._no_tls:
            raise NotTested(self._no_tls)
        connection = self.greeted()
        if self.target.tls == "stls":
            try:
                answer = connection.ask("STLS")
                self.no_stls = not answer.ok
                if not answer.ok:
                    raise Trouble(str(answer))
                self.shake_hands(connection)
            except Trouble as trouble:
                connection.drop()
                self._no_tls_in_vain += 1
                if self._no_tls_in_vain >= _GIVE_UP:
                    # What is said in the clear, STLS among it, is looked at all the same.
                    self._no_tls = f"no TLS: {trouble}"
                raise NotTested(f"no TLS: {trouble}") from None
        return connection

    def capabilities(self, connection: Connection) -> Capabilities:
        """What CAPA says on this connection; nothing where the server has no CAPA.

        :raises Trouble: if the answer does not come to its end.
        """
        named: dict[bytes, list[bytes]] = {}
        lines: list[bytes] = []
        if connection.ask("CAPA").ok:
            lines = connection.block("CAPA").lines
            for line in lines:
                if words := line.split():
                    named[words[0].upper()] = words[1:]
        return Capabilities(named, lines)

    @property
    def announced(self) -> Capabilities:
        """What CAPA says before login, within TLS if there is any.

        :raises NotTested: if that is not known.
        """
        if self._unknown:
            raise NotTested(self._unknown)
        if self._capabilities is None:
            with self.stranger() as connection:
                try:
                    self._capabilities = self.capabilities(connection)
                    self.announcement = self.trace.lines
                except Trouble as trouble:
                    # Asked again, it would be waited for again.
                    self._unknown = f"the capabilities are not known: {trouble}"
                    raise NotTested(self._unknown) from None
        return self._capabilities

    def needs(self, name: bytes) -> list[bytes]:
        """The arguments of a capability.

        :raises NotTested: if it is not announced.
        """
        if name not in self.announced:
            raise NotTested(f"{name.decode()} is not announced")
        return self.announced.named[name]

    # -- sessions ------------------------------------------------------------------

    def log_in(self, connection: Connection) -> Reply:
        """Say name and password, by whatever is announced: the answer."""
        try:
            way = self.password
            if b"USER" not in self.announced and b"PLAIN" in self.announced.mechanisms:
                way = self.plain
        except NotTested:
            # There may be no CAPA, but USER is as old as POP3.
            pass
        answer = way(connection, self.secret)
        self.logged_in = self.logged_in or answer.ok
        return answer

    @property
    def secret(self) -> str:
        """The password.

        :raises NotTested: if it was refused: servers count how often it is tried again.
        """
        if self.turned_away is not None:
            raise NotTested(f"no login: {self.turned_away}")
        return self.target.password

    def turn_away(self, answer: Reply) -> None:
        """Name and password were answered by a no."""
        self.turned_away = answer

    def password(self, connection: Connection, password: str) -> Reply:
        """Say name and password with USER and PASS: the last answer."""
        answer = connection.ask(f"USER {self.target.user}")
        return connection.ask(f"PASS {password}", "PASS ****") if answer.ok else answer

    def plain(self, connection: Connection, password: str) -> Reply:
        """The same with AUTH PLAIN and an initial response."""
        return connection.ask(f"AUTH PLAIN {self.response(password)}", "AUTH PLAIN ****")

    def response(self, password: str) -> str:
        """What PLAIN sends, in base64."""
        return base64.b64encode(f"\0{self.target.user}\0{password}".encode()).decode()

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """A session in TRANSACTION; QUIT ends it unless a message is marked or something went wrong.

        :raises NotTested: if the server lets nobody in.
        """
        with self._needed():
            connection = self._logged_in()
        with connection:
            yield connection
            if not connection.marked and not connection.over:
                self.quit(connection)

    def second_login(self) -> Reply:
        """What a second session hears while the mailbox is in use; asked once, since servers let it wait.

        :raises NotTested: if it is kept waiting for too long.
        """
        if self._second is None:
            with self.session(), self.stranger() as other:
                try:
                    self._second = self.log_in(other)
                except Silent:
                    self._second = WAITS
        if self._second is WAITS:
            raise NotTested(f"a second session is kept waiting for more than {self.target.timeout:g} s")
        return self._second

    def wrong_password(self) -> Reply:
        """What a wrong password hears; asked once, since servers count them."""
        if self._wrong is None:
            with self.stranger() as connection:
                self._wrong = self.password(connection, WRONG)
        return self._wrong

    def quit(self, connection: Connection) -> None:
        """Say QUIT, and wait until the server has done what it does then."""
        self.trace.paused = True
        try:
            connection.send(b"QUIT\r\n")
            connection.reply("QUIT", self._after_quit)
            if not connection.ended(self._after_quit):
                self._after_quit = min(_AFTER_QUIT, self.target.timeout)
        except Silent:
            self._after_quit = min(_AFTER_QUIT, self.target.timeout)
        except Trouble:
            # That is for the checks of QUIT.
            pass
        finally:
            self.trace.paused = False
        connection.drop()

    def _logged_in(self) -> Connection:
        if self._no_login:
            raise NotTested(self._no_login)
        until = self._clock() + self.target.patience
        while True:
            connection = self.stranger()
            try:
                answer = self.log_in(connection)
            except Trouble as trouble:
                connection.drop()
                raise self._vain(f"no login: {trouble}") from None
            if answer.ok:
                self._in_vain = 0
                return connection
            self.quit(connection)
            passes = may_pass(answer)
            if not passes or self._clock() > until:
                # Each further try would be a wrong password more, which servers count.
                self._no_login = f"no login: {answer}"
                if answer.refused and not passes:
                    self.turn_away(answer)
                raise NotTested(self._no_login)
            self.pause(_PAUSE)

    def pause(self, seconds: float) -> None:
        """Let time pass, as the only thing to do with a server that is not ready."""
        select.select([], [], [], seconds)

    # -- what is in the mailbox ------------------------------------------------------

    def sizes(self, session: Connection) -> dict[int, int]:
        """Octets by number, as LIST says; lines that are none are left out."""
        return {
            number: int(rest)
            for number, rest in _numbered(session.listing("LIST"))
            if rest.isdigit() and len(rest) < 20
        }

    def uids(self, session: Connection) -> dict[int, bytes]:
        """Unique-ids by number, as UIDL says.

        :raises NotTested: if there is no UIDL.
        """
        answer = session.ask("UIDL")
        if not answer.ok:
            raise NotTested(f"there is no UIDL: {answer}")
        return dict(_numbered(session.block("UIDL")))

    def sample(self, session: Connection, most: int = 5) -> dict[int, int]:
        """Some messages, of small ones the first and the last: octets by number.

        :raises NotTested: if there are none.
        """
        small = [(number, octets) for number, octets in self.sizes(session).items() if octets <= _SMALL]
        if not small:
            raise NotTested("there is no message to look at")
        return dict(small if len(small) <= most else [*small[: most - 2], *small[-2:]])

    def doomed_number(self, session: Connection) -> int:
        """The number of a message that may be removed.

        :raises NotTested: if there is none.
        """
        if not self.target.destructive:
            raise NotTested("it marks a message: --destructive")
        uids = {one.uid for one in self.doomed}
        for number, uid in self.uids(session).items():
            if uid in uids:
                return number
        raise NotTested("there is no message that may be removed")

    def mark(self, session: Connection, number: int) -> Reply:
        """DELE; from then on the session is never ended by QUIT, unless a check says it."""
        session.marked = True
        return session.ask(f"DELE {number}")

    # -- messages to remove ------------------------------------------------------------

    def prepare(self) -> list[Doomed]:
        """See that there is a server; bring messages, if asked to, and choose what may be removed.

        :return: these.
        :raises CannotTry: if there is no server, or messages cannot be brought.
        """
        self.budget.begin()
        try:
            self.dial().drop()
        except (NotTested, Trouble):
            # The certificate, or the handshake: there is a check for it.
            pass
        if self.target.destructive:
            try:
                self._choose()
            except (NotTested, Failed) as why:
                # Without, what went wrong is for the checks to find.
                if self.target.smtp is not None:
                    self.clean_up()
                    raise CannotTry(f"no message can be brought: {why}") from None
        return self.doomed

    def _choose(self) -> None:
        with self.session() as session:
            before, sizes = self.uids(session), self.sizes(session)
        if self.target.smtp is None:
            for number in sorted(before)[:1]:
                self.doomed = [Doomed(before[number], sizes.get(number, 0), ours=False)]
            return
        self.deliver()
        self.collect(set(before.values()))

    def deliver(self) -> None:
        """Send messages by SMTP.

        :raises CannotTry: if they are not taken.
        """
        assert self.target.smtp is not None, "whoever calls looks"
        self._sent.update(bring(self.target.smtp, self.target.deliver_to, self.target.timeout))

    def collect(self, before: Collection[bytes]) -> None:
        """Wait until the messages that were sent are in the mailbox, and let them be removed.

        :param before: the unique-ids that are there already.
        """
        patience = _DELIVERY * self.target.timeout
        until = self._clock() + patience
        while self._sent:
            with self.session() as session:
                sizes = self.sizes(session)
                for number, uid in self.uids(session).items():
                    # Other people's mail may come in the meantime.
                    if uid not in before and uid not in self.brought:
                        message = session.body(f"RETR {number}").message
                        for token in [one for one in self._sent if one in message]:
                            self.brought[uid] = self._sent.pop(token)
                            self.doomed.append(Doomed(uid, sizes.get(number, 0), ours=True))
            if self._sent and self._clock() > until:
                left = len(self._sent)
                raise NotTested(f"{left} message{'s'[: left != 1]} did not come within {patience:g} s")
            if self._sent:
                self.pause(_PAUSE)

    def clean_up(self) -> None:
        """Remove the messages that were brought and are still there."""
        ours = {one.uid for one in self.doomed if one.ours}
        if ours:
            try:
                with self.session() as session:
                    for number, uid in self.uids(session).items():
                        if uid in ours:
                            self.mark(session, number)
                    self.quit(session)
            except (NotTested, Failed):
                # The report says what is wrong with the server.
                pass


def may_pass(answer: Reply) -> bool:
    """Whether a login was refused for what has nothing to do with name and password."""
    code = answer.code.upper().split(b"/")[0]
    return code in (b"IN-USE", b"LOGIN-DELAY", b"SYS") or b"lock" in answer.text.lower()


def _numbered(block: Block) -> Iterator[tuple[int, bytes]]:
    for line in block.lines:
        number, _, rest = line.partition(b" ")
        # Python would take digits by the thousand.
        if number.isdigit() and len(number) < 12:
            yield int(number), rest[:1000]
