"""The idempotency key is made at random and kept in memory: after a crash the same order has another one."""

import uuid

from simulation.kit import retried
from yaoki.explore import FakeService, FakeStore, Scenario

BREAKS = "no_double_effect"


def program(*, fixed: bool) -> Scenario:
    payment, orders = FakeService("payment"), FakeStore("orders")

    async def main() -> None:
        key = uuid.uuid4().hex
        if fixed:
            key = await retried(lambda: orders.get("order-7")) or key
            await retried(lambda: orders.put("order-7", key))
        await retried(lambda: payment.book("order-7", key=key))

    return Scenario(main)
