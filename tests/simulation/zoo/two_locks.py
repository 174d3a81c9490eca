"""Two transfers lock two accounts, each in its own order."""

import asyncio

from simulation.kit import retried
from yaoki.explore import FakeStore, Scenario

BREAKS = "every_run_ends"


def program(*, fixed: bool) -> Scenario:
    accounts = FakeStore("accounts")

    async def main() -> None:
        locks = {name: asyncio.Lock() for name in ("ann", "bob")}

        async def transfer(source: str, target: str) -> None:
            first, second = sorted((source, target)) if fixed else (source, target)
            async with locks[first]:
                await retried(lambda: accounts.get(first))
                async with locks[second]:
                    await retried(lambda: accounts.put(f"{source}-{target}", 10))

        await asyncio.gather(transfer("ann", "bob"), transfer("bob", "ann"))

    return Scenario(main)
