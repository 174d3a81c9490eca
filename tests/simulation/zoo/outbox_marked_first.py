"""A relay marks a message as sent, then sends it."""

from simulation.kit import retried
from yaoki.explore import FakeQueue, FakeStore, Scenario, World

BREAKS = "no_message_lost"


def program(*, fixed: bool) -> Scenario:
    outbox, topic = FakeStore("outbox"), FakeQueue("topic")

    def setup(world: World) -> None:
        outbox.table.write({"m-1": "waiting"})

    async def relay() -> None:
        if await retried(lambda: outbox.get("m-1")) != "waiting":
            return
        if not fixed:
            await retried(lambda: outbox.put("m-1", "sent"))
        await retried(lambda: topic.send("hello", id="m-1"))
        if fixed:
            await retried(lambda: outbox.put("m-1", "sent"))

    def no_message_lost(world: World) -> str:
        return "m-1 is marked as sent and is in no queue" if outbox.rows["m-1"] == "sent" and not topic.line.kept else ""

    return Scenario(relay, setup=setup, invariants=[no_message_lost])
