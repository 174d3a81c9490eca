"""What a broker must offer: take messages for good, and give each group all of its types, at least once, in key order.

A new broker is a class with `name, durability, publish, subscribe, close` that passes `tests/contracts/test_messages_brokers.py`. One
that only sends says `delivers = False`; one that knows how its types are addressed may say so to AsyncAPI (`address(type)`).
What is hard is not asked of it: once-ness, retries that survive a restart, quarantine and dead letters are the store's.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any, Protocol

import msgspec

from yaoki import events
from yaoki.errors import ConfigError, DurabilityError
from yaoki.messages.envelope import Message
from yaoki.messages.store.port import CLASSES, Durability

log = logging.getLogger("yaoki.messages")
log.addHandler(logging.NullHandler())


class Delivery(msgspec.Struct, frozen=True):
    """A message on its way to one group. `token`: the broker's own handle for `ack`."""

    message: Message
    token: Any = None


class Subscription(Protocol):
    """One reader of one group. Several of a group share its messages, but key order then holds for each alone."""

    async def fetch(self, limit: int, wait_s: float) -> list[Delivery]:
        """Up to `limit` messages, waiting up to `wait_s` for the first. Raises `BrokerError`."""
        ...

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """These need not come again. What is never acknowledged comes again, to this or another reader."""
        ...

    async def close(self) -> None:
        """Give back what was fetched and not acknowledged, as soon as the broker can."""
        ...


class Broker(Protocol):
    """A way for messages from service to service."""

    name: str
    durability: Durability

    async def publish(self, messages: Sequence[Message]) -> None:
        """Returns when all are as safe as `durability` says; repeating it after an error is safe: ids stay the same.

        Raises:
            BrokerError: not all were confirmed.
            InputError: one of them will never be taken, because of what it is.
        """
        ...

    async def subscribe(self, group: str, types: Collection[str]) -> Subscription:
        """Read for this group, from the beginning of what is kept when the group is new."""
        ...

    async def close(self) -> None: ...


def check_durability(broker: Broker, asked: str) -> None:
    """Refuse a broker that gives less than is asked for; warn of one that loses to a power cut if nothing is asked.

    Raises:
        ConfigError: there is no such class. DurabilityError: the broker gives less.
    """
    given = broker.durability
    if asked and asked not in CLASSES:
        raise ConfigError(f"durability={asked!r} is not a class", do=f"name one of {', '.join(CLASSES)}")
    if asked and CLASSES.index(given.survives) < CLASSES.index(asked):
        raise DurabilityError(
            f"{broker.name} was asked to survive {asked!r} and gives {given.survives!r}: a kill loses {given.kill}; a "
            f"power cut loses {given.power_cut}",
            do=f"change its settings (docs/reference/messages.md), choose another, or accept durability={given.survives!r}",
            asked=asked, given=given.survives)
    if not asked and given.survives != CLASSES[-1]:
        log.warning("%s: a power cut may lose %s", broker.name, given.power_cut)
        events.emit(events.DurabilityWarned(broker=broker.name, given=given.survives, loses=given.power_cut))
