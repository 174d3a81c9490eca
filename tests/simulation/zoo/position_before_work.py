"""A trigger writes down how far it is, and then does the work."""

from simulation.kit import retried
from yaoki.explore import FakeStore, FakeStream, Scenario, World

BREAKS = "nothing_skipped"


def program(*, fixed: bool) -> Scenario:
    changes, sink, places = FakeStream("changes"), FakeStore("sink"), FakeStore("places")

    async def trigger() -> None:
        position = await retried(lambda: places.get("s0", 0))
        while True:
            page = await retried(lambda: changes.read("s0", position))
            rows = {record.key: record.data for record in page.records}
            work = [lambda: sink.put_all(rows), lambda: places.put("s0", page.next)]
            for each in work if fixed else reversed(work):
                if rows:
                    await retried(each)
            position = page.next

    async def main(world: World) -> None:
        if not changes.channel.shards["s0"].records:
            for number in range(3):
                changes.capture(f"row-{number}", number)
        world.start("trigger", trigger, daemon=True)
        await world.sleep(30.0)

    def nothing_skipped(world: World) -> str:
        missing = [f"row-{number}" for number in range(3) if f"row-{number}" not in sink.rows]
        return f"{', '.join(missing)} never arrived" if missing else ""

    return Scenario(main, invariants=[nothing_skipped], faults=["crash", "stream.replay", "stream.iterator_expired"], same_answer=False)
