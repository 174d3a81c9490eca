"""A consumer notes a message as seen, then does the work: after a crash it is seen and not done."""

from simulation.kit import retried
from yaoki.explore import FakeQueue, FakeService, FakeStore, Scenario, World

BREAKS = "no_order_lost"


def program(*, fixed: bool) -> Scenario:
    queue, inbox, warehouse = FakeQueue("queue"), FakeStore("inbox"), FakeService("warehouse")

    async def work() -> None:
        while True:
            message = await retried(queue.receive)
            if not await retried(lambda: inbox.get(message.id, False)):
                if not fixed:
                    await retried(lambda: inbox.put(message.id, True))
                await retried(lambda: warehouse.book(message.body, key=message.id))
                if fixed:
                    await retried(lambda: inbox.put(message.id, True))
            await retried(lambda: queue.ack(message))

    async def main(world: World) -> None:
        await retried(lambda: queue.send("order-7", id="m-7"))
        world.start("worker", work, daemon=True)
        await queue.wait_empty()

    def no_order_lost(world: World) -> str:
        return "" if warehouse.state.net.get("order-7") else "order-7 is noted as handled and was never shipped"

    return Scenario(main, invariants=[no_order_lost], same_answer=False)
