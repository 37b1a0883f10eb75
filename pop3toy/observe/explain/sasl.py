"""SASL exchanges: what each line of a mechanism holds (RFC 4422), for POP3 and SMTP alike."""

from __future__ import annotations

import base64
import binascii
import re

from ...printable import printable
from .explanation import N_, Explanation, Say, clause

__all__ = ["MECHANISMS", "Exchange", "decoded"]

#: What a mechanism is, and where it stands.
MECHANISMS: dict[str, tuple[str, str]] = {
    "PLAIN": (N_("name and password in one line of base64: no encryption, so for TLS alone"), clause(4616)),
    "LOGIN": (N_("name and password one after the other in base64: older than PLAIN, and as open"), ""),
    "CRAM-MD5": (
        N_("the server sends a challenge, the answer is made of it and the password with MD5"),
        clause(2195),
    ),
    "SCRAM-SHA-1": (
        N_("both sides prove that they know the password, and neither sends it (with SHA-1)"),
        clause(5802),
    ),
    "SCRAM-SHA-256": (
        N_("both sides prove that they know the password, and neither sends it (with SHA-256)"),
        clause(7677),
    ),
    "SCRAM-SHA-1-PLUS": (
        N_("SCRAM-SHA-1 bound to this TLS connection, so that nobody can stand between"),
        clause(5802),
    ),
    "SCRAM-SHA-256-PLUS": (
        N_("SCRAM-SHA-256 bound to this TLS connection, so that nobody can stand between"),
        clause(7677),
    ),
    "EXTERNAL": (N_("who the client is says its TLS certificate"), clause(4422, "A")),
    "OAUTHBEARER": (N_("a token from somewhere else in place of a password"), clause(7628)),
    "XOAUTH2": (N_("a token in place of a password, as Google and Microsoft had it before OAUTHBEARER"), ""),
    "ANONYMOUS": (N_("a guest, who may only look"), clause(4505)),
}

_MASKED = b"****"


def decoded(line: bytes) -> bytes | None:
    """What base64 holds; ``None`` if it is none."""
    try:
        return base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        return None


def _text(octets: bytes) -> str:
    return printable(octets.decode("utf-8", "backslashreplace"))


