"""A worker acknowledges a message before it has done the work."""

from simulation.kit import retried
from yaoki.explore import FakeQueue, FakeService, Scenario, World

BREAKS = "no_order_lost"


def program(*, fixed: bool) -> Scenario:
    queue, warehouse = FakeQueue("queue"), FakeService("warehouse")

    async def work() -> None:
        while True:
            message = await retried(queue.receive)
            if not fixed:
                await retried(lambda: queue.ack(message))
            await retried(lambda: warehouse.book(message.body, key=message.body), attempts=50)
            if fixed:
                await retried(lambda: queue.ack(message))

    async def main(world: World) -> None:
        await retried(lambda: queue.send("order-7", id="order-7"))
        world.start("worker", work, daemon=True)
        await queue.wait_empty()
        await world.sleep(60.0)

    def no_order_lost(world: World) -> str:
        return "" if warehouse.state.net.get("order-7") else "order-7 was taken off the queue and never shipped"

    return Scenario(main, invariants=[no_order_lost], same_answer=False)
