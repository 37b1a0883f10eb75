"""What the files of other servers say, and which messages are the same."""

from __future__ import annotations

import struct

from twisted.trial.unittest import SynchronousTestCase

from pop3toy.moving import courier, cyrus, dovecot
from pop3toy.moving.dovecot import NotRead, Settings
from pop3toy.moving.matching import Known, match, sort_out

LIST = b"""3 V1700000000 N9 G4947c5014cd50c6bbf2f000083ecc375
1 :1700000001.M1P1.h
2 S42 W44 :1700000002.M1P1.h:2,S
3 Psaved Gabc :1700000003.M1P1.h
4 P :1700000004.M1P1.h:2,
7 O2 :1700000005.M1P1.h
8 O1 :a name: with a colon
"""


class DovecotTests(SynchronousTestCase):
    """``dovecot-uidlist``."""

    def uids(self, form: str, text: bytes = LIST) -> list[bytes]:
        """Unique-ids in the order in which they are listed."""
        return [one.uid for one in dovecot.listed(dovecot.parse(text), Settings(form))]

    def test_order_and_saved(self) -> None:
        """Those with a number first, then by UID; what was saved goes before the format."""
        expected = [
            b"8.1700000000",
            b"7.1700000000",
            b"1.1700000000",
            b"2.1700000000",
            b"saved",
            b"1700000004.M1P1.h",
        ]
        self.assertEqual(self.uids("%u.%v"), expected)

    def test_names(self) -> None:
        """Base names end at the colon; octets are those of the wire."""
        found = dovecot.listed(dovecot.parse(LIST), Settings())
        self.assertEqual((found[0].name, found[0].octets), ("a name", None))
        self.assertEqual((found[3].name, found[3].octets), ("1700000002.M1P1.h", 44))
        self.assertEqual(found[2].uid, b"000000016553f100")

    def test_guid(self) -> None:
        """The GUID of a line, else the name."""
        text = LIST.replace(b"Psaved ", b"")
        self.assertEqual(self.uids("%g", text)[2:5], [b"1700000001.M1P1.h", b"1700000002.M1P1.h", b"abc"])

    def test_version_1(self) -> None:
        """As Dovecot 1 wrote it."""
        self.assertEqual(
            self.uids("%v.%u", b"1 1700000000 4\n1 name:2,S\n3 other\n"), [b"1700000000.1", b"1700000000.3"]
        )

    def test_not_read(self) -> None:
        """A file that is not understood as a whole is not believed at all."""
        for text in (
            b"",
            b"2 V1 N1\n",
            b"3 N1\n",
            LIST[:-1],
            LIST + b"8 :again\n",
            LIST + b"x\n",
            LIST + b"9 name\n",
        ):
            self.assertRaises(NotRead, dovecot.parse, text)

    def test_formats_that_are_none(self) -> None:
        """Of what is not known nothing is guessed."""
        for form in ("", "fixed", "%m", "%Mm", "%{md5}", "%z", "%Hu", "%u%"):
            self.assertRaises(NotRead, dovecot.Format, form)

    def test_settings(self) -> None:
        """What doveconf prints, with or without quotes."""
        said = dovecot.settings_of(
            'protocol pop3 {\n  pop3_uidl_format = "%v-%u"\n  pop3_uidl_duplicates = rename\n}\n'
        )
        self.assertEqual(said, Settings("%v-%u", rename=True, reuse_xuidl=False))
        nothing = dovecot.settings_of("# pop3_uidl_format = %f\npop3_uidl_format =\n")
        self.assertEqual(nothing.reuse_xuidl, False)
        said = dovecot.settings_of("pop3_reuse_xuidl = yes # as qpopper\npop3_uidl_format=%g\r\n")
        self.assertEqual(said, Settings("%g", reuse_xuidl=True))
        self.assertIn("hidden", dovecot.settings_of("pop3_deleted_flag = x\n").warning)
        self.assertRaises(NotRead, dovecot.settings_of, "pop3_reuse_xuidl = yes\n!include conf.d/*.conf\n")

    def test_renamed(self) -> None:
        """The second of two that are alike gets a number where Dovecot gave it one."""
        text = b"3 V1 N9\n1 Pa :x\n2 Pa :y\n"
        found = dovecot.listed(dovecot.parse(text), Settings(rename=True))
        self.assertEqual([one.uid for one in found], [b"a", b"a-2"])
        # By UID, whatever the order in which they are listed; and what is made so may be taken as well.
        text = b"3 V1 N9\n1 Pa O2 :x\n2 Pa O1 :y\n3 Pa-2 :z\n"
        found = dovecot.listed(dovecot.parse(text), Settings(rename=True))
        self.assertEqual([one.uid for one in found], [b"a-2", b"a", b"a-2-2"])
        found = dovecot.listed(
            dovecot.parse(b"3 V1 N9\n1 Pa-2 :x\n2 Pa :y\n3 Pa :z\n"), Settings(rename=True)
        )
        self.assertEqual([one.uid for one in found], [b"a-2", b"a", b"a-2-2"])

    def test_xuidl(self) -> None:
        """The header counts behind what was saved and before the format, if that is known."""
        uids = dovecot.parse(b"3 V1 N9\n1 Pa :x\n2 :y\n3 :z\n")
        headers = {"x": "1", "y": "2"}
        found = dovecot.listed(uids, Settings("%u", reuse_xuidl=True), headers)
        self.assertEqual([one.uid for one in found], [b"a", b"2", b"3"])
        found = dovecot.listed(uids, Settings("%u.", reuse_xuidl=False), headers)
        self.assertEqual([one.uid for one in found], [b"a", b"2.", b"3."])
        self.assertRaises(NotRead, dovecot.listed, uids, Settings(), headers)
        self.assertEqual(len(dovecot.listed(uids, Settings(), {})), 3)

    def test_xuidl_header(self) -> None:
        """The first of them; one that Dovecot tells in several lines is none."""
        for header, expected in (
            (b"Subject: a\nX-UIDL: abc\nX-UIDL: def\n", "abc"),
            (b"x-uidl :  abc \t\r\nSubject: a\r\n", "abc"),
            (b"X-UIDL:\n", ""),
            (b"X-UIDL: abc", "abc"),
            (b"X-UIDL: abc\n def\n", "abc\n"),
            (b"X-UIDL:\r\n\tdef\r\n", "\n"),
            (b"My-X-UIDL: abc\n", None),
        ):
            self.assertEqual(dovecot.xuidl(header), expected, header)


