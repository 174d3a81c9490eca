"""The event is published before the order is written: a crash between the two announces an order that does not exist."""

from simulation.kit import retried
from yaoki.explore import FakeQueue, FakeStore, Scenario, World

BREAKS = "no_event_without_order"


def program(*, fixed: bool) -> Scenario:
    orders, topic = FakeStore("orders"), FakeQueue("topic")

    async def place() -> None:
        async def write() -> None:
            await retried(lambda: orders.put("order-7", "placed"))

        async def publish() -> None:
            await retried(lambda: topic.send("order-7", id="order-7"))

        for act in (write, publish) if fixed else (publish, write):
            await act()

    def no_event_without_order(world: World) -> str:
        wrong = [each.body for each in topic.line.kept if each.body not in orders.rows]
        return f"{wrong[0]} is announced and does not exist" if wrong else ""

    return Scenario(place, always=[no_event_without_order])
