"""A trigger knows the shards from when it was started; one is split, and nobody reads its children."""

from simulation.kit import retried
from yaoki.explore import FakeStore, FakeStream, Scenario, World

BREAKS = "nothing_skipped"


def program(*, fixed: bool) -> Scenario:
    changes, sink = FakeStream("changes"), FakeStore("sink")

    async def trigger(world: World) -> None:
        places: dict[str, int] = {"s0": 0}
        while True:
            for shard in list(places):
                page = await retried(lambda: changes.read(shard, places[shard], wait_s=0.0))
                if page.records:
                    await retried(lambda: sink.put_all({record.key: record.data for record in page.records}))
                places[shard] = page.next
                if page.closed:
                    del places[shard]
                    if fixed:
                        children = await retried(changes.shards)
                        places.update({name: 0 for name, parent in children if parent == shard})
            await world.sleep(0.5)

    async def main(world: World) -> None:
        world.start("trigger", trigger, world, daemon=True)
        for number in range(len(world.services["changes"].shards["s0"].records) if "changes" in world.services else 0, 4):
            changes.capture(f"row-{number}", number)
            await world.sleep(2.0)
        await world.sleep(60.0)

    def nothing_skipped(world: World) -> str:
        missing = [f"row-{number}" for number in range(4) if f"row-{number}" not in sink.rows]
        return f"{', '.join(missing)} never arrived" if missing else ""

    return Scenario(main, invariants=[nothing_skipped], faults=["stream.shard_split"], same_answer=False)
