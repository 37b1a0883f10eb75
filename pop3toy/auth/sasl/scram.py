"""SCRAM-SHA-1 and SCRAM-SHA-256, with and without channel binding (RFC 5802, 7677, 9266).

The server's side of the conversation.  Own code, because no library for
Python does it with ``tls-exporter``, the only binding that TLS 1.3 defines;
scramp speaks the client's part in the tests.  Verifiers are made and kept elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable
from typing import ClassVar

from ...errors import AuthenticationFailed, BadCommand
from ...interfaces import Challenge, TLSFacts
from ..accounts.verifier import Verifier, saslprep
from ..credentials import Unknown
from ..login import ProvenIdentity
from ..maybe_deferred import resolved
from .exchange import AuthResult, MechanismContext, decode_base64, text

__all__ = ["ScramSHA1", "ScramSHA1Plus", "ScramSHA256", "ScramSHA256Plus"]

#: RFC 5802 section 7: gs2-cbind-flag "," [ "a=" saslname ] "," then
#: username "," nonce and extensions, none of which is known.
_CLIENT_FIRST = re.compile(
    rb"((?P<flag>[ny]|p=(?P<binding>[A-Za-z0-9.-]+)),(?:a=(?P<authzid>[^,\0]+))?,)"
    rb"(?P<bare>n=(?P<user>[^,\0]+),r=(?P<nonce>[\x21-\x2b\x2d-\x7e]+)(?:,[A-Za-z]=[^,\0]+)*)"
)
_CLIENT_FINAL = re.compile(
    rb"(?P<signed>c=(?P<binding>[A-Za-z0-9+/=]+),r=(?P<nonce>[\x21-\x2b\x2d-\x7e]+)(?:,[A-Za-z]=[^,\0]+)*)"
    rb",p=(?P<proof>[A-Za-z0-9+/=]+)"
)


class _Scram:
    """One conversation: client-first, server-first, client-final, server-final, and an empty end."""

    name: ClassVar[str]
    hash_name: ClassVar[str]
    plus: ClassVar[bool] = False
    client_first: ClassVar[bool] = True

    def __init__(self, context: MechanismContext) -> None:
        self.user: str | None = None
        self._context = context
        self._next: Callable[[bytes], Awaitable[Challenge | AuthResult]] = self._client_first
        self._authzid: str | None = None
        # Set in this order while the conversation goes on.
        self._header = b""
        self._bound = b""
        self._bare = b""
        self._nonce = b""
        self._server_first = b""
        self._known = False
        self._account: str | None = None
        self._verifier: Verifier
        self._used: Callable[[], object] = lambda: None

    @classmethod
    def available(cls, context: MechanismContext) -> bool:
        """Where some account has a verifier for this hash, and a channel binding if it needs one."""
        return cls.hash_name in context.accounts.scram_hashes() and (not cls.plus or bool(_bindings(context)))

    async def step(self, response: bytes | None) -> Challenge | AuthResult:
        """Take the next message; see :class:`~pop3toy.auth.sasl.exchange.Mechanism`."""
        return await self._next(response or b"")

    async def _client_first(self, message: bytes) -> Challenge:
        found = _CLIENT_FIRST.fullmatch(message)
        if found is None:
            # An "m=" is refused here as well: an unknown mandatory extension.
            raise BadCommand("this is not a SCRAM client-first message")
        self._bind(found["flag"], found["binding"])
        self._header, self._bare = found[1], found["bare"]
        self._nonce = found["nonce"] + self._context.nonce().encode("ascii")
        self._authzid = _name(found["authzid"]) if found["authzid"] else None
        self.user = _name(found["user"])
        # The client signs the name as it was sent; salt and keys are the account's.
        self._account = await resolved(self._context.names.account(self.user))
        user = Unknown(self.user) if self._account is None else self._account
        accounts = self._context.accounts
        allowed = await resolved(accounts.login_allowed(user, self._context.channel))
        # A barred account goes the way of a user who is not there, with all
        # its work: its proof is never judged.
        kept = await resolved(accounts.verifier(user, self.hash_name))
        verifier = kept if allowed else None
        # All spellings of an account's name get the same salt, so those of an unknown name do, too.
        dummy = accounts.dummy_verifier(self._context.names.dummy_name(self.user), self.hash_name)
        self._known = verifier is not None
        self._verifier = dummy if verifier is None else verifier
        salt = base64.b64encode(self._verifier.salt)
        self._server_first = b"r=%b,s=%b,i=%d" % (self._nonce, salt, self._verifier.iterations)
        self._next = self._client_final
        return Challenge(self._server_first)

    def _bind(self, flag: bytes, binding: bytes | None) -> None:
        """Find the octets to which the client says it has bound the conversation (RFC 5802 section 6)."""
        bindings = _bindings(self._context)
        if binding is not None:
            make = bindings.get(binding.decode("ascii")) if self.plus else None
            if make is None:
                raise AuthenticationFailed("this channel binding is not supported here")
            self._bound = make()
        elif self.plus:
            raise AuthenticationFailed("this mechanism needs a channel binding")
        elif flag == b"y" and bindings and self._context.wanted(f"{self.name}-PLUS"):
            # The client could bind and believes that the server cannot, but it
            # was told so: an attacker on the way has taken -PLUS out of the list.
            raise AuthenticationFailed("the list of mechanisms was tampered with")

    async def _client_final(self, message: bytes) -> Challenge:
        found = _CLIENT_FINAL.fullmatch(message)
        if found is None:
            raise BadCommand("this is not a SCRAM client-final message")
        bound = hmac.compare_digest(_decoded(found["binding"]), self._header + self._bound)
        same_nonce = hmac.compare_digest(found["nonce"], self._nonce)
        signed = b",".join((self._bare, self._server_first, found["signed"]))
        proof = _decoded(found["proof"])
        fitting = [
            one
            for one in (self._verifier, *self._verifier.others)
            if _proves(one.stored_key, proof, signed, self.hash_name)
        ]
        if not (bound and same_nonce and fitting and self._known):
            self._context.accounts.be_sure()
            raise AuthenticationFailed
        proven = fitting[0]
        if await resolved(proven.is_empty()):
            raise AuthenticationFailed(detail="what is kept is the verifier of an empty password")
        verdict = hmac.digest(proven.server_key, signed, self.hash_name)
        self._used = proven.used
        self._next = self._end
        # POP3 sends no data with success (RFC 5034 section 4), so the server's
        # proof is a challenge, which the client answers with nothing.
        return Challenge(b"v=" + base64.b64encode(verdict))

    async def _end(self, message: bytes) -> AuthResult:
        if message:
            raise BadCommand("this SCRAM response must be empty")
        assert self.user is not None
        self._used()
        identity = ProvenIdentity(self.user, self._context.channel, self._account)
        return AuthResult(identity, self.user, self._authzid)


class ScramSHA1(_Scram):
    """RFC 5802."""

    name: ClassVar[str] = "SCRAM-SHA-1"
    hash_name: ClassVar[str] = "sha1"


class ScramSHA1Plus(ScramSHA1):
    """RFC 5802, bound to the TLS connection."""

    name: ClassVar[str] = "SCRAM-SHA-1-PLUS"
    plus: ClassVar[bool] = True


class ScramSHA256(_Scram):
    """RFC 7677."""

    name: ClassVar[str] = "SCRAM-SHA-256"
    hash_name: ClassVar[str] = "sha256"


class ScramSHA256Plus(ScramSHA256):
    """RFC 7677, bound to the TLS connection."""

    name: ClassVar[str] = "SCRAM-SHA-256-PLUS"
    plus: ClassVar[bool] = True


def _proves(stored_key: bytes, proof: bytes, signed: bytes, hash_name: str) -> bool:
    """Whether a proof shows that the client has the password of which this key was made."""
    signature = hmac.digest(stored_key, signed, hash_name)
    # Of another length it is certainly wrong, and shortened here.
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=False))
    made = hashlib.new(hash_name, client_key).digest()
    return hmac.compare_digest(made, stored_key) and len(proof) == len(signature)


def _bindings(context: MechanismContext) -> dict[str, Callable[[], bytes]]:
    """The channel bindings that this connection has, by their registered names."""
    tls: TLSFacts | None = context.channel.tls
    bindings: dict[str, Callable[[], bytes]] = {}
    if tls is not None and tls.exporter is not None:
        exporter = tls.exporter
        # RFC 9266 section 4.2: this label, an empty context, 32 octets.
        bindings["tls-exporter"] = lambda: exporter(b"EXPORTER-Channel-Binding", b"", 32)
    if tls is not None and tls.server_end_point is not None:
        end_point = tls.server_end_point
        bindings["tls-server-end-point"] = lambda: end_point
    return bindings


def _name(escaped: bytes) -> str:
    """A saslname: ``=2C`` is a comma, ``=3D`` is ``=`` (RFC 5802 section 5.1)."""
    if re.search(rb"=(?!2C|3D)", escaped):
        raise BadCommand("the user name is not escaped as SCRAM asks")
    try:
        return saslprep(text(escaped.replace(b"=2C", b",").replace(b"=3D", b"=")))
    except ValueError:
        raise BadCommand("the user name holds what SASLprep prohibits") from None


def _decoded(encoded: bytes) -> bytes:
    try:
        return decode_base64(encoded)
    except ValueError:
        raise BadCommand("this is not base64 inside of SCRAM") from None
