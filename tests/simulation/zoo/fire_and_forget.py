"""A confirmation is sent by a task that nobody waits for: it is lost when the program ends."""

import asyncio

from simulation.kit import retried
from yaoki.explore import FakeService, Scenario

BREAKS = "no_leak"


def program(*, fixed: bool) -> Scenario:
    orders, mail = FakeService("orders"), FakeService("mail")

    async def main() -> str:
        await retried(lambda: orders.book("order-7", key="order-7"))
        task = asyncio.create_task(retried(lambda: mail.book("order-7", key="order-7")))
        if fixed:
            await task
        return "ordered"

    return Scenario(main)
