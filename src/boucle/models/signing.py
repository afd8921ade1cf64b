"""Who made a version: Ed25519 signatures (RFC 8032) in the envelope of DSSE 1.0, made with the project's own key.

A key folder holds `signing.pem` (private, readable by its owner only) and `trusted/*.pem` (public keys whose
signatures are accepted; ours is among them). It is made at the first signature. A machine that only serves gets
`trusted` alone. The envelope is <https://github.com/secure-systems-lab/dsse>, which in-toto and Sigstore use too.
"""

import base64
import binascii
import hashlib
import os
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from boucle.errors import BoucleError

__all__ = ["ROLES", "VERSION", "Envelope", "Keys", "Paper", "Unsigned"]

Unsigned = Literal["refuse", "allow"]
"""What becomes of a version without a signature of a trusted key."""


class Paper(Struct, frozen=True):
    """A kind of signed document: the type that is signed with it, so that none is taken for another, and its words."""

    type: str
    called: str
    restore: str


VERSION = Paper(
    "application/vnd.boucle.model-version+json",
    "this version",
    "restore the version from where it was made; somebody changed it",
)
ROLES = Paper(
    "application/vnd.boucle.model-roles+json",
    "the file of roles",
    "restore the file, or look at what it says: boucle models sign NAME",
)


class _Signature(Struct, frozen=True):
    keyid: str
    sig: str


class Envelope(Struct, frozen=True):
    """A payload and who signed it, as DSSE writes them (both in base64)."""

    payload: str
    payloadType: str  # noqa: N815 - the spelling of DSSE
    signatures: tuple[_Signature, ...] = ()

    def content(self) -> bytes:
        """The payload; ValueError when it is no base64."""
        return base64.b64decode(self.payload, validate=True)


class Keys:
    """The key pair of a project and the public keys it trusts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sign(self, payload: bytes, paper: Paper = VERSION) -> bytes:
        """The envelope of a payload, signed by our key, which is made when there is none."""
        private = self._private()
        keyid = _keyid(private.public_key())
        signature = _Signature(keyid, base64.b64encode(private.sign(_encoded(payload, paper))).decode())
        envelope = Envelope(base64.b64encode(payload).decode(), paper.type, (signature,))
        return msgspec.json.encode(envelope)

    def open(
        self, told: bytes, where: str, unsigned: Unsigned = "refuse", paper: Paper = VERSION
    ) -> tuple[bytes, str]:
        """The payload of an envelope and the key that signed it (empty: nobody we trust, and that is allowed).

        B613 when it is no envelope, B614 when no key we trust signed it, B615 when its signature is not one of
        these bytes; the last is refused even where unsigned is allowed.
        """
        try:
            envelope = msgspec.json.decode(told, type=Envelope)
            payload = envelope.content()
        except (msgspec.DecodeError, ValueError) as error:
            what = f"{paper.called} is no signed envelope"
            raise BoucleError("B613", what, where=where, why=str(error), fix=paper.restore) from error
        trusted = self.trusted() if envelope.signatures else {}
        for signature in envelope.signatures:
            if key := trusted.get(signature.keyid):
                if envelope.payloadType == paper.type and _verified(key, signature.sig, payload, paper):
                    return payload, signature.keyid
                raise BoucleError(
                    "B615",
                    "the signature is not one of these bytes",
                    where=where,
                    why=f"key {signature.keyid[:12]}… is trusted, but it did not sign this",
                    fix=paper.restore,
                )
        if unsigned == "allow":
            return payload, ""
        who = ", ".join(f"{one.keyid[:12]}…" for one in envelope.signatures) or "nobody"
        raise BoucleError(
            "B614",
            f"{paper.called} is not signed by a key we trust",
            where=where,
            why=f"signed by {who}; trusted are {', '.join(f'{one[:12]}…' for one in trusted) or 'none'}",
            fix=f"put the public key of who signed it into {self.folder / 'trusted'}, or declare unsigned: allow",
        )

    def trusted(self) -> dict[str, Any]:
        """The public keys whose signatures are accepted, by their id; B616 when one cannot be read."""
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        found = {}
        for file in sorted((self.folder / "trusted").glob("*.pem")):
            try:
                key = load_pem_public_key(file.read_bytes())
                found[_keyid(key)] = key
            except (ValueError, OSError) as error:
                raise _unreadable(file, str(error)) from error
        return found

    def _private(self) -> Any:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        file = self.folder / "signing.pem"
        if not file.exists():
            self._make(file)
        try:
            return load_pem_private_key(file.read_bytes(), password=None)
        except (ValueError, TypeError, OSError) as error:
            raise _unreadable(file, str(error)) from error

    def _make(self, file: Path) -> None:
        from cryptography.hazmat.primitives import serialization as written
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(written.Encoding.PEM, written.PrivateFormat.PKCS8, written.NoEncryption())
        public = private.public_key()
        (self.folder / "trusted").mkdir(parents=True, exist_ok=True)
        told = public.public_bytes(written.Encoding.PEM, written.PublicFormat.SubjectPublicKeyInfo)
        # The public part first: whoever is killed in between leaves a key nobody uses, never a key nobody trusts.
        (self.folder / "trusted" / f"{_keyid(public)[:16]}.pem").write_bytes(told)
        beside = self.folder / f".signing.{os.getpid()}.new"
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as out:
            out.write(pem)
            out.flush()
            os.fsync(out.fileno())
        try:
            os.link(beside, file)  # refuses to replace the key of somebody who was faster
        except FileExistsError:
            pass
        finally:
            beside.unlink()


def _keyid(public: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    raw = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(raw).hexdigest()


def _encoded(payload: bytes, paper: Paper) -> bytes:
    """What is signed: DSSE's pre-authentication encoding of type and payload."""
    return b"DSSEv1 %d %s %d %s" % (len(paper.type), paper.type.encode(), len(payload), payload)


def _verified(key: Any, signature: str, payload: bytes, paper: Paper) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(base64.b64decode(signature, validate=True), _encoded(payload, paper))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _unreadable(file: Path, why: str) -> BoucleError:
    fix = "restore it (PEM, Ed25519), or remove it and sign anew"
    return BoucleError("B616", "this key cannot be read", where=str(file), why=why, fix=fix)
