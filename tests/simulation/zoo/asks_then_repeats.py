"""After a timeout the program asks whether the order arrived, and sends it again if not; but it was only late."""

import asyncio

from simulation.kit import retried
from yaoki.errors import InDoubtError, RefusedError
from yaoki.explore import FakeService, Scenario

BREAKS = "no_double_effect"


def program(*, fixed: bool) -> Scenario:
    shop = FakeService("shop", stock={"tea": 9})

    async def main() -> None:
        for _ in range(8):
            before = await retried(lambda: shop.left("tea"))
            try:
                await shop.book("order-7", item="tea", key="order-7" if fixed else None)
            except (RefusedError, InDoubtError):
                await asyncio.sleep(0.5)
                if await retried(lambda: shop.left("tea")) < before:
                    return
            else:
                return

    return Scenario(main, same_answer=False)
