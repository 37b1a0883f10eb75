"""Stored passwords: what other programs wrote is checked, what is new is made well."""

from __future__ import annotations

import base64
import hmac
import stringprep
from concurrent.futures import ThreadPoolExecutor
from unittest import SkipTest

from hypothesis import given
from hypothesis import strategies as st
from passlib.utils import saslprep as other_saslprep
from scramp import ScramMechanism
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.auth.accounts import hmac_md5, libcrypt
from pop3toy.auth.accounts.passwd_file import parse as parse_file
from pop3toy.auth.accounts.schemes import MADE, make, parse
from pop3toy.auth.accounts.verifier import derive, saslprep

PASSWORD = "sécret 1".encode()

# Made by ``doveadm pw -s SCHEME -p PASSWORD`` of Dovecot 2.3.19.
DOVECOT = """\
{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$vafWpc9FFTS8G9+E7tmviQ$WIwHJ4p7jWzAcI5XNVjgwbSi4BdqZuIptGwg+ezDYBc
{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$7sF4XHydU2GBQJLMoMiLfA$kPN/PzH5bNpacEeKhBLgsgu2Aw6kWaa4Y5jbd0OJoWs
{BLF-CRYPT}$2y$05$7TntHtsB6lsOESH/nGPv9OwXgTSQkGuNJd3eIXaK8uLFWnNiTCCjO
{SHA256-CRYPT}$5$OmjK8cE.OKvmbSdu$1q3.I6onDrDyMDzFtyhOJn6yuTm/.LTEnAWCXf4Sac9
{SHA512-CRYPT}$6$DKgQ3EmBnCVYmhvN$773h/IKjg8PLjL9EJmjLCkT.ETDp2pV9qSnV3k8u1tAppiGCwFsoQ3OlT/IzNcOX5sCd4B5faCngK6VP.g73v/
{MD5-CRYPT}$1$hiz/jwgH$nSxQM.QNmDw3TOoJZRZeR/
{SSHA}tiNXs/ntNXNVMtN3VKTLs7OFiOmxdMWI
{SSHA256}FW0oz9roVWTov7BeQSMxPWk4/iTo8MtUPn5BFLqvSbjo7tX1
{SSHA512}Vr9OklzC9TwoJC5uQ+30NaePd5jidNFVfWewKQAYySnziL+OmFukSiTiCPTu3K1YEe6ueSvR82hWM7yJV/7YHpdmDQ0=
{SHA}8UD9IbKwSVQa43L8o9BuL4/fMdA=
{SHA1}8UD9IbKwSVQa43L8o9BuL4/fMdA=
{SHA256}cQYL05dRD171Nudn6QxW+HhCtut7nKO69eqMfJAX4fU=
{SHA512}o48T1qMUHw52ROLEJ54dRZsUiYrfirlGW0Mi57YSFQcE3/2lFAp75eBWbTgkqSBWfzvhM6xMuTqKfsySfLi6iQ==
{SMD5}6yA5rJYbwM+P6drDeDOtM+Ab0yI=
{PLAIN}sécret 1
{PLAIN-MD5}a312811e774b2a7f748c3eac0c884f6a
{LDAP-MD5}oxKBHndLKn90jD6sDIhPag==
{PBKDF2}$1$g50naBRPgh2/C7gA$5000$59edc5e00872e7362e6b6028177ec5ed800fa55e
{SCRAM-SHA-1}4096,BL2/Neo7llYf1uNtEP087w==,miFdysTTHZLCt6NQnGTGn3brlyc=,ODli1/JnCzySoevtC/gZlBx3A3I=
{SCRAM-SHA-256}4096,QmhIDAkNFOGYNCNkqAU7WA==,pPPaXNKZY+gvQIQ9iLDzjB57GZGSk+jOGZITsnZvODg=,UH5zXtzUgS1lYuKjWIQVP8YOCCgBuYoWhIwOfaMF/Cs=
{CRAM-MD5}dc9902eb4484390511fc1755eb07ce73cdd357f7593885cac17be244d50cd12d
{HMAC-MD5}dc9902eb4484390511fc1755eb07ce73cdd357f7593885cac17be244d50cd12d
{MD5}$1$S073e6Un$oz2jSXM6ALm.Lv/xPHvpr.
{MD5}a312811e774b2a7f748c3eac0c884f6a
{MD5}oxKBHndLKn90jD6sDIhPag==
{CRYPT}$2y$05$CXJJ/F7sYY.qtREjix3XD.GK28DsPgI4D7QP9KOxigGFRUJ540qT.
{SSHA.HEX}494676e71aa9226359bef416b0293297eee72fe647f6d5e3
{PLAIN.B64}c8OpY3JldCAx
""".splitlines()

