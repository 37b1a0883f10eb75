"""The text of an accounts file: one line a user, as Dovecot's passwd-file has it.

``name:{SCHEME}hash``, then fields in any number: Dovecot's (uid, gid, gecos,
home, shell, extra) are tolerated, and ``key=value`` is a setting wherever it
stands.  ``#`` begins a comment.  Pure: text in, accounts or text out; who reads
and writes the file is in ``watched`` and ``edit``.  A record of one user (``records``) holds one such line.
"""

from __future__ import annotations

import base64
import codecs
import re
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple

from ..app_passwords.kept import ONLY, AppPassword, in_settings
from ..names import NameIndex
from .schemes import MissingLibrary, StoredPassword
from .schemes import parse as parse_password

__all__ = [
    "RENAMED_FROM",
    "Account",
    "AccountExists",
    "Accounts",
    "Problem",
    "check_name",
    "names",
    "parse",
    "with_account",
    "with_name",
    "with_password_renewed",
    "with_setting",
    "without_account",
    "without_setting",
]

#: A failed login costs one check of each kind that the file holds, so that
#: nobody sees by the time which kind a user has; more kinds than these are
#: not hidden, to keep a failed login from costing seconds.
_MOST_DUMMIES = 3
_KEY = re.compile(rb"([a-z_][a-z0-9_.-]*)=(.*)", re.IGNORECASE | re.DOTALL)
#: Behind a blank or a colon; but a colon may be a part of a value (``allow_nets=::1``).
_NEXT_SETTING = re.compile(rb"\s+|:+(?=[a-z_][a-z0-9_.-]*=|nologin(?:[:\s]|\Z))", re.IGNORECASE)
#: RFC 5803's form has colons inside, which would end the field.
_RFC5803 = re.compile(
    rb"(?:\{SCRAM-SHA-(?:1|256)\})?SCRAM-SHA-(?:1|256)\$\d+:[^:]*\$[^:]*:[^:]*", re.IGNORECASE
)
#: What makes the salts of users that do not exist the same after a restart.
_DUMMY_KEY = re.compile(rb"^# ?decoy-key: ?([A-Za-z0-9+/=]+) *\r?$", re.MULTILINE)


#: A setting of a user whose renaming has not come to its end yet: the old name.
RENAMED_FROM: Final = "renamed-from"


class AccountExists(ValueError):
    """There is a user of this name already."""


class Problem(NamedTuple):
    """A line that is not understood."""

    #: 1-based; 0 for something about the whole file.
    line: int
    why: str
    missing_library: bool = False

    def __str__(self) -> str:
        return f"line {self.line}: {self.why}" if self.line else self.why


