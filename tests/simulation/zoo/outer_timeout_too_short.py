"""The timeout around everything is shorter than the attempts inside: it strikes after the effect, and says that it failed."""

import asyncio

from simulation.kit import retried
from yaoki.explore import FakeService, Scenario

BREAKS = "all_or_nothing"


def program(*, fixed: bool) -> Scenario:
    payment = FakeService("payment", timeout=2.0)

    async def pay() -> str:
        try:
            async with asyncio.timeout(60.0 if fixed else 1.0):
                await retried(lambda: payment.book("order-7", key="order-7"), attempts=8)
        except TimeoutError:
            raise ValueError("not paid") from None
        return "paid"

    return Scenario(pay, atomic=True, faults=["call.timeout", "call.lost_ack"])
