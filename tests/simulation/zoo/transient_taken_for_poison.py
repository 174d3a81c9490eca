"""A worker puts away what it cannot handle, and takes a service that is down for a message that is bad."""

from simulation.kit import retried
from yaoki.errors import InDoubtError, RefusedError
from yaoki.explore import FakeQueue, FakeService, Scenario, World

BREAKS = "no_order_lost"


def program(*, fixed: bool) -> Scenario:
    orders, warehouse = FakeQueue("orders", hidden_for=5.0, poll=2.0), FakeService("warehouse")

    async def work() -> None:
        while True:
            message = await retried(orders.receive)
            try:
                await warehouse.book(message.body["order"], key=message.id)
            except (RefusedError, InDoubtError):
                if fixed:
                    continue  # not acknowledged: it comes again
            except TypeError:
                pass  # cannot be read, now or ever
            await retried(lambda: orders.ack(message))

    async def main(world: World) -> None:
        await retried(lambda: orders.send({"order": "order-7"}, id="order-7"))
        world.start("worker", work, daemon=True)
        await world.sleep(100.0)

    def no_order_lost(world: World) -> str:
        readable = not any(point.fault == "msg.poison" for point in world.points)
        return "order-7 was put away and never shipped" if readable and not warehouse.state.net.get("order-7") else ""

    return Scenario(main, invariants=[no_order_lost], faults=["call.reject", "call.timeout:none", "msg.poison", "crash"], same_answer=False)
