"""A worker takes a partition's messages in order, and stumbles for ever over one that cannot be read."""

from simulation.kit import retried
from yaoki.explore import FakeQueue, FakeService, Scenario, World

BREAKS = "others_go_on"


def program(*, fixed: bool) -> Scenario:
    orders, dead, warehouse = FakeQueue("orders", ordered=True, hidden_for=20.0, poll=2.0), FakeQueue("dead"), FakeService("warehouse")

    async def work() -> None:
        while True:
            message = await retried(orders.receive)
            if isinstance(message.body, dict):
                await retried(lambda: warehouse.book(message.body["order"], key=message.id))
            elif not fixed:
                continue  # it comes again, and will be readable then
            else:
                await retried(lambda: dead.send(message.body, id=message.id))
            await retried(lambda: orders.ack(message))

    async def main(world: World) -> None:
        for order in ("order-1", "order-2", "order-3"):
            await retried(lambda: orders.send({"order": order}, id=order))
        world.start("worker", work, daemon=True)
        await world.sleep(150.0)

    def others_go_on(world: World) -> str:
        late = [each.id for each in orders.line.kept if isinstance(each.body, dict)]
        return f"{', '.join(late)} wait behind a message that nobody can read" if late else ""

    return Scenario(main, invariants=[others_go_on], faults=["msg.poison", "msg.restart", "msg.redeliver", "crash"], same_answer=False)
