"""A declined card is tried again for ever."""

import asyncio

from yaoki.errors import DeclinedError, YaokiError
from yaoki.explore import FakeService, Scenario

BREAKS = "every_run_ends"


def program(*, fixed: bool) -> Scenario:
    payment = FakeService("payment", declines=True)

    async def main() -> str:
        while True:
            try:
                await payment.book("order-7", key="order-7")
            except DeclinedError:
                if fixed:
                    return "declined"
            except YaokiError:
                pass
            else:
                return "paid"
            await asyncio.sleep(1.0)

    return Scenario(main)
