"""A page gives each read of a reply two seconds, and the reply comes byte by byte."""

import asyncio

from yaoki.errors import InDoubtError, RefusedError
from yaoki.explore import FakeService, Scenario, World

BREAKS = "answered_in_time"


def program(*, fixed: bool) -> Scenario:
    search, took = FakeService("search", timeout=2.0, stock={"room": 3}), {}

    async def main(world: World) -> str:
        began = world.now
        try:
            async with asyncio.timeout(5.0 if fixed else None):
                rooms = await search.left("room")
        except (TimeoutError, RefusedError, InDoubtError):
            rooms = "unknown"
        took["s"] = world.now - began
        return f"{rooms} rooms"

    def answered_in_time(world: World) -> str:
        return f"the customer looked at an empty page for {took['s']:.0f} s" if took["s"] > 6.0 else ""

    return Scenario(main, invariants=[answered_in_time], faults=["call.slow", "call.timeout:none", "call.reject"])