# Made by ``openssl passwd -1``, ``-5``, ``-6`` and ``-apr1`` of OpenSSL 3.0.
OPENSSL = """\
$1$FbN4doH9$QD.mwb0B2oWVYSnnEZgwm1
$5$FknTo8PYT4vZs1VA$Ou7DsK1CPs7s46sIqnh3Mr89.jPTdbPFgVfnsKSSemC
$6$f9rl.uuF1FQNGjv7$z9dEnVHyVTZBUibtmDvcvRXhJvl2rrtc5JXGCpoSojxR2cyD/FOWKePtmiC0gqrYQxhfyZ2EZfpjlMIT.6HMp1
$apr1$tNQxtbkU$kOWzUMh5oK1ZQgla0yAik0
""".splitlines()

# Made by crypt(3) of libxcrypt 4.4; the second with the least to compute.
YESCRYPT = """\
$y$j9T$abcdefghijklmnop$Bwh9Nd0Nrx34H/nxGPlQMjkzOYHbfeu4ukB69sWrYA.
$y$j75$abcdefghijklmnop$sv.IuyAp9eTey/4mwA5RLCj0cyrFiLzNM2px3faHjY8
""".splitlines()

# The verifier of the user "user" with the password "pencil" in the conversation of RFC 7677 section 3.
RFC5803 = (
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
    "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)


class VerifyTests(SynchronousTestCase):
    """Passwords that other implementations stored."""

    def test_right(self) -> None:
        """Each known-good hash fits its password."""
        for line in DOVECOT + OPENSSL:
            self.assertTrue(parse(line.encode()).verify(PASSWORD), line)

    def test_wrong(self) -> None:
        """No hash fits another password or a part of it."""
        for line in DOVECOT + OPENSSL:
            stored = parse(line.encode())
            for wrong in (b"", PASSWORD[:-1], PASSWORD + b"1")[: 3 if stored.cheap else 2]:
                self.assertFalse(stored.verify(wrong), (line, wrong))

    def test_strange_octets(self) -> None:
        """Octets that are no text, hold a NUL or are too many are a wrong password for every scheme."""
        for line in DOVECOT + OPENSSL:
            for wrong in (b"\xff\xfe", b"a\0b", b"x" * 5000):
                self.assertFalse(parse(line.encode()).verify(wrong), (line, wrong))

    def test_rfc5803(self) -> None:
        """A verifier in the form of RFC 5803 works with and without a scheme in front."""
        for text in (RFC5803, "{SCRAM-SHA-256}" + RFC5803):
            stored = parse(text.encode())
            self.assertTrue(stored.verify(b"pencil"))
            self.assertFalse(stored.verify(b"pencils"))
            self.assertEqual("sha256", stored.verifier("sha256") and "sha256")
            self.assertIsNone(stored.verifier("sha1"))

    def test_long_bcrypt(self) -> None:
        """A password beyond bcrypt's 72 octets is checked, not an error."""
        import bcrypt

        stored = parse(bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)))
        self.assertTrue(stored.verify(b"x" * 100))

    def test_recoverable(self) -> None:
        """Only a password kept in clear text is recoverable."""
        recoverable = [line for line in DOVECOT if parse(line.encode()).secret == PASSWORD]
        self.assertEqual(["{PLAIN}sécret 1", "{PLAIN.B64}c8OpY3JldCAx"], recoverable)

    def test_no_secret_in_repr(self) -> None:
        """Neither password nor hash shows in a repr."""
        for line in DOVECOT:
            self.assertNotIn(line.partition("}")[2][-6:], repr(parse(line.encode())))


class DesTests(SynchronousTestCase):
    """Traditional crypt(3), which looks at eight octets of a password, and at seven bits of each."""

    def test_right(self) -> None:
        """What Dovecot's doveadm and crypt(3) made is checked, with and without the scheme's own name."""
        for text in ("{DES-CRYPT}qxg9vRKu1sez2", "{CRYPT}qxg9vRKu1sez2"):
            stored = parse(text.encode())
            self.assertEqual(("DES-CRYPT", True), (stored.scheme, stored.outdated))
            self.assertTrue(stored.verify(PASSWORD))
            for wrong in (b"", PASSWORD[:7], b"s" + PASSWORD, b"\xff\xfe", b"a\0b", b"x" * 5000):
                self.assertFalse(stored.verify(wrong), wrong)

    def test_never_bare(self) -> None:
        """Thirteen characters without a scheme could be anything."""
        self.assertRaises(ValueError, parse, b"qxg9vRKu1sez2")


