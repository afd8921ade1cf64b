"""Where the newest feature rows of each key are kept to be served: in memory, or in Redis."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from boucle.errors import BoucleError
from boucle.features.records import merged

__all__ = ["MemoryStore", "OnlineStore", "open_store"]


class OnlineStore(Protocol):
    """Key → its newest records (see `boucle.features.records`), newest first.

    Hard rule: `put` merges with what is held; the same records twice, or older ones later, change nothing.
    """

    def put(self, records: Mapping[bytes, bytes], size: int, depth: int, expire: float) -> None:
        """Merge: `size` bytes a record, `depth` of them are kept, for `expire` seconds (0: for ever)."""
        ...

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What is held of each key, in one round trip."""
        ...

    def close(self) -> None:
        """Give back connections. Safe to call twice."""
        ...


class MemoryStore:
    """In this process; the step that keeps it writes it into its checkpoint."""

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}

    def put(self, records: Mapping[bytes, bytes], size: int, depth: int, expire: float) -> None:
        """Merge; what is too old goes by `forget`."""
        del expire
        held = self.held
        for key, new in records.items():
            held[key] = merged(held.get(key, b""), new, size, depth)

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What is held of each key."""
        return [self.held.get(key) for key in keys]

    def forget(self, before: bytes) -> None:
        """Drop the keys whose newest record is before this one."""
        self.held = {key: records for key, records in self.held.items() if records >= before}

    def close(self) -> None:
        """Nothing to give back."""


def open_store(address: str, timeout: float) -> OnlineStore:
    """`memory:`, or a Redis (Valkey too) by `redis://[:password@]host:port/database` (`rediss://`: by TLS).

    `timeout` (s) is for a connection and for an answer. B694 for another address.
    """
    if address in {"memory:", "memory"}:
        return MemoryStore()
    if address.startswith(("redis://", "rediss://", "unix://")):
        from boucle.features.redis_store import RedisStore

        return RedisStore(address, timeout)
    what = f'"{address}" is no store of features'
    raise BoucleError(
        "B694", what, where="boucle.toml [features] store", fix="memory:, or redis://host:port/0"
    )