class CourierTests(SynchronousTestCase):
    """``courierpop3dsizelist``."""

    def test_versions(self) -> None:
        """All of them."""
        for text, expected in (
            (b"/3 4 17\n1700000001.a:2,S 44 1:17:0\n1700000002.b 61 2:0:1\n", [b"UID1-17", b"UID2"]),
            (b"/2 4 17\n1700000001.a:2,S 44 1:17\n1700000002.b 61 0:0\n", [b"UID1-17", b"1700000002.b"]),
            (b"/1 4\n1700000001.a:2,S 44 1\n1700000002.b 61 0\n", [b"UID1", b"1700000002.b"]),
            (b"1700000001.a+b 44\n1700000002.b 61\n", [b"1700000001.a+2Bb", b"1700000002.b"]),
        ):
            self.assertEqual([one.uid for one in courier.listed(text)], expected)

    def test_order(self) -> None:
        """By the time that names begin with."""
        found = courier.listed(b"/2 4 17\n1700000002.a 44 1:17\n999.z 61 2:17\n1700000001.b 1 3:17\n")
        self.assertEqual([one.name for one in found], ["999.z", "1700000001.b", "1700000002.a"])

    def test_not_read(self) -> None:
        """A file that is not understood as a whole is not believed at all."""
        for text in (b"/9 1 1\n", b"/2 4 17\nname 44\n", b"/2 4 17\nname 44 1:17", b"/2\n"):
            self.assertRaises(NotRead, courier.listed, text)


