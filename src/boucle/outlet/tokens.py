"""Bearer tokens: what a client shows after it said its password once. Kept in memory, valid for an hour."""

import base64
import binascii
import secrets
import threading
import time
from collections import OrderedDict

from boucle.outlet.users import Users

__all__ = ["VALID_S", "Tokens"]

VALID_S = 3_600.0
_MOST = 10_000


class Tokens:
    """Tokens of the users of one file."""

    def __init__(self, users: Users) -> None:
        self._users = users
        self._lock = threading.Lock()
        self._until: OrderedDict[str, float] = OrderedDict()

    def login(self, authorization: str) -> str | None:
        """A token for the header `Authorization: Basic …`, the same one for `Bearer …`; None when it is refused."""
        kind, _, given = authorization.partition(" ")
        if kind.lower() == "bearer":
            with self._lock:
                return given if self._until.get(given, 0.0) > time.monotonic() else None
        return self._issue() if kind.lower() == "basic" and self._known(given) else None

    def _known(self, given: str) -> bool:
        try:
            name, _, password = base64.b64decode(given + "=" * (-len(given) % 4)).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        return self._users.accepts(name, password)

    def allows(self, authorization: str) -> bool:
        """Whether a request with this header may be answered."""
        kind, _, given = authorization.partition(" ")
        return self._known(given) if kind.lower() == "basic" else self.login(authorization) is not None

    def _issue(self) -> str:
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._until[token] = time.monotonic() + VALID_S
            while len(self._until) > _MOST:
                self._until.popitem(last=False)
        return token
