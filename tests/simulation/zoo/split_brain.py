"""A monitor in one zone promotes the standby as soon as it cannot reach the primary, which others still can."""

from yaoki.errors import InDoubtError, RefusedError
from yaoki.explore import ConflictError, FakeStore, Network, Scenario, World

BREAKS = "one_primary"
ZONES = Network(zones={"east": ["primary", "writer"], "west": ["standby", "monitor"], "north": ["witness"]}, between_s=0.03)


def program(*, fixed: bool) -> Scenario:
    primary, standby, witness = FakeStore("primary", timeout=1.0), FakeStore("standby", timeout=1.0), FakeStore("witness", timeout=1.0)

    async def answers(work) -> bool:
        try:
            await work
        except (RefusedError, InDoubtError):
            return False
        return True

    async def is_leader(name: str, over: object) -> bool:
        """Ask the third zone, which both sides ask: it gives the lead once."""
        try:
            return await answers(witness.put_if("leader", over, name))
        except ConflictError as conflict:
            return conflict.found == name

    async def writer(world: World) -> None:
        for number in range(6):
            if not fixed or await is_leader("primary", None):
                await answers(primary.put(f"east-{number}", number))
            await world.sleep(1.0)

    async def monitor(world: World) -> None:
        missed = 0
        for number in range(6):
            missed = 0 if await answers(primary.get("alive")) else missed + 1
            if missed >= 2 and (not fixed or await is_leader("standby", None)):
                await answers(standby.put(f"west-{number}", number))
            await world.sleep(1.0)

    async def main(world: World) -> None:
        for name, work in (("writer", writer), ("monitor", monitor)):
            world.start(name, work, world)

    def one_primary(world: World) -> str:
        return "both zones took writes" if primary.rows and standby.rows else ""

    return Scenario(main, invariants=[one_primary], network=ZONES, faults=["net.partition:zone"], timed=True, same_answer=False)