class YescryptTests(SynchronousTestCase):
    """yescrypt, the usual hash of Linux."""

    def test_right(self) -> None:
        """It is checked by the system's libcrypt, in several threads at once too."""
        if not libcrypt.yescrypt_works():
            raise SkipTest("the system's libcrypt has no yescrypt")
        for line in YESCRYPT:
            for text in (line, "{CRYPT}" + line):
                self.assertEqual("YESCRYPT", parse(text.encode()).scheme)
            stored = parse(line.encode())
            self.assertEqual((False, True), (stored.cheap, stored.outdated))
            attempts = [PASSWORD, PASSWORD[:-1], b"\xff\xfe", PASSWORD + b"\0", b"x" * 5000] * 4
            with ThreadPoolExecutor(4) as pool:
                found = list(pool.map(stored.verify, attempts))
            self.assertEqual([True, False, False, False, False] * 4, found)
        first, second = (parse(line.encode()).cost for line in YESCRYPT)
        self.assertNotEqual(first, second)

    def test_missing(self) -> None:
        """Where the system's library cannot, the line's problem names it, and others are none the worse."""
        self.patch(libcrypt, "_NAMES", ("libthat-is-not-there.so.1", "libc.so.6"))
        for cached in (libcrypt._library, libcrypt.yescrypt_works):
            cached.cache_clear()
            self.addCleanup(cached.cache_clear)
        found = parse_file(b"ann:%b\nbob:{PLAIN}x\n" % YESCRYPT[0].encode())
        self.assertEqual({"bob"}, set(found.by_name))
        [problem] = found.problems
        self.assertRegex(str(problem), r"line 1: .*yescrypt.*libxcrypt")
        self.assertFalse(problem.missing_library)


class HmacMD5Tests(SynchronousTestCase):
    """MD5 that begins in the middle."""

    @given(st.binary(max_size=150), st.binary(max_size=300))
    def test_like_hmac(self, password: bytes, text: bytes) -> None:
        """A digest from what is kept is the one from the password."""
        made = hmac_md5.digest(hmac_md5.contexts(password), text)
        self.assertEqual(hmac.digest(password, text, "md5"), made)

    def test_dovecot(self) -> None:
        """What is kept is what Dovecot keeps, also of a password that is longer than MD5's block."""
        for password, kept in (
            (PASSWORD, "dc9902eb4484390511fc1755eb07ce73cdd357f7593885cac17be244d50cd12d"),
            (b"x" * 100, "52197db948d0932512a61b183e7d05b04e94d60a3bb0d00f92d3df52a5d275ca"),
        ):
            self.assertEqual(kept, hmac_md5.contexts(password).hex())


class ParseTests(SynchronousTestCase):
    """What is not understood is said, without repeating it."""

    def test_broken(self) -> None:
        """Each broken form is refused with a reason that holds none of its text."""
        for text in (
            "",
            "hunter2",
            "{NEWSCHEME}hunter2",
            "{SSHA}hunter2",
            "{SSHA}aHVudGVyMg==",
            "{SHA}tiNXs/ntNXNVMtN3VKTLs7OFiOmxdMWI",
            "{SSHA.hex}hunter2",
            "{ARGON2ID}hunter2",
            "{BLF-CRYPT}$2y$05$hunter2",
            "{SHA512-CRYPT}$6$hunter2",
            "{PBKDF2}$1$hunter2$0$aa",
            "{SCRAM-SHA-256}hunter2",
            "{SCRAM-SHA-256}4096,a,b,c",
            "{PLAIN}",
            "$y$j9T$hunter2",
            "{CRAM-MD5}hunter2",
            "{DES-CRYPT}hunter2",
            "{MD5}hunter2",
            "{CRYPT}hunter2",
        ):
            with self.assertRaises(ValueError) as caught:
                parse(text.encode())
            self.assertNotIn("hunter2", str(caught.exception))

    @given(st.binary(max_size=60) | st.sampled_from(DOVECOT).map(str.encode), st.binary(max_size=20))
    def test_never_raises_else(self, text: bytes, tail: bytes) -> None:
        """Any octets are a stored password or a ValueError."""
        try:
            parse(text + tail)
        except ValueError:
            pass

    def test_cost(self) -> None:
        """Equal parameters cost the same whatever the salt; other parameters do not."""
        low, high = (
            f"{{PBKDF2}}$1${salt}${rounds}$" + "a" * 40 for salt, rounds in (("x", 5000), ("y", 6000))
        )
        self.assertNotEqual(parse(low.encode()).cost, parse(high.encode()).cost)
        self.assertEqual(parse(low.encode()).cost, parse(low.replace("x", "z").encode()).cost)
        self.assertTrue(parse(b"{PLAIN}x").cheap)
        self.assertFalse(parse(DOVECOT[0].encode()).cheap)


