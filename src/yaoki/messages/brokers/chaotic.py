"""A broker that fails in every way a broker may, drawn from a seed: for tests of what is built on one.

It stays within the contract: at least once, a key's messages in order for a reader that acknowledges. Within that it refuses
to confirm (before or after the message is there), delivers twice, mixes keys, delivers nothing for a while, cuts the reader
off, and forgets acknowledgements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from random import Random  # noqa: TID251 (seeded by the caller: that is what it is for)

from yaoki.errors import BrokerError, ConfigError
from yaoki.messages.brokers.port import Broker, Delivery, Subscription
from yaoki.messages.envelope import Message


class ChaoticBroker:
    """Wraps another broker.

    Args:
        inner: the one that does the work.
        share: of the operations that fail, in [0, 1), for each kind of fault; or a function that is asked every time.
        seed: draws which and how. struck: told the kind of each fault before it is made.

    Attributes:
        faults: how often each fault was made; look at it, so that a test cannot pass because nothing happened.
    """

    def __init__(self, inner: Broker, *, share: float | Callable[[], float], seed: int | str,
                 struck: Callable[[str], None] | None = None) -> None:
        if not callable(share) and not 0 <= share < 1:
            raise ConfigError(f"share={share} cannot be", do="give a share of the operations, from 0 to below 1")
        self.inner = inner
        self.name = f"chaotic {inner.name}"
        self.durability = inner.durability
        self._share = share
        self._struck = struck
        self.rng = Random(seed)
        self.faults: Counter[str] = Counter()

    def strikes(self, fault: str) -> bool:
        share = self._share() if callable(self._share) else self._share
        struck = self.rng.random() < share
        if struck:
            self.faults[fault] += 1
            if self._struck is not None:
                self._struck(fault)
        return struck

    async def publish(self, messages: Sequence[Message]) -> None:
        if self.strikes("refused"):
            raise BrokerError("chaos: refused before anything was sent")
        if self.strikes("sent in part"):
            await self.inner.publish(messages[: len(messages) // 2])
            raise BrokerError("chaos: sent in part")
        await self.inner.publish(messages)
        if self.strikes("confirmation lost"):
            raise BrokerError("chaos: sent, and the confirmation was lost")

    async def subscribe(self, group: str, types: Collection[str]) -> Subscription:
        if self.strikes("not let in"):
            raise BrokerError("chaos: not let in")
        return _Chaotic(self, await self.inner.subscribe(group, types))

    async def close(self) -> None:
        await self.inner.close()


class _Chaotic:
    def __init__(self, broker: ChaoticBroker, inner: Subscription) -> None:
        self._broker = broker
        self._inner = inner

    async def fetch(self, limit: int, wait_s: float) -> list[Delivery]:
        chaos = self._broker
        if chaos.strikes("cut off"):
            raise BrokerError("chaos: cut off")
        found = await self._inner.fetch(max(1, limit // 2) if chaos.strikes("few") else limit, wait_s)
        if found and chaos.strikes("cut off after"):
            raise BrokerError("chaos: cut off with messages on their way")
        if chaos.strikes("twice"):
            found = [each for each in found for _ in range(2)]
        if chaos.strikes("keys mixed"):
            order = {key: chaos.rng.random() for key in sorted({each.message.key for each in found})}
            found = sorted(found, key=lambda each: order[each.message.key])  # stable: each key stays in order
        return found

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        if self._broker.strikes("acknowledgement lost"):
            raise BrokerError("chaos: the acknowledgement was lost")
        unique = {id(each.token): each for each in deliveries}
        await self._inner.ack(list(unique.values()))

    async def close(self) -> None:
        await self._inner.close()
