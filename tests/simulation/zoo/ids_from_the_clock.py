"""Orders are named by the time at which they came; the clock stands still."""

import time
import uuid

from simulation.kit import retried
from yaoki.explore import FakeStore, Scenario, World

BREAKS = "no_order_lost"


def program(*, fixed: bool) -> Scenario:
    orders, accepted = FakeStore("orders"), []

    async def main(world: World) -> None:
        accepted.clear()
        for who in ("ann", "bob"):
            name = str(uuid.uuid4()) if fixed else f"order-{time.time():.3f}"
            await retried(lambda: orders.put(name, who))
            accepted.append(who)
            await world.sleep(1.0)

    def no_order_lost(world: World) -> str:
        lost = [who for who in accepted if who not in orders.rows.values()]
        return f"the order of {', '.join(lost)} was accepted and is gone" if lost else ""

    return Scenario(main, invariants=[no_order_lost], faults=["clock.freeze", "clock.jump"])
