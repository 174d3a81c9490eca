"""redis-py through a `Service`: its policy around every command, instead of redis-py's ten retries.

    cache_service = Service("cache", policy=pipeline(retry(2), breaker(), timeout(0.05)))
    cache = guard(redis.Redis(retry=None, socket_timeout=0.1), cache_service)      # or redis.asyncio.Redis
    cache.get("key")

A command that only reads, or that has the same result twice (SET, DEL, EXPIRE, HSET, SADD, ...), is repeated when nobody
knows whether it happened; INCR, LPUSH and the like are not. A pipeline and a script are the user's to repeat.
"""

from __future__ import annotations

from typing import Any, TypeVar

from yaoki.errors import ConfigError
from yaoki.service import Service

C = TypeVar("C")

# Flag `readonly` of COMMAND INFO, and those whose second time changes nothing (redis.io/commands).
IDEMPOTENT = frozenset(["GET", "MGET", "GETRANGE", "STRLEN", "EXISTS", "TYPE", "TTL", "PTTL", "KEYS", "SCAN", "HGET", "HMGET", "HGETALL", "HKEYS", "HVALS", "HLEN", "HEXISTS", "HSCAN", "LRANGE", "LLEN", "LINDEX", "SMEMBERS", "SISMEMBER", "SMISMEMBER", "SCARD", "SSCAN", "SINTER", "SUNION", "SDIFF", "ZRANGE", "ZRANGEBYSCORE", "ZSCORE", "ZMSCORE", "ZCARD", "ZCOUNT", "ZRANK", "ZSCAN", "XRANGE", "XREVRANGE", "XLEN", "XREAD", "PING", "ECHO", "TIME", "INFO", "DBSIZE", "MEMORY", "OBJECT", "SET", "MSET", "SETEX", "PSETEX", "DEL", "UNLINK", "EXPIRE", "PEXPIREAT", "EXPIREAT", "PERSIST", "HSET", "HMSET", "HDEL", "SADD", "SREM", "ZREM", "SETBIT", "SETRANGE", "LSET", "LTRIM", "XACK", "XDEL", "XTRIM"])


def guard(client: C, service: Service) -> C:
    """Put `service` around each command of this client; returns the same client.

    Raises:
        ConfigError: the client retries by itself: attempts would multiply.
    """
    made: Any = client
    own = made.connection_pool.connection_kwargs.get("retry")
    attempts = getattr(own, "_retries", 0) if own is not None else 0
    if attempts:
        raise ConfigError(f"this Redis client retries {attempts} times by itself, which would multiply with the policy's attempts",
                          do="create it with retry=None, or with redis.retry.Retry(NoBackoff(), 0)")
    send = made.execute_command

    def call(*words: Any, **options: Any) -> Any:
        name = str(words[0]).split()[0].upper() if words else ""
        return service.call(send, *words, idempotent=name in IDEMPOTENT or None, operation=name, **options)

    made.execute_command = call
    return client
