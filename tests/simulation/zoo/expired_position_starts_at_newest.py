"""A trigger whose position in the stream has expired goes on at the newest record."""

from simulation.kit import retried
from yaoki.explore import FakeStore, FakeStream, Scenario, World
from yaoki.explore.streams import PositionExpiredError

BREAKS = "nothing_skipped"


def program(*, fixed: bool) -> Scenario:
    changes, sink = FakeStream("changes"), FakeStore("sink")

    async def trigger() -> None:
        position = sink.rows.get("position", 0)
        while True:
            try:
                page = await retried(lambda: changes.read("s0", position), attempts=1)
            except PositionExpiredError:
                position = sink.rows.get("position", 0) if fixed else len(changes.channel.shards["s0"].records)
                continue
            rows = {record.key: record.data for record in page.records}
            await retried(lambda: sink.put_all({**rows, "position": page.next}))
            position = page.next

    async def main(world: World) -> None:
        if not changes.channel.shards["s0"].records:
            for number in range(3):
                changes.capture(f"row-{number}", number)
        world.start("trigger", trigger, daemon=True)
        await world.sleep(10.0)

    def nothing_skipped(world: World) -> str:
        missing = [f"row-{number}" for number in range(3) if f"row-{number}" not in sink.rows]
        return f"{', '.join(missing)} never arrived" if missing else ""

    return Scenario(main, invariants=[nothing_skipped], faults=["stream.iterator_expired"], same_answer=False)