class CyrusTests(SynchronousTestCase):
    """The spool."""

    def test_formats(self) -> None:
        """What ``uidl_format`` makes."""
        found = {form: cyrus.uidl(form, 5, 1_700_000_000) for form in cyrus.FORMATS}
        expected = (b"1700000000.5", b"5", b"000000056553f100", b"1700000000-5")
        self.assertEqual(tuple(found.values()), expected)

    def test_messages(self) -> None:
        """Files of messages, by UID."""
        self.assertEqual(cyrus.messages(["10.", "9.", "cyrus.index", "x.", "0.", "7"]), [9, 10])

    def test_index(self) -> None:
        """Numbers of versions that are known, and of no other; expunged messages are not listed."""
        for version, uidvalidity, options, flags in ((10, 44, 60, 32), (19, 44, 60, 32), (20, 92, 64, 36)):
            index = bytearray(128 + 3 * 48)
            struct.pack_into(">IIII", index, 8, version, 128, 48, 3)
            struct.pack_into(">I", index, uidvalidity, 17)
            struct.pack_into(">I", index, options, 5)
            for at, (uid, said) in enumerate(((2, 4), (7, 1 << 31), (8, 0))):
                struct.pack_into(">I", index, 128 + at * 48, uid)
                struct.pack_into(">I", index, 128 + at * 48 + flags, said)
            self.assertEqual(cyrus.index(bytes(index)), cyrus.Index(17, True, [2, 8]))
            self.assertRaises(NotRead, cyrus.index, bytes(index[:-1]))
            struct.pack_into(">I", index, options, 4)
            self.assertFalse(cyrus.index(bytes(index)).formatted)
            struct.pack_into(">I", index, 128 + 2 * 48, 2)
            self.assertRaises(NotRead, cyrus.index, bytes(index))
            struct.pack_into(">I", index, 8, 21)
            self.assertRaises(NotRead, cyrus.index, bytes(index))
        self.assertRaises(NotRead, cyrus.index, b"short")

    def test_header(self) -> None:
        """Whose the mailbox is."""
        for name in (b"user.ann", b"example.org!user.ann^b", b'"user.ann b"'):
            header = b"\241\002Cyrus mailbox header\n%%(T e N %b I 3zjj Q user.ann A %%(ann lrs))\n" % name
            self.assertEqual(cyrus.mailbox_name(header), name.strip(b'"').decode())
        self.assertIsNone(cyrus.mailbox_name(b"Cyrus mailbox header\nuser.ann\t5a\n"))

    def test_places(self) -> None:
        """Where Cyrus has an inbox that is named after the user."""
        self.assertEqual(cyrus.mailbox_names("ann"), ["user.ann"])
        self.assertEqual(cyrus.mailbox_names("a.b@x.org"), ["x.org!user.a^b", "user.a^b@x^org"])
        self.assertEqual(cyrus.folders("user.ann"), ["user/ann", "a/user/ann"])
        self.assertEqual(cyrus.folders("user.7"), ["user/7", "q/user/7"])
        self.assertEqual(
            cyrus.folders("x.org!user.a^b"), ["domain/x.org/user/a^b", "domain/x/x.org/a/user/a^b"]
        )


class MatchTests(SynchronousTestCase):
    """Which is which."""

    def test_by_name(self) -> None:
        """In the order of the other server; what only one side has is told."""
        known = [Known(b"2", "b"), Known(b"1", "a"), Known(b"3", "gone")]
        found = match(known, ["a", "b", "new"])
        self.assertEqual(list(found.uids.items()), [("b", b"2"), ("a", b"1")])
        self.assertEqual((found.by_name, found.missing, found.unknown), (2, [known[2]], ["new"]))
        self.assertEqual(found.doubts, [])

    def test_by_contents(self) -> None:
        """Octets and hash have to be the same, both of them."""
        known = [Known(b"1"), Known(b"2"), Known(b"3")]
        theirs = {b"1": (10, "x"), b"2": (11, "x"), b"3": (10, "y")}
        found = match(known, ["a", "b", "c"], theirs, {"a": (11, "x"), "b": (10, "z"), "c": (10, "y")})
        self.assertEqual(found.uids, {"a": b"2", "c": b"3"})

    def test_the_same_twice(self) -> None:
        """Messages that are the same in all octets get one unique-id each."""
        known = [Known(b"1"), Known(b"2")]
        theirs = {b"1": (10, "x"), b"2": (10, "x")}
        found = match(known, ["a", "b"], theirs, dict.fromkeys(("a", "b"), (10, "x")))
        self.assertEqual(list(found.uids.items()), [("a", b"1"), ("b", b"2")])

    def test_doubts(self) -> None:
        """What cannot be given to anybody."""
        for uids in ((b"a", b"a"), (b"a", b"A"), (b"with blank",), (b"",), (b"x" * 71,), (b"\xff",)):
            good, doubts = sort_out([Known(uid) for uid in uids])
            self.assertEqual((len(good), len(doubts)), (len(uids) - 1, 1), uids)
        self.assertEqual(sort_out([Known(b"a"), Known(b"b")]), ([Known(b"a"), Known(b"b")], []))
        self.assertEqual(len(match([Known(b"a", "x"), Known(b"b", "x")], ["x"]).doubts), 1)
