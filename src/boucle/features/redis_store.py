"""Features in Redis: one MGET for a Block, and one script that merges what is written within the server."""

from collections.abc import Mapping, Sequence
from typing import Any

from boucle.errors import BoucleError, MissingExtra, Unavailable

__all__ = ["RedisStore"]

_AT_ONCE = 1_000
"""Keys of one call of the script."""
_MERGE = """
local size, depth, expire = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
-- Bytes, not `<`: that follows the server's locale.
local function greater(a, b)
  for place = 1, math.max(#a, #b) do
    local x, y = string.byte(a, place) or -1, string.byte(b, place) or -1
    if x ~= y then return x > y end
  end
  return false
end
for number, key in ipairs(KEYS) do
  local held, new = redis.call('GET', key) or '', ARGV[number + 3]
  local kept, last, i, j = {}, '', 1, 1
  while #kept < depth and (i <= #held or j <= #new) do
    local a, b = string.sub(held, i, i + size - 1), string.sub(new, j, j + size - 1)
    local record
    if greater(b, a) then record = b; j = j + size else record = a; i = i + size end
    if string.sub(record, 1, 8) ~= last then
      kept[#kept + 1] = record
      last = string.sub(record, 1, 8)
    end
  end
  if expire > 0 then redis.call('SET', key, table.concat(kept), 'PX', expire)
  else redis.call('SET', key, table.concat(kept)) end
end
return #KEYS
"""


class RedisStore:
    """A Redis or Valkey server, not a cluster: the keys of a Block are asked for at once."""

    def __init__(self, address: str, timeout: float) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise MissingExtra("a store of features in Redis", "redis", "redis") from error
        self.address = address.rpartition("@")[2]
        self._failures = (redis.RedisError, OSError)
        try:
            # A try of its own after a time-out would double what the path waits.
            self._client: Any = redis.Redis.from_url(
                address,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            what, fix = f'"{self.address}" is no address of Redis', "redis://host:port/0"
            raise BoucleError("B694", what, why=str(error), fix=fix) from error
        self._merge = self._client.register_script(_MERGE)

    def put(self, records: Mapping[bytes, bytes], size: int, depth: int, expire: float) -> None:
        """Merge within the server, which is done whole or not at all for each thousand keys; Unavailable (B695)."""
        items = list(records.items())
        try:
            for begin in range(0, len(items), _AT_ONCE):
                some = items[begin : begin + _AT_ONCE]
                told = [size, depth, round(expire * 1000), *(new for _, new in some)]
                self._merge(keys=[key for key, _ in some], args=told)
        except self._failures as error:
            raise self._away(error) from error

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """One MGET; Unavailable (B695) when the server does not answer in time."""
        if not keys:
            return []
        try:
            found: list[bytes | None] = self._client.mget(keys)
        except self._failures as error:
            raise self._away(error) from error
        return found

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _away(self, error: Exception) -> Unavailable:
        return Unavailable(
            "B695",
            "the store of features does not answer",
            where=self.address,
            why=f"{type(error).__name__}: {error}"[:300],
            fix="start it, or correct [features] store in boucle.toml; rows take their defaults until then",
        )
