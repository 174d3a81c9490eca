"""A lock runs out by the clock of whoever looks at it, which is not the clock of whoever took it."""

from simulation.kit import retried
from yaoki import runtime
from yaoki.explore import ConflictError, FakeStore, Scenario, World

BREAKS = "one_holder"
TTL_S = 60.0


def program(*, fixed: bool) -> Scenario:
    locks, inside = FakeStore("locks"), []

    async def take(world: World, name: str) -> None:
        seen, since = None, runtime.monotonic()
        while True:
            row = await retried(lambda: locks.get("job"))
            if row != seen:
                seen, since = row, runtime.monotonic()
            over = runtime.monotonic() - since >= TTL_S if fixed else runtime.unix_time() >= (row or {"until": 0})["until"]
            if row is None or row["by"] == name or over:
                try:
                    await retried(lambda: locks.put_if("job", row, {"by": name, "until": runtime.unix_time() + TTL_S}))
                except ConflictError as conflict:
                    if (conflict.found or {}).get("by") == name:
                        return
                else:
                    return
            await world.sleep(1.0)

    async def job(world: World, name: str) -> None:
        await take(world, name)
        inside.append(name)
        if len(set(inside)) > 1:
            world.break_("one_holder", f"{inside[0]} still works, and {name} has taken the lock")
        await world.sleep(20.0)
        inside.clear()
        await retried(lambda: locks.put("job", None))

    async def main(world: World) -> None:
        inside.clear()
        for name in ("one", "two"):
            world.start(name, job, world, name)

    return Scenario(main, faults=["clock.skew", "clock.skew:behind"], timed=True)
