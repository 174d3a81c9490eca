"""From an address to an open broker."""

from __future__ import annotations

from typing import Any

from yaoki.errors import ConfigError
from yaoki.messages.brokers.port import Broker


async def open_broker(url: str, **settings: Any) -> Broker:
    """Open a broker by its address; `settings` are those of its class.

        sqlite:///messages.db · postgresql://... · nats://host:4222 · sqs://region · redis://host:6379

    Raises:
        ConfigError: an unknown kind. BrokerError, StoreError: it cannot be reached.
    """
    kind = url.partition("://")[0]
    if kind in {"sqlite", "postgresql", "postgres"}:
        from yaoki.messages.brokers.stored import StoredBroker  # noqa: PLC0415 (each where it is used)

        return await StoredBroker.open(url, **settings)
    if kind in {"nats", "tls"}:
        from yaoki.messages.brokers.nats import NatsBroker  # noqa: PLC0415 (needs the extra yaoki[nats])

        return await NatsBroker.open(url, **settings)
    if kind == "sqs":
        from yaoki.messages.brokers.sqs import SqsBroker  # noqa: PLC0415 (needs the extra yaoki[aws])

        return await SqsBroker.open(url, **settings)
    if kind in {"redis", "rediss", "unix"}:
        from yaoki.messages.brokers.redis import RedisBroker  # noqa: PLC0415 (needs the extra yaoki[redis])

        return await RedisBroker.open(url, **settings)
    raise ConfigError(f"{kind!r} is not a broker", do="give sqlite:///, postgresql://, nats://, sqs:// or redis://")
