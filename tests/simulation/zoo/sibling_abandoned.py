"""Two bookings side by side: when one fails the other is left to itself, and nobody undoes it."""

import asyncio

from simulation.kit import retried
from yaoki.explore import FakeService, Scenario

BREAKS = "all_or_nothing"


def program(*, fixed: bool) -> Scenario:
    hotel, flight = FakeService("hotel"), FakeService("flight")

    async def main() -> str:
        calls = [asyncio.create_task(service.book("ann", key="ann")) for service in (hotel, flight)]
        if fixed:
            ended = await asyncio.gather(*calls, return_exceptions=True)
            failed = next((each for each in ended if isinstance(each, BaseException)), None)
        else:
            done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_EXCEPTION)
            failed = next((each.exception() for each in done if each.exception()), None)
        if failed is not None:
            for service, call in zip((hotel, flight), calls, strict=True):
                if call.done():
                    await retried(lambda service=service: service.cancel(key="ann"), attempts=20)
            raise ValueError("not booked") from failed
        return "booked"

    return Scenario(main, atomic=True, faults=["call.reject", "call.delay", "call.timeout", "call.lost_ack"])
