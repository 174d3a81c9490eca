"""A worker that was paused for longer than its lease goes on writing beside its successor."""

import contextlib

from simulation.kit import retried
from yaoki import runtime
from yaoki.errors import FencedError
from yaoki.explore import ConflictError, FakeStore, Scenario, World

BREAKS = "no_two_writers"
LEASE_S = 30.0


def program(*, fixed: bool) -> Scenario:
    leases, ledger = FakeStore("leases"), FakeStore("ledger")

    async def lease() -> int:
        """Wait until the lease is free, and take it. Returns its epoch."""
        while True:
            held = await retried(lambda: leases.get("job"))
            if held is None or held["until"] <= runtime.unix_time():
                mine = {"epoch": held["epoch"] + 1 if held else 1, "until": runtime.unix_time() + LEASE_S}
                with contextlib.suppress(ConflictError):
                    await leases.put_if("job", held, mine)
                    return mine["epoch"]
            await runtime.sleep(5.0)

    async def work(who: str) -> None:
        epoch = await lease()
        for page in range(3):
            try:
                await ledger.put_all({f"page-{page}/{epoch}": who}, fence=epoch if fixed else None)
            except FencedError:
                return

    async def main(world: World) -> None:
        workers = [world.start(name, work, name) for name in ("one", "two")]
        while not all(worker.done for worker in workers):
            await world.sleep(5.0)

    def no_two_writers(world: World) -> str:
        newest = 0
        for key in ledger.rows:  # in the order in which they were first written
            epoch = int(key.partition("/")[2])
            if epoch < newest:
                return f"lease {epoch} wrote {key} after lease {newest} had taken over"
            newest = epoch
        return ""

    return Scenario(main, always=[no_two_writers], faults=["proc.pause"], timed=True)
