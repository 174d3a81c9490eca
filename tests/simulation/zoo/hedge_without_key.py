"""A second request is sent when the first one is slow, and both are carried out."""

import asyncio

from yaoki.errors import YaokiError
from yaoki.explore import FakeService, Scenario

BREAKS = "no_double_effect"


def program(*, fixed: bool) -> Scenario:
    payment = FakeService("payment")

    async def main() -> str:
        calls = [asyncio.create_task(payment.book("order-7", key="order-7" if fixed else None))]
        done, _ = await asyncio.wait(calls, timeout=0.5)
        if not done:
            calls.append(asyncio.create_task(payment.book("order-7", key="order-7" if fixed else None)))
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        for call in calls:
            if not call.done():
                call.cancel()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        if not any(not isinstance(each, BaseException) for each in ended):
            raise next(each for each in ended if isinstance(each, YaokiError))
        return "paid"

    return Scenario(main, faults=["call.timeout:done", "call.timeout:late", "call.delay"])