class Exchange:
    """One exchange: it is told of lines and challenges, and says what is in them.

    :param private: whether nobody on a network can listen.
    """

    def __init__(self, mechanism: str, say: Say, *, private: bool) -> None:
        self._mechanism = mechanism
        self._say = say
        self._private = private
        self._lines = 0

    @property
    def _clause(self) -> str:
        return MECHANISMS.get(self._mechanism, ("", ""))[1]

    def line(self, line: bytes) -> list[Explanation]:
        """Of a line of the client's, or of the initial response behind AUTH."""
        self._lines += 1
        say = self._say
        if line == b"*":
            return [Explanation("note", say(N_("A star gives the exchange up.")), clause(4422, "3.5"))]
        if line == b"=":
            return [Explanation("note", say(N_("An initial response that is empty.")), clause(5034, "4"))]
        if line == _MASKED:
            return self._masked()
        octets = decoded(line)
        if octets is None:
            return [
                Explanation(
                    "hint",
                    say(N_("This is not base64, as each line of an exchange has to be.")),
                    clause(4648, "4"),
                )
            ]
        return self._shown(octets)

    def _note(self, text: str, kind: str = "note", /, **values: object) -> list[Explanation]:
        return [Explanation(kind, self._say(text, **values), self._clause)]

    def _masked(self) -> list[Explanation]:
        if self._mechanism in ("PLAIN", "LOGIN"):
            if self._private:
                return self._note(
                    "Base64, not shown here. It is no encryption; nobody can listen on this connection."
                )
            return self._note(
                "Base64, not shown here. It is no encryption: whoever sees this line has the password.",
                "warning",
            )
        if self._mechanism.startswith("SCRAM"):
            return self._scram_line("")
        if self._mechanism == "CRAM-MD5":
            return self._note(
                "The name, and a digest of challenge and password; the password itself is not sent."
            )
        if self._mechanism in ("OAUTHBEARER", "XOAUTH2"):
            return self._note("The token, not shown here: who has it can log in as long as it is valid.")
        return []

    def _shown(self, octets: bytes) -> list[Explanation]:
        if self._mechanism == "PLAIN":
            _, _, rest = octets.partition(b"\0")
            user, _, password = rest.partition(b"\0")
            return self._note(
                "Decoded: name {user}, password {password}. Base64 only makes text of octets; it is no"
                " encryption, and anybody can undo it.",
                "note" if self._private else "warning",
                user=_text(user),
                password=_text(password),
            )
        if self._mechanism == "LOGIN":
            what = (
                N_("Decoded: the name {text}.") if self._lines == 1 else N_("Decoded: the password {text}.")
            )
            return self._note(
                what, "note" if self._private or self._lines == 1 else "warning", text=_text(octets)
            )
        if self._mechanism == "CRAM-MD5":
            user, _, digest = octets.rpartition(b" ")
            return self._note(
                "Decoded: name {user}, digest {digest}: HMAC-MD5 of the challenge with the password"
                " as key."
                " Who overhears it cannot use it again, but can try passwords against it.",
                user=_text(user),
                digest=_text(digest),
            )
        if self._mechanism.startswith("SCRAM"):
            return self._scram_line(_text(octets))
        if self._mechanism == "ANONYMOUS":
            return self._note("Decoded: {text}; a guest may say who they are.", text=_text(octets))
        if self._mechanism == "EXTERNAL":
            return self._note(
                "Decoded: {text}, the name to act as; empty for that of the certificate.",
                text=_text(octets),
            )
        if self._mechanism in ("OAUTHBEARER", "XOAUTH2"):
            return self._note(
                "Decoded: {text}; the token is what the server asks about elsewhere.", text=_text(octets)
            )
        return []

    def _scram_line(self, text: str) -> list[Explanation]:
        if self._lines == 1:
            first = N_(
                "The client's first message{decoded}: its name and a random number (r), so that no"
                " old exchange can be"
                " played again."
            )
        elif self._lines == 2:
            first = N_(
                "The client's final message{decoded}: the proof (p) is made of the password and of"
                " all that was said;"
                " the password cannot be got from it."
            )
        else:
            return self._note("An empty line: the server's proof was right.")
        return self._note(first, decoded=self._decoded(text))

    def _decoded(self, text: str) -> str:
        return self._say(N_(", decoded {text}"), text=text) if text else ""

    def challenge(self, line: bytes) -> list[Explanation]:
        """Of a line of the server's, behind its ``+`` or ``334``."""
        octets = decoded(line)
        if not line:
            return self._note("An empty challenge: the client is to begin.")
        if line == _MASKED or octets is None:
            return []
        text = _text(octets)
        if self._mechanism == "LOGIN":
            return self._note("Decoded: {text}; the server asks, in base64 as well.", text=text)
        if self._mechanism == "CRAM-MD5":
            return self._note(
                "Decoded: {text}; the challenge, which is another one for each login.", text=text
            )
        if self._mechanism.startswith("SCRAM"):
            fields = dict(re.findall(r"(?:^|,)([a-z])=([^,]*)", text))
            if "i" in fields:
                return self._note(
                    "The server's first message, decoded {text}: it adds to the random number (r), and"
                    " tells salt (s)"
                    " and rounds (i = {rounds}) with which the password is hashed.",
                    text=text,
                    rounds=fields["i"],
                )
            if "v" in fields:
                return self._note(
                    "The server's final message, decoded {text}: its own proof (v) that it knows the"
                    " password, too.",
                    text=text,
                )
        return self._note("Decoded: {text}", text=text)
