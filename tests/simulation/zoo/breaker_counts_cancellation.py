"""A breaker takes a caller who went away for a failure of the service, and opens for everybody."""

import asyncio

from yaoki.errors import BreakerOpenError, InDoubtError, RefusedError
from yaoki.explore import FakeService, Scenario

BREAKS = "steady_state"


class Breaker:
    """Opens at the third failure in a row, and stays open until it is reset by hand."""

    def __init__(self, *, counts: type[BaseException]) -> None:
        self.failures = 0
        self.counts = counts

    async def call(self, work):
        if self.failures >= 3:
            work.close()
            raise BreakerOpenError("open", do="wait")
        try:
            answer = await work
        except self.counts:
            self.failures += 1
            raise
        self.failures = 0
        return answer


def program(*, fixed: bool) -> Scenario:
    search = FakeService("search", timeout=None)
    breaker = Breaker(counts=Exception if fixed else BaseException)

    async def main() -> None:
        breaker.failures = 0
        for _ in range(3):  # three users who do not wait for slow answers
            try:
                async with asyncio.timeout(0.5):
                    await breaker.call(search.left("hotels"))
            except (TimeoutError, RefusedError, InDoubtError):
                pass

    async def another_user() -> None:
        await breaker.call(search.left("hotels"))

    return Scenario(main, steady=another_user, faults=["dep.outage:call.timeout:none"])
