"""Two databases are written one after the other, and a crash between the two leaves them different for ever."""

from simulation.kit import retried
from yaoki.explore import FakeStore, Scenario, World

BREAKS = "both_agree"


def program(*, fixed: bool) -> Scenario:
    users, index = FakeStore("users"), FakeStore("index")

    async def main(world: World) -> None:
        if world.disk.get("begun") and not fixed:
            return  # "it has been handled"
        world.disk["begun"] = True
        await retried(lambda: users.put("ann", "ann@example.org"))
        await retried(lambda: index.put("ann@example.org", "ann"))

    def both_agree(world: World) -> str:
        return "" if ("ann" in users.rows) == ("ann@example.org" in index.rows) else "ann is in one database and not in the other"

    return Scenario(main, invariants=[both_agree])
