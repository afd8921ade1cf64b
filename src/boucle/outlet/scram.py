"""SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's half, with verifiers as PostgreSQL writes them.

A verifier is `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, all base64: who steals it cannot log in
with it.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import stringprep
import unicodedata

from msgspec import Struct

from boucle.errors import BoucleError

__all__ = ["Exchange", "Verifier", "make_verifier", "read_verifier"]

ITERATIONS = 4096
"""RFC 7677's least, and PostgreSQL's own."""

_MOST = 1_000_000
_VERIFIER = re.compile(r"SCRAM-SHA-256\$(\d{1,7}):([^$:]+)\$([^$:]+):([^$:]+)")
_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


class Verifier(Struct, frozen=True):
    """What the server keeps of a password."""

    iterations: int
    salt: bytes
    stored: bytes
    server: bytes

    def __str__(self) -> str:
        salt, stored, server = (
            base64.b64encode(part).decode() for part in (self.salt, self.stored, self.server)
        )
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored}:{server}"

    def accepts(self, password: str) -> bool:
        """Whether this is the password, where it is given in the clear (HTTP, over TLS)."""
        return hmac.compare_digest(_keys(password, self.salt, self.iterations)[0], self.stored)


def make_verifier(password: str, iterations: int = ITERATIONS) -> Verifier:
    """A verifier of a password, with a salt of its own."""
    salt = secrets.token_bytes(16)
    return Verifier(iterations, salt, *_keys(password, salt, iterations))


def read_verifier(text: str) -> Verifier:
    """A verifier out of its text; B840 for anything else."""
    found = _VERIFIER.fullmatch(text.strip())
    try:
        raw = [base64.b64decode(part, validate=True) for part in found.groups()[1:]] if found else []
    except binascii.Error:
        raw = []
    if found is None or [len(part) for part in raw[1:]] != [32, 32] or not 1 <= int(found[1]) <= _MOST:
        raise BoucleError(
            "B840",
            "a password verifier cannot be read",
            why="it is not SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey",
            fix="boucle serve --add-user NAME",
        )
    return Verifier(int(found[1]), *raw)


def _keys(password: str, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    salted = hashlib.pbkdf2_hmac("sha256", _prepared(password).encode(), salt, iterations)
    client = hmac.digest(salted, b"Client Key", "sha256")
    return hashlib.sha256(client).digest(), hmac.digest(salted, b"Server Key", "sha256")


def _prepared(password: str) -> str:
    """SASLprep (RFC 4013), and the password as it is where that forbids it, as PostgreSQL does."""
    mapped = "".join(
        " " if stringprep.in_table_c12(one) else one for one in password if not stringprep.in_table_b1(one)
    )
    normal = unicodedata.normalize("NFKC", mapped)
    if not normal or any(test(one) for one in normal for test in _PROHIBITED):
        return password
    return normal


class Exchange:
    """One authentication: `first` answers the client's first message, `last` its second."""

    def __init__(self, verifier: Verifier, nonce: str | None = None) -> None:
        self._verifier = verifier
        self._nonce = nonce or base64.b64encode(secrets.token_bytes(18)).decode()
        self._header = self._said = ""

    def first(self, data: bytes) -> bytes:
        """The server's challenge; ValueError when the message is not one of SCRAM without channel binding."""
        said = data.decode()
        flag, _, bare = said.partition(",")
        authzid, _, bare = bare.partition(",")
        if flag not in {"n", "y"} or (authzid and not authzid.startswith("a=")):
            raise ValueError("channel binding was not offered")
        fields = _fields(bare)
        verifier = self._verifier
        self._nonce = fields["r"] + self._nonce
        answer = f"r={self._nonce},s={base64.b64encode(verifier.salt).decode()},i={verifier.iterations}"
        self._header = f"{flag},{authzid},"
        self._said = f"{bare},{answer}"
        return answer.encode()

    def last(self, data: bytes) -> bytes | None:
        """The server's proof when the client's is right, else None; ValueError for no message of SCRAM."""
        without, _, proof = data.decode().rpartition(",p=")
        fields = _fields(without)
        bound = base64.b64decode(fields["c"], validate=True) == self._header.encode()
        message = f"{self._said},{without}".encode()
        signature = hmac.digest(self._verifier.stored, message, "sha256")
        given = base64.b64decode(proof, validate=True)
        if len(given) != len(signature) or not bound or fields["r"] != self._nonce:
            return None
        client = bytes(a ^ b for a, b in zip(given, signature, strict=True))
        if not hmac.compare_digest(hashlib.sha256(client).digest(), self._verifier.stored):
            return None
        return b"v=" + base64.b64encode(hmac.digest(self._verifier.server, message, "sha256"))


def _fields(text: str) -> dict[str, str]:
    fields = {}
    for part in text.split(","):
        name, sign, value = part.partition("=")
        if not sign or len(name) != 1:
            raise ValueError("not an attribute of SCRAM")
        fields[name] = value
    if "r" not in fields:
        raise ValueError("there is no nonce")
    return fields