class MakeTests(SynchronousTestCase):
    """New passwords."""

    def test_round_trip(self) -> None:
        """What is made in each scheme is read, fits, and fits in one field of one line."""
        for scheme in MADE:
            for password in (b"simple", PASSWORD, b" a:b ", b"{x}"):
                made = make(password, scheme)
                self.assertTrue(parse(made).verify(password), made)
                self.assertNotIn(b":", made)
                self.assertEqual(made.strip(), made)

    def test_outdated(self) -> None:
        """A hash that today would be made otherwise is outdated; what a mechanism needs is not."""
        fresh = {scheme: parse(make(b"x", scheme)).outdated for scheme in MADE}
        self.assertEqual(dict.fromkeys(MADE, False), fresh)
        self.assertTrue(parse(DOVECOT[0].encode()).outdated)
        self.assertTrue(parse(DOVECOT[6].encode()).outdated)
        self.assertFalse(parse(b"{CRAM-MD5}" + b"0" * 64).outdated)

    def test_not_made(self) -> None:
        """An old scheme is not made any more."""
        with self.assertRaises(ValueError):
            make(b"x", "SSHA")

    def test_other_programs_read_it(self) -> None:
        """Dovecot finds the passwords right that are made here."""
        import shutil
        import subprocess

        doveadm = shutil.which("doveadm")
        if doveadm is None:
            raise SkipTest("dovecot is not installed")
        for scheme in MADE:
            made = make(PASSWORD, scheme).decode()
            done = subprocess.run([doveadm, "pw", "-t", made, "-p", PASSWORD.decode()], capture_output=True)
            self.assertIn(b"(verified)", done.stdout, (scheme, done))


class VerifierTests(SynchronousTestCase):
    """What is kept for SCRAM."""

    def test_other_implementation(self) -> None:
        """Salt, stored key and server key are those that scramp makes."""
        for name, hash_name in (("SCRAM-SHA-1", "sha1"), ("SCRAM-SHA-256", "sha256")):
            made = derive(PASSWORD, hash_name, b"0123456789abcdef", 4096)
            theirs = ScramMechanism(name).make_auth_info(PASSWORD.decode(), 4096, b"0123456789abcdef")
            self.assertEqual(theirs, (made.salt, made.stored_key, made.server_key, made.iterations))

    def test_no_secret_in_repr(self) -> None:
        """The keys do not show in a repr."""
        made = derive(b"x", "sha256", b"0123456789abcdef", 4096)
        self.assertNotIn(repr(made.stored_key), repr(made))

    def test_rfc4013_examples(self) -> None:
        """The examples of RFC 4013 section 3 come out as they say."""
        for given_, expected in (
            ("I\u00adX", "IX"),
            ("user", "user"),
            ("USER", "USER"),
            ("\u00aa", "a"),
            ("\u2168", "IX"),
        ):
            self.assertEqual(expected, saslprep(given_))
        # The last two begin and end with a letter that is written from the right (section 2.4).
        for prohibited in ("\u0007", "\u0627\u0031", "\u0627a\u0628", "\u0627\u0628a\u0628"):
            with self.assertRaises(ValueError):
                saslprep(prohibited)

    @given(st.text(max_size=12))
    def test_saslprep_as_libpass(self, text: str) -> None:
        """Names and passwords are prepared as another implementation prepares them.

        It normalizes by the Unicode of today, which makes other letters of some that Unicode 3.2 did not
        have; RFC 3454 is about 3.2, and RFC 4013 section 2.5 prohibits what that does not have.
        """
        if any(stringprep.in_table_a1(c) for c in text):
            with self.assertRaises(ValueError):
                saslprep(text)
            return
        try:
            theirs = other_saslprep(text)
        except ValueError:
            with self.assertRaises(ValueError):
                saslprep(text)
        else:
            self.assertEqual(theirs, saslprep(text))

    def test_unpreparable_password(self) -> None:
        """Octets that SASLprep cannot take make a verifier all the same."""
        made = derive(b"\xff\xfe", "sha256", base64.b64decode("AAAA"), 4096)
        self.assertTrue(made.fits(b"\xff\xfe", "sha256"))
