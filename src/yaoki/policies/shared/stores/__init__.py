"""Where a fleet keeps votes, orders and leases: one port, a file a store.

Blocking, on purpose: the keeper's thread calls them, so that async and plain programs share one way, and no event loop ever
waits for them.
"""

from __future__ import annotations

from yaoki.errors import ConfigError
from yaoki.policies.shared.stores.port import Entry, Store

SCHEMES = ("memory:", "sqlite:///", "redis://", "rediss://", "dynamodb://", "postgresql://")


def store_at(url: str) -> Store:
    """The store that a URL names. Drivers are imported only here.

    `memory:` · `sqlite:///file.db` · `redis://host:port/0` · `dynamodb://TABLE?endpoint=http://...&region=...` ·
    `postgresql://user@host/db`

    Raises:
        ConfigError: the URL is of no known kind.
    """
    scheme = url.partition(":")[0]
    if scheme == "memory":
        from yaoki.policies.shared.stores.memory import MemoryStore  # noqa: PLC0415  only who asks for a driver loads it

        return MemoryStore()
    if scheme == "sqlite":
        from yaoki.policies.shared.stores.sqlite import SqliteStore  # noqa: PLC0415

        return SqliteStore(url.removeprefix("sqlite:///"))
    if scheme in {"redis", "rediss"}:
        from yaoki.policies.shared.stores.redis import RedisStore  # noqa: PLC0415

        return RedisStore(url)
    if scheme == "dynamodb":
        from yaoki.policies.shared.stores.dynamodb import DynamoStore  # noqa: PLC0415

        return DynamoStore.at(url)
    if scheme in {"postgresql", "postgres"}:
        from yaoki.policies.shared.stores.postgres import PostgresStore  # noqa: PLC0415

        return PostgresStore(url)
    raise ConfigError(f"no store for shared breakers of kind {scheme!r} in {url!r}", do=f"use one of {', '.join(SCHEMES)}")


__all__ = ["Entry", "Store", "store_at"]
