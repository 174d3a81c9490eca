"""A place in a pool is not given back when the call fails: after a few failures everybody waits for ever."""

import asyncio

from yaoki.errors import YaokiError
from yaoki.explore import FakeService, Scenario

BREAKS = "every_run_ends"


def program(*, fixed: bool) -> Scenario:
    search = FakeService("search")

    async def main() -> int:
        places = asyncio.Semaphore(2)

        async def ask() -> None:
            if fixed:
                async with places:
                    await search.left("rooms")
            else:
                await places.acquire()
                await search.left("rooms")
                places.release()

        found = 0
        for _ in range(5):
            try:
                await ask()
                found += 1
            except YaokiError:
                await asyncio.sleep(1.0)
        return found

    return Scenario(main)
