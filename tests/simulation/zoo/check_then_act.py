"""Two buyers look at the same last seat, then both take it."""

import asyncio

from simulation.kit import retried
from yaoki.explore import ConflictError, FakeStore, Scenario, World

BREAKS = "no_overbooking"


def program(*, fixed: bool) -> Scenario:
    seats = FakeStore("seats")

    async def buy(who: str) -> bool:
        if await retried(lambda: seats.get("12A")) is not None:
            return False
        if not fixed:
            await retried(lambda: seats.put_all({"12A": who, f"ticket-{who}": "12A"}))
            return True
        try:
            await retried(lambda: seats.put_if("12A", None, who))
        except ConflictError as conflict:
            if conflict.found != who:  # else it was our own write, whose answer was lost
                return False
        await retried(lambda: seats.put(f"ticket-{who}", "12A"))
        return True

    async def main() -> list[bool]:
        return await asyncio.gather(buy("ann"), buy("bob"))

    def no_overbooking(world: World) -> str:
        tickets = [key for key in seats.rows if key.startswith("ticket-")]
        return f"seat 12A was sold to {len(tickets)}" if len(tickets) > 1 else ""

    return Scenario(main, invariants=[no_overbooking])