@dataclass(frozen=True)
class Account:
    """One user."""

    name: str
    password: StoredPassword
    #: Settings, ``quota`` for example; a word without ``=`` has the value "".
    settings: Mapping[str, str] = field(default_factory=dict)

    def login_allowed(self, host: str | None) -> bool:
        """Whether the user may log in from this address (Dovecot's ``nologin`` and ``allow_nets``).

        :param host: the client's address in text, ``unix``, or ``None`` if unknown.
        """
        if "nologin" in self.settings:
            return False
        if self._networks is None:
            return True
        if host is None or host == "unix":
            return None in self._networks
        address = ip_address(host.partition("%")[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(network is not None and address in network for network in self._networks)

    @cached_property
    def app_passwords(self) -> tuple[AppPassword, ...]:
        """The user's app passwords."""
        return in_settings(self.settings)

    @property
    def app_passwords_only(self) -> bool:
        """Whether the main password is for the user's own page alone, and none for mail."""
        return ONLY in self.settings

    @property
    def mail_secret(self) -> bytes | None:
        """The main password, if it is kept in clear text and is one for mail."""
        return None if self.app_passwords_only else self.password.secret

    @cached_property
    def _networks(self) -> tuple[IPv4Network | IPv6Network | None, ...] | None:
        """What ``allow_nets`` holds; ``local``, a Unix socket, is ``None``."""
        allowed = self.settings.get("allow_nets")
        if allowed is None:
            return None
        words = (word.strip() for word in allowed.split(","))
        return tuple(None if word == "local" else ip_network(word, strict=False) for word in words)


@dataclass(frozen=True)
class Accounts:
    """What an accounts file says."""

    by_name: Mapping[str, Account]
    problems: tuple[Problem, ...] = ()
    #: A secret of the file's own, from which SCRAM makes the salts of users that do not exist.
    dummy_key: bytes | None = field(default=None, repr=False)
    #: The names of the lines that are not understood.
    unclear: NameIndex = field(default_factory=lambda: NameIndex(()), compare=False, repr=False)

    @cached_property
    def dummy_passwords(self) -> tuple[StoredPassword, ...]:
        """One password of each slow kind in the file, the most frequent kinds first."""
        kinds = Counter(a.password.cost for a in self.by_name.values() if not a.password.cheap)
        examples = {a.password.cost: a.password for a in self.by_name.values()}
        return tuple(examples[kind] for kind, _ in kinds.most_common(_MOST_DUMMIES))

    @cached_property
    def names(self) -> NameIndex:
        """Finds a user's name, however it is spelled."""
        return NameIndex(self.by_name)

    @property
    def has_addresses(self) -> bool:
        """Whether some user's name is a mail address."""
        return self.names.has_addresses

    @cached_property
    def has_plaintext(self) -> bool:
        """Whether some password for mail is kept in clear text."""
        return any(account.mail_secret is not None for account in self.by_name.values())

    @cached_property
    def cram_contexts(self) -> bool:
        """Whether some password for mail is kept for CRAM-MD5 alone."""
        accounts = self.by_name.values()
        return any(one.password.cram_md5 is not None and not one.app_passwords_only for one in accounts)

    @cached_property
    def scram_hashes(self) -> frozenset[str]:
        """The hashes for which SCRAM can work for somebody (``sha1``, ``sha256``)."""
        both = ("sha1", "sha256")
        if self.has_plaintext:
            return frozenset(both)
        return frozenset(name for name in both if self.scram_example(name) is not None)

    def unsupported_mechanisms(self, *, also_others: bool) -> dict[str, int]:
        """How many users cannot use a mechanism that is announced because others can.

        One whose app passwords do not work with it is among them.

        :param also_others: users who stand elsewhere can use all of them.
        :return: by name, without the mechanisms that everybody or nobody can use.
        """
        accounts = self.by_name.values()
        main = [one.password for one in accounts if not one.app_passwords and not one.app_passwords_only]
        can = {
            "APOP": sum(one.secret is not None for one in main),
            "CRAM-MD5": sum(one.secret is not None or one.cram_md5 is not None for one in main),
            "SCRAM-SHA-1": sum(one.secret is not None or one.verifier("sha1") is not None for one in main),
            "SCRAM-SHA-256": sum(
                bool(one.app_passwords)
                if one.app_passwords_only
                else one.password.secret is not None or one.password.verifier("sha256") is not None
                for one in accounts
            ),
        }
        offered = {
            "APOP": self.has_plaintext,
            "CRAM-MD5": self.has_plaintext or self.cram_contexts,
            "SCRAM-SHA-1": "sha1" in self.scram_hashes,
            "SCRAM-SHA-256": "sha256" in self.scram_hashes,
        }
        cannot = {name: len(accounts) - count for name, count in can.items()}
        return {name: count for name, count in cannot.items() if count and (offered[name] or also_others)}

    def scram_example(self, hash_name: str) -> tuple[int, int] | None:
        """Iterations and length of the salt (octets) of the first verifier for this hash."""
        for account in self.by_name.values():
            verifier = account.password.verifier(hash_name)
            if account.app_passwords_only and (hash_name == "sha1" or not account.app_passwords):
                continue
            if verifier is not None:
                return verifier.iterations, len(verifier.salt)
        return None


def parse(text: bytes) -> Accounts:
    """Read an accounts file.  Never raises: a line that is not understood is a problem."""
    by_name: dict[str, Account] = {}
    problems: list[Problem] = []
    unclear: list[str] = []
    for number, line in _lines(text):
        try:
            account = _account(line)
            if account.name in by_name:
                raise ValueError("the user stands in an earlier line already, which counts")
            by_name[account.name] = account
        except ValueError as error:
            problems.append(Problem(number, str(error), isinstance(error, MissingLibrary)))
            unclear.append(_name(line).decode("utf-8", "replace"))
    key = _DUMMY_KEY.search(text)
    return Accounts(by_name, tuple(problems), key[1] if key is not None else None, NameIndex(unclear))


def names(text: bytes) -> set[str]:
    """The names of all lines, also of those that are otherwise not understood."""
    return {_name(line).decode("utf-8", "replace") for _, line in _lines(text)}


def check_name(name: str) -> None:
    """Whether a user may be called so.

    :raises ValueError: if the name cannot stand in the file or in a command.
    """
    if not name or len(name.encode("utf-8", "replace")) > 200:
        raise ValueError("a user's name has 1 to 200 octets")
    if name.startswith("#") or any(c in ":/\\" or c.isspace() or not c.isprintable() for c in name):
        raise ValueError(
            "a user's name holds no blank, colon, slash or control character and begins not with #"
        )
    if name.startswith("."):
        raise ValueError("a user's name does not begin with a dot")


def with_account(text: bytes, name: str, password: bytes, settings: Mapping[str, str] | None = None) -> bytes:
    """The text with this user's stored password set, and the user added if need be.

    All other lines, and the other fields of this one, stay as they are; a
    decoy key is added where there is none.

    :param password: ``{SCHEME}hash``, without a colon.
    :param settings: for a new user only.
    :raises ValueError: if something cannot be written, or would not be understood.
    """
    check_name(name)
    parse_password(password)
    text = text.removeprefix(codecs.BOM_UTF8)
    if _DUMMY_KEY.search(text) is None:
        text = b"# decoy-key: %b\n" % base64.b64encode(secrets.token_bytes(24)) + text
    lines = text.splitlines(keepends=True)
    for number, line in _lines(text):
        if _name(line) == name.encode("utf-8"):
            end = lines[number - 1][len(line) :]
            # It may be a broken one, without a colon.
            changed = _name(line) + b":" + password + _after_password(line)
            try:
                _account(changed)
            except ValueError as error:
                raise ValueError(f"the line of {name} has to be mended with an editor: {error}") from None
            lines[number - 1] = changed + end
            return b"".join(lines)
    if not lines[-1].endswith((b"\n", b"\r")):
        lines.append(b"\n")
    extra = b"".join(b":" + _setting(key, value) for key, value in (settings or {}).items())
    lines.append(name.encode("utf-8") + b":" + password + extra + b"\n")
    return b"".join(lines)


def with_setting(text: bytes, name: str, key: str, value: str) -> bytes:
    """The text with one setting of this user changed, or added; all else stays as it is.

    :raises KeyError: if there is no such user.
    :raises ValueError: if it cannot be written, or the line is not understood.
    """
    return _with_words(text, name, key, _setting(key, value))


def without_setting(text: bytes, name: str, key: str) -> bytes:
    """The text without this setting of this user; all else stays as it is.

    :raises KeyError: if there is no such user.
    :raises ValueError: if the line is not understood.
    """
    return _with_words(text, name, key, None)


def with_name(text: bytes, name: str, new: str) -> bytes:
    """The text with another name for this user; all else stays as it is.

    :raises KeyError: if there is no such user.
    :raises ValueError: if nobody can be called so, or the line is not understood.
    """
    check_name(new)
    lines = text.splitlines(keepends=True)
    for number, line in _lines(text):
        if _name(line) == name.encode("utf-8"):
            changed = new.encode("utf-8") + line[len(_name(line)) :]
            _mended(name, changed)
            lines[number - 1] = lines[number - 1].replace(line, changed, 1)
            return b"".join(lines)
    raise KeyError(name)


def _mended(name: str, line: bytes) -> None:
    """See that a changed line is understood."""
    try:
        _account(line)
    except ValueError as error:
        raise ValueError(f"the line of {name} has to be mended with an editor: {error}") from None


def _with_words(text: bytes, name: str, key: str, setting: bytes | None) -> bytes:
    """The text with a setting put into the place of the first of this name, or behind all; or without any."""
    lines = text.splitlines(keepends=True)
    for number, line in _lines(text):
        if _name(line) == name.encode("utf-8"):
            fields = _after_password(line)
            inner = fields.rstrip(b":")
            # Words, each behind what parts it from the one before.
            words = re.split(b"(%b)" % _NEXT_SETTING.pattern, inner, flags=_NEXT_SETTING.flags)
            end = fields[len(inner) :]
            for at in range(0, len(words), 2):
                if words[at].lower().partition(b"=")[0] != key.encode():
                    continue
                if setting is not None:
                    # The first one counts.
                    words[at] = setting
                    break
                # With what parts it from the one before, or, where it is the first, from the next.
                words[max(at - 1, 0) : at + 1] = [b""] * (at + 1 - max(at - 1, 0))
            else:
                end += b":" + setting if setting is not None else b""
            changed = line[: len(line) - len(fields)] + b"".join(words) + end
            _mended(name, changed)
            # The byte order mark of the first line is no part of what _lines() gives.
            lines[number - 1] = lines[number - 1].replace(line, changed, 1)
            return b"".join(lines)
    raise KeyError(name)


def with_password_renewed(text: bytes, account: Account, password: bytes) -> bytes:
    """The text with a new hash for this user, if the one that is there is still ``account``'s."""
    now = parse(text).by_name.get(account.name)
    if now is None or now.password != account.password:
        return text
    return with_account(text, account.name, password)


def without_account(text: bytes, name: str) -> bytes:
    """The text without this user's lines.

    :raises KeyError: if there are none.
    """
    lines = text.splitlines(keepends=True)
    doomed = {number for number, line in _lines(text) if _name(line) == name.encode("utf-8")}
    if not doomed:
        raise KeyError(name)
    return b"".join(line for number, line in enumerate(lines, 1) if number not in doomed)


def _lines(text: bytes) -> Iterator[tuple[int, bytes]]:
    # Some editors put a byte order mark before the first line.
    for number, line in enumerate(text.removeprefix(codecs.BOM_UTF8).splitlines(), 1):
        if line.strip() and not line.startswith(b"#"):
            yield number, line


def _name(line: bytes) -> bytes:
    return line.partition(b":")[0]


def _password(line: bytes) -> bytes:
    rest = line.partition(b":")[2]
    long_form = _RFC5803.match(rest)
    return long_form[0] if long_form else rest.partition(b":")[0]


def _after_password(line: bytes) -> bytes:
    return line[len(_name(line)) + 1 + len(_password(line)) :]


def _account(line: bytes) -> Account:
    if b":" not in line:
        raise ValueError("there is no colon behind the name")
    try:
        name = _name(line).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("the name is not UTF-8") from None
    check_name(name)
    account = Account(name, parse_password(_password(line)), _settings(_after_password(line)))
    try:
        account.login_allowed("127.0.0.1")
    except ValueError:
        raise ValueError("allow_nets does not hold networks") from None
    return account


def _settings(fields: bytes) -> dict[str, str]:
    settings: dict[str, str] = {}
    for word in _NEXT_SETTING.split(fields.rstrip(b":")):
        found = _KEY.fullmatch(word)
        if found is not None:
            settings.setdefault(found[1].decode("ascii").lower(), found[2].decode("utf-8", "replace"))
        elif word == b"nologin":
            settings["nologin"] = ""
    return settings


def _setting(key: str, value: str) -> bytes:
    written = f"{key}={value}".encode()
    if _KEY.fullmatch(written) is None or re.search(rb"[:\s\x00-\x1f\x7f]", written):
        raise ValueError("a setting is written key=value, without blanks and colons")
    return written
