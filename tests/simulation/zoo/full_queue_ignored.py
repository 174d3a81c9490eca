"""An order is stored and announced; when the queue is full, the announcement is only logged."""

from simulation.kit import retried
from yaoki.errors import InDoubtError, RefusedError
from yaoki.explore import FakeQueue, FakeStore, Scenario, World

BREAKS = "announced"


def program(*, fixed: bool) -> Scenario:
    orders, topic = FakeStore("orders"), FakeQueue("topic")

    async def main() -> str:
        await retried(lambda: orders.put("order-7", "new"))
        if fixed:
            await retried(lambda: topic.send("order-7", id="order-7"))
        else:
            try:
                await topic.send("order-7", id="order-7")
            except (RefusedError, InDoubtError):
                pass  # the next one will go through
        return "accepted"

    def announced(world: World) -> str:
        return "order-7 is stored and nobody was told" if orders.rows.get("order-7") and not topic.line.kept else ""

    return Scenario(main, invariants=[announced], faults=["res.queue_full", "call.reject"])
