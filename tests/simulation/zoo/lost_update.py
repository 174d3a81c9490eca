"""Two writers read the same number, add to it, and write: one addition is lost."""

import asyncio

from simulation.kit import retried
from yaoki.explore import ConflictError, FakeStore, Scenario, World

BREAKS = "nothing_is_lost"


def program(*, fixed: bool) -> Scenario:
    likes = FakeStore("likes")

    async def like(who: str) -> None:
        for _ in range(20):
            found = await retried(lambda: likes.get("post", []))
            if who in found:
                return
            if not fixed:
                await retried(lambda: likes.put("post", [*found, who]))
                return
            try:
                return await retried(lambda: likes.put_if("post", found or None, [*found, who]))
            except ConflictError:
                await asyncio.sleep(0.01)

    async def main() -> None:
        await asyncio.gather(like("ann"), like("bob"))

    def nothing_is_lost(world: World) -> str:
        found = likes.rows.get("post", [])
        return "" if sorted(found) == ["ann", "bob"] else f"ann and bob like it, and it says {found}"

    return Scenario(main, invariants=[nothing_is_lost])
