"""What a server that runs takes up of new settings, and what needs a restart."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.config.changes import NEEDS_RESTART, TAKEN_UP, changes_between
from pop3toy.config.settings import Settings
from pop3toy.config.table import OPTIONS, settings_of

#: A server of real mail.
REAL = {"maildir": "/srv/mail/{user}", "accounts": "/etc/accounts", "smtp-port": 25}


def settings(**more: object) -> Settings:
    """Such a server, with more options; underscores stand for hyphens."""
    return settings_of(REAL | {name.replace("_", "-"): value for name, value in more.items()})


class TableTests(SynchronousTestCase):
    """The two tables."""

    def test_every_option(self) -> None:
        """Every option is in exactly one of them."""
        self.assertEqual(set(TAKEN_UP) | set(NEEDS_RESTART), set(OPTIONS))
        self.assertEqual(set(TAKEN_UP) & set(NEEDS_RESTART), set())


class ChangesTests(SynchronousTestCase):
    """``changes_between``."""

    def test_nothing(self) -> None:
        """The same settings differ in nothing."""
        found = changes_between(settings(), settings())
        self.assertEqual((found.taken, found.restart, found.settings), ((), (), settings()))

    def test_both(self) -> None:
        """What can be taken is in force, and the rest is as before."""
        before = settings(login_delay=1)
        after = settings(login_delay=2, trusted=["192.0.2.1"], port=1110, domain=["example.org"], create=True)
        found = changes_between(before, after)
        self.assertEqual(found.taken, ("domain", "login-delay", "trusted"))
        self.assertEqual(found.restart, ("port", "create"))
        self.assertEqual(
            found.settings, settings(login_delay=2, trusted=["192.0.2.1"], domain=["example.org"])
        )

    def test_default(self) -> None:
        """An option that is not there any more has its default again."""
        found = changes_between(settings(max_per_user=3), settings())
        self.assertEqual((found.taken, found.settings), (("max-per-user",), settings()))

    def test_tls(self) -> None:
        """Other certificates are taken; TLS that begins or ends needs a restart."""
        one, other = settings(certificate="/a"), settings(certificate="/b", key="/c")
        self.assertEqual(changes_between(one, other).taken, ("certificate", "key"))
        for before, after in ((settings(), one), (one, settings())):
            found = changes_between(before, after)
            self.assertEqual((found.taken, found.restart), ((), ("certificate",)))
            self.assertEqual(found.settings, before)

    def test_users(self) -> None:
        """Users are taken where there were some, and not by the toy, which has their mailboxes."""
        some, others = settings(user=["ann:x"]), settings(user=["bob:x"])
        self.assertEqual(changes_between(some, others).taken, ("user",))
        self.assertEqual(changes_between(settings(), some).restart, ("user",))
        toys = settings_of({"user": ["ann:x"]}), settings_of({"user": ["bob:x"]})
        self.assertEqual(changes_between(*toys).restart, ("user",))

    def test_not_without_the_rest(self) -> None:
        """What needs another change, for which there has to be a restart, is not taken either."""
        before = settings(mechanisms="USER")
        after = settings(mechanisms="OAUTHBEARER", introspection="https://auth.example/")
        found = changes_between(before, after)
        self.assertEqual((found.taken, found.settings), ((), before))
        self.assertEqual(found.restart, ("mechanisms", "introspection"))

    def test_store(self) -> None:
        """Another kind of store is a restart, with all that is said of it."""
        after = settings_of({"store": "file:///srv/objects", "accounts": "/etc/accounts", "smtp-port": 25})
        found = changes_between(settings(), after)
        self.assertEqual(found.taken, ())
        self.assertIn("maildir", found.restart)
        self.assertIn("store", found.restart)
        self.assertEqual(found.settings, settings())
