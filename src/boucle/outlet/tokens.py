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
        self._until: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def login(self, authorization: str) -> str | None:
        """A token for the header `Authorization: Basic …`, the same one for `Bearer …`; None when it is refused."""
        kind, _, given = authorization.partition(" ")
        if kind.lower() == "bearer":
            return None if self._named(given) is None else given
        name = self._known(given) if kind.lower() == "basic" else None
        return None if name is None else self._issue(name)

    def _named(self, token: str) -> str | None:
        """Whose token it is, while it is valid."""
        with self._lock:
            until, name = self._until.get(token, (0.0, ""))
        return name if until > time.monotonic() else None

    def _known(self, given: str) -> str | None:
        try:
            name, _, password = base64.b64decode(given + "=" * (-len(given) % 4)).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return name if self._users.accepts(name, password) else None

    def who(self, authorization: str) -> str | None:
        """The user a request with this header comes from; None when it may not be answered."""
        kind, _, given = authorization.partition(" ")
        if kind.lower() == "basic":
            return self._known(given)
        return self._named(given) if kind.lower() == "bearer" else None

    def allows(self, authorization: str) -> bool:
        """Whether a request with this header may be answered."""
        return self.who(authorization) is not None

    def _issue(self, name: str) -> str:
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._until[token] = (time.monotonic() + VALID_S, name)
            while len(self._until) > _MOST:
                self._until.popitem(last=False)
        return token
