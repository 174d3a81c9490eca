"""A store in Redis: a hash a service, changed by scripts, so that each step is atomic and the clock is the server's.

The whole hash expires with its longest row; each row has its own time, checked when it is read.
"""

from __future__ import annotations

from typing import Any

import redis

from yaoki.policies.shared.stores.port import Entry

PREFIX = "yaoki:breaker:"

# A row is "<expires_at>|<value>", with the time in seconds by the server. The hash lives as long as its longest row.
_COMMON = """
local t = redis.call('TIME'); local now = t[1] + t[2] / 1000000
local function put(key, field, value, ttl)
  redis.call('HSET', key, field, string.format('%.6f', now + ttl) .. '|' .. value)
  local left = redis.call('PTTL', key)
  if left < ttl * 1000 then redis.call('PEXPIRE', key, math.ceil(ttl * 1000)) end
end
"""
PUT = _COMMON + "put(KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]))"
ACQUIRE = _COMMON + """
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held then
  local bar = string.find(held, '|', 1, true)
  if tonumber(string.sub(held, 1, bar - 1)) > now and string.sub(held, bar + 1) ~= ARGV[2] then return 0 end
end
put(KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]))
return 1
"""
ROWS = _COMMON + "return {string.format('%.6f', now), redis.call('HGETALL', KEYS[1])}"


class RedisStore:
    """Rows in hashes under `yaoki:breaker:`."""

    def __init__(self, url: str, *, timeout_s: float = 1.0, client: Any = None) -> None:
        # The keeper has its own patience: the client's ten retries would only hide an outage from it.
        self._redis = client or redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=None)
        self._put = self._redis.register_script(PUT)
        self._acquire = self._redis.register_script(ACQUIRE)
        self._rows = self._redis.register_script(ROWS)

    def put(self, service: str, kind: str, name: str, value: bytes, ttl_s: float) -> None:
        self._put(keys=[PREFIX + service], args=[f"{kind}:{name}", value, ttl_s])

    def remove(self, service: str, kind: str, name: str) -> None:
        self._redis.hdel(PREFIX + service, f"{kind}:{name}")

    def acquire(self, service: str, name: str, owner: str, ttl_s: float) -> bool:
        return bool(self._acquire(keys=[PREFIX + service], args=[f"lease:{name}", owner, ttl_s]))

    def rows(self, service: str = "") -> list[Entry]:
        services = [service] if service else sorted(
            key.decode().removeprefix(PREFIX) for key in self._redis.scan_iter(match=f"{PREFIX}*", count=500))
        return [entry for each in services for entry in self._rows_of(each)]

    def _rows_of(self, service: str) -> list[Entry]:
        now, flat = self._rows(keys=[PREFIX + service])
        found = []
        for field, row in zip(flat[::2], flat[1::2], strict=True):
            expires_at, _, value = row.partition(b"|")
            left_s = float(expires_at) - float(now)
            if left_s > 0:
                kind, _, name = field.decode().partition(":")
                found.append(Entry(service, kind, name, value, left_s))
        return sorted(found, key=lambda entry: (entry.kind, entry.name))

    def close(self) -> None:
        self._redis.close()
