"""Status updates are applied in the order in which they come, which is not the order in which they were sent."""

from simulation.kit import retried
from yaoki.explore import ConflictError, FakeQueue, FakeStore, Scenario, World

BREAKS = "newest_wins"


def program(*, fixed: bool) -> Scenario:
    queue, orders = FakeQueue("queue"), FakeStore("orders")

    async def put_newer(body: dict) -> None:
        for _ in range(20):
            known = await retried(lambda: orders.get("order-7"))
            if known is not None and known["version"] >= body["version"]:
                return
            try:
                return await retried(lambda: orders.put_if("order-7", known, body))
            except ConflictError:
                continue

    async def work() -> None:
        while True:
            message = await retried(queue.receive)
            if fixed:
                await put_newer(message.body)
            else:
                await retried(lambda: orders.put("order-7", message.body))
            await retried(lambda: queue.ack(message))

    async def main(world: World) -> None:
        for version, status in enumerate(("paid", "shipped"), 1):
            await retried(lambda body={"version": version, "status": status}: queue.send(body, id=f"m-{body['version']}"))
        world.start("worker", work, daemon=True)
        await queue.wait_empty()

    def newest_wins(world: World) -> str:
        status = orders.rows.get("order-7", {}).get("status")
        return "" if status in {"shipped", None} else f"the order was shipped last, and is shown as {status}"

    return Scenario(main, invariants=[newest_wins])
