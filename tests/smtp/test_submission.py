"""Submission: only our own users send, and each in the own name."""

from __future__ import annotations

from base64 import b64encode

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import ITLSTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pop3toy.auth.authenticator import PortalAuthenticator
from pop3toy.auth.throttle.connection_limiter import ConnectionLimiter, ConnectionLimits
from pop3toy.errors import BadCommand, StoreTrouble
from pop3toy.events import LineReceived, LoggedIn, LoginFailed, Observers, Refused
from pop3toy.interfaces import Channel, IMailbox
from pop3toy.routing.recipients import RecipientResolver
from pop3toy.smtp import limits
from pop3toy.smtp.factory import submission_factory
from pop3toy.smtp.submission import SenderRealm
from tests.pop3_world import Watcher
from tests.smtp_world import Accounts, Client, find_in, world

LOCAL = IPv4Address("TCP", "127.0.0.1", 4711)


def plain(user: str, password: str) -> str:
    """A PLAIN response."""
    return b64encode(f"\0{user}\0{password}".encode()).decode()


class SubmissionTests(SynchronousTestCase):
    """AUTH, and what it opens."""

    def setUp(self) -> None:
        self.accounts = Accounts()
        self.watcher = Watcher(LineReceived, LoggedIn, LoginFailed, Refused)
        recipients = RecipientResolver(
            find_in("ann", "bob"), domains=("example.org",), aliases=lambda: {"boss": ("ann",)}
        )
        self.factory, self.store, _ = world(
            submission_factory,
            self.accounts,
            tls=object(),
            observers=Observers(self.watcher),
            recipients=recipients,
        )
        self.client = Client(self.factory, LOCAL)
        self.client.say("EHLO x")

    def test_offered(self) -> None:
        """AUTH is offered where a password cannot be overheard."""
        self.assertIn("250 AUTH PLAIN LOGIN", self.client.say("EHLO x"))
        far = Client(self.factory)
        self.assertFalse([line for line in far.say("EHLO x") if "AUTH" in line])
        self.assertEqual(far.say("AUTH PLAIN " + plain("ann", "nna"))[0][:10], "538 5.7.11")

    def test_plain(self) -> None:
        """PLAIN works with an initial response and without; the message says that its sender was known."""
        self.assertEqual(self.client.say("AUTH PLAIN " + plain("ann", "nna")), ["235 2.7.0 welcome"])
        answers = self.client.say(
            "MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.org>", "DATA", "a: b", "."
        )
        self.assertEqual(answers[-1][:3], "250")
        self.assertIn(b"with ESMTPA id", self.store.messages("bob")[0])
        other = Client(self.factory, LOCAL)
        other.say("EHLO x")
        self.assertEqual(other.say("auth plain"), ["334 "])
        self.assertEqual(other.say(plain("bob", "bob")), ["235 2.7.0 welcome"])
        self.assertEqual(self.accounts.logged_out, 2)

    def test_makes_room(self) -> None:
        """Who has logged in and sends nothing makes room, before strangers; while a message comes, not."""
        limiter = ConnectionLimiter(ConnectionLimits(connections=3))
        factory, _, _ = world(submission_factory, self.accounts, limiter=limiter)
        sends, idle, stranger = (Client(factory, LOCAL) for _ in range(3))
        for client in (sends, idle):
            client.say("EHLO x", "AUTH PLAIN " + plain("ann", "nna"))
        sends.say("MAIL FROM:<ann@example.org>")
        self.assertEqual(Client(factory, LOCAL).greeting[0][:3], "220")
        self.assertEqual([one.closed for one in (sends, idle, stranger)], [False, True, False])

    def test_login(self) -> None:
        """LOGIN asks for name and password."""
        self.assertEqual(self.client.say("AUTH LOGIN"), ["334 VXNlcm5hbWU6"])
        self.assertEqual(self.client.say(b64encode(b"ann")), ["334 UGFzc3dvcmQ6"])
        self.assertEqual(self.client.say(b64encode(b"nna")), ["235 2.7.0 welcome"])
        self.assertFalse([line for line in self.client.say("EHLO x") if "AUTH" in line])

    def test_wrong_password(self) -> None:
        """A wrong password is refused, and too many of them end the connection."""
        for _ in range(limits.FAILED_LOGINS - 1):
            answers = self.client.say("AUTH PLAIN " + plain("ann", "no"))
            self.assertEqual(answers, ["535 5.7.8 invalid user name or password"])
        answers = self.client.say("AUTH PLAIN " + plain("ann", "no"))
        self.assertEqual(
            answers,
            [
                "535 5.7.8 invalid user name or password; too many failed logins, goodbye",
                "421 4.7.0 too many failed logins",
            ],
        )
        self.assertTrue(self.client.closed)

    def test_told(self) -> None:
        """Whoever counts failed logins is told from where they came, for whom, and how."""
        self.client.say(
            "AUTH PLAIN " + plain("ann", "no"), "AUTH PLAIN " + plain("bob hunter2", "no"), "AUTH PLAIN *"
        )
        self.client.say("AUTH PLAIN " + plain("ann", "nna"))
        self.assertEqual(self.watcher.failures, [("ann", "PLAIN", "AUTH"), ("bob ****", "PLAIN", "AUTH")])
        self.assertEqual(self.watcher.of(LoginFailed)[0][2:4], ("submission", Channel("127.0.0.1", True)))
        [login] = self.watcher.logins
        self.assertEqual(login[2:], ("submission", Channel("127.0.0.1", True), "ann", "PLAIN"))
        self.assertEqual(self.client.protocol.record.user, "ann")

    def test_bad_token_is_told_at_once(self) -> None:
        """A token that is no good is told when that is known, once, however the client takes it."""

        class NobodysTokens:
            def owner(self, token: str) -> None:
                return None

        authenticator = PortalAuthenticator(Portal(SenderRealm()), tokens=NobodysTokens())
        factory, _, _ = world(submission_factory, authenticator, observers=Observers(self.watcher))
        client = Client(factory, LOCAL)
        client.say("EHLO x")
        token = b64encode(b"user=ann\1auth=Bearer guess\1\1").decode()
        for number, (answer, code) in enumerate((("*", "501"), ("", "535")), 1):
            self.assertEqual(client.say(f"AUTH XOAUTH2 {token}")[0][:3], "334")
            self.assertEqual(self.watcher.failures, [("ann", "XOAUTH2", "AUTH")] * number)
            self.assertEqual(client.say(answer)[0][:3], code)
            self.assertEqual(len(self.watcher.failures), number)

    def test_in_at_last(self) -> None:
        """Who gets in after bad tokens that it did not ask about is not sent away."""

        class NobodysTokens:
            def owner(self, token: str) -> None:
                return None

        portal = Portal(SenderRealm(), [InMemoryUsernamePasswordDatabaseDontUse(ann=b"nna")])
        factory, _, _ = world(submission_factory, PortalAuthenticator(portal, tokens=NobodysTokens()))
        client = Client(factory, LOCAL)
        client.say("EHLO x")
        token = b64encode(b"user=ann\1auth=Bearer guess\1\1").decode()
        for _ in range(limits.FAILED_LOGINS):
            client.say(f"AUTH XOAUTH2 {token}", "*")
        self.assertEqual(client.say("AUTH PLAIN " + plain("ann", "nna")), ["235 2.7.0 welcome"])
        self.assertFalse(client.closed)

    def test_bad_exchanges(self) -> None:
        """What is no proper exchange is refused, and the session goes on."""
        for lines, answer in (
            (["AUTH"], "501 5.5.4 AUTH needs the name of a mechanism"),
            (["AUTH FOO"], "504 5.5.4 this mechanism is not available here"),
            (["AUTH PLAIN not-base64"], "501 5.5.2 this is not base64, authentication cancelled"),
            (["AUTH PLAIN", "not-base64"], "501 5.5.2 this is not base64, authentication cancelled"),
            (["AUTH LOGIN", "*"], "501 5.7.0 authentication cancelled"),
            (["AUTH LOGIN", "x" * limits.AUTH_LINE], "500 5.5.6 line too long"),
            (["RSET"], "250 2.0.0 ok"),
            (["AUTH PLAIN " + plain("ann", "nna")], "235 2.7.0 welcome"),
            (["AUTH PLAIN " + plain("ann", "nna")], "503 5.5.1 AUTH comes once"),
        ):
            with self.subTest(lines=lines):
                self.assertEqual(self.client.say(*lines)[-1], answer)

    def test_empty_initial_response(self) -> None:
        """A "=" is an empty initial response, not a missing one."""
        self.assertEqual(self.client.say("AUTH LOGIN ="), ["334 UGFzc3dvcmQ6"])

    def test_refused_by_the_mechanism(self) -> None:
        """A response that the mechanism cannot read is the client's mistake."""
        self.accounts.trouble = BadCommand("not well-formed")
        self.assertEqual(self.client.say("AUTH PLAIN"), ["501 5.5.2 not well-formed"])

    def test_trouble(self) -> None:
        """When the accounts cannot be read the client is to keep its password and try again."""
        self.accounts.trouble = StoreTrouble(detail="/secret/path")
        self.assertEqual(self.client.say("AUTH PLAIN"), ["454 4.7.0 login is not available at the moment"])

    def test_own_name(self) -> None:
        """Nobody writes in another's name; an alias of one's own, an address elsewhere and <> are fine."""
        self.client.say("AUTH PLAIN " + plain("ann", "nna"))
        for sender, answer in (
            ("ann@example.org", "250"), ("Ann+x@EXAMPLE.org", "250"), ("boss@example.org", "250"),
            ("", "250"), ("ann@elsewhere.example", "250"),
            ("bob@example.org", "553"), ("nobody@example.org", "553"), ("bob", "553"),
        ):  # fmt: skip
            with self.subTest(sender=sender):
                self.client.say("RSET")
                self.assertEqual(self.client.say(f"MAIL FROM:<{sender}>")[0][:3], answer)

    def test_spellings_of_here(self) -> None:
        """However this host is spelled, an address at it is its user's and nobody else's."""
        own = self.client.transport.getHost().host
        domains = [
            "example.org", "EXAMPLE.ORG.", "localhost", "Localhost.", "[127.0.0.1]", "[127.1.2.3]",
            "127.0.0.1", "[IPv6:::1]", "[ipv6:0:0:0:0:0:0:0:1]", "[IPv6:::ffff:127.0.0.1]", "[0.0.0.0]",
            f"[{own}]", own, "mx.example.org", "MX.example.org.", "\uff45xample.org",
            "example。org", "exam\u00adple.org", "example\u2024org",
        ]  # fmt: skip
        for domain in domains:
            client = Client(self.factory, LOCAL)
            client.say("EHLO x", "AUTH PLAIN " + plain("ann", "nna"))
            for user, answer in (("ann", "250"), ("Ann+x", "250"), ("bob", "553"), ("nobody", "553")):
                with self.subTest(sender=f"{user}@{domain}"):
                    client.say("RSET")
                    said = client.say(f"MAIL FROM:<{user}@{domain}> SMTPUTF8")
                    self.assertEqual(said[0][:3], answer)
        self.client.say("AUTH PLAIN " + plain("ann", "nna"))
        for domain in ("[192.0.2.99]", "[IPv6:2001:db8::1]", "mx.elsewhere.example", "1.2.3.4"):
            with self.subTest(domain=domain):
                self.client.say("RSET")
                self.assertEqual(self.client.say(f"MAIL FROM:<bob@{domain}>")[0][:3], "250")

    def test_no_relaying(self) -> None:
        """A login makes no relay of this server."""
        self.client.say("AUTH PLAIN " + plain("ann", "nna"), "MAIL FROM:<ann@example.org>")
        self.assertEqual(self.client.say("RCPT TO:<eve@elsewhere.example>")[0][:9], "550 5.7.1")

    def test_gone_in_the_middle(self) -> None:
        """A client that goes away within an exchange leaves none behind."""
        self.client.say("AUTH LOGIN")
        self.client.leave()
        self.assertEqual(self.accounts.cancelled, 1)


class RealmTests(SynchronousTestCase):
    """The realm of those who send."""

    def test_opens_nothing(self) -> None:
        """Whoever logs in to send gets a mailbox with nothing in it, and locks none."""
        checker = InMemoryUsernamePasswordDatabaseDontUse(ann=b"x")
        portal = Portal(SenderRealm(), [checker])
        realm = portal.realm.requestAvatar(b"ann", None, IMailbox)
        self.assertTrue(verifyObject(IMailbox, realm[1]))  # type: ignore[index]
        self.assertEqual(list(realm[1].entries), [])  # type: ignore[index]
        self.assertRaises(NotImplementedError, portal.realm.requestAvatar, b"ann", None, ITLSTransport)
