"""A consumer takes every delivery for a new order."""

from simulation.kit import retried
from yaoki.explore import FakeQueue, FakeService, Scenario, World

BREAKS = "no_double_effect"


def program(*, fixed: bool) -> Scenario:
    queue, warehouse = FakeQueue("queue"), FakeService("warehouse")

    async def work() -> None:
        while True:
            message = await retried(queue.receive)
            await retried(lambda: warehouse.book(message.body, key=message.id if fixed else f"{message.id}-{message.delivery}"))
            await retried(lambda: queue.ack(message))

    async def main(world: World) -> None:
        await retried(lambda: queue.send("order-7", id="m-7"))
        world.start("worker", work, daemon=True)
        await queue.wait_empty()

    return Scenario(main)
