"""Who may ask: a file of `name:verifier` lines, shared by all interfaces of a product."""

import hmac
import os
import secrets
from pathlib import Path

from boucle.errors import BoucleError
from boucle.outlet.scram import Verifier, make_verifier, read_verifier

__all__ = ["Users", "add_user"]


class Users:
    """The users of a file; read again when it changed, so that nobody has to restart anything.

    Raises B840 when a line cannot be read.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        self._pepper = secrets.token_bytes(32)
        self._seen = (0, 0)
        self._verifiers: dict[str, Verifier] = {}
        self._accepted: dict[str, bytes] = {}
        self._renew()

    def _renew(self) -> None:
        try:
            stat = self.file.stat()
            if (stat.st_mtime_ns, stat.st_size) == self._seen:
                return
            lines = self.file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise BoucleError(
                "B840",
                "the file of users cannot be read",
                where=str(self.file),
                why=str(error),
                fix="boucle serve --add-user NAME makes it",
            ) from error
        verifiers = {}
        for line in lines:
            if line.strip() and not line.startswith("#"):
                name, _, verifier = line.partition(":")
                verifiers[name] = read_verifier(verifier)
        self._seen = (stat.st_mtime_ns, stat.st_size)
        self._verifiers, self._accepted = verifiers, {}

    def verifier(self, name: str) -> Verifier:
        """The user's verifier; for one nobody knows, one that no password fits, always with the same salt."""
        self._renew()
        known = self._verifiers.get(name)
        if known is not None:
            return known
        salt = hmac.digest(self._pepper, name.encode(), "sha256")[:16]
        return Verifier(4096, salt, secrets.token_bytes(32), secrets.token_bytes(32))

    def accepts(self, name: str, password: str) -> bool:
        """Whether name and password belong together. A right one is remembered: the next question costs nothing."""
        verifier = self.verifier(name)
        mark = hmac.digest(self._pepper, f"{name}\0{password}".encode(), "sha256")
        if hmac.compare_digest(self._accepted.get(name, b""), mark):
            return True
        right = verifier.accepts(password)
        if right:
            self._accepted[name] = mark
        return right


def add_user(file: str | Path, name: str, password: str) -> None:
    """Add a user, or change the password of one. The file is the owner's alone to read. Raises B840."""
    if not name or ":" in name or not name.isprintable() or name.startswith("#"):
        raise BoucleError("B840", f"{name!r} cannot name a user", fix="use letters, digits, - and _")
    if not password:
        raise BoucleError("B840", "an empty password is none", fix="type one, or pipe it in")
    path = Path(file)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if line.partition(":")[0] != name]
    text = "\n".join([*kept, f"{name}:{make_verifier(password)}"]) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.touch(mode=0o600)
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
