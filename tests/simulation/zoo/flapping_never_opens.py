"""A breaker counts failures in a row; the service fails every other call, and callers go on running into it."""

from yaoki.errors import BreakerOpenError, InDoubtError, RefusedError
from yaoki.explore import FakeService, Scenario, World
from yaoki.policies import breaker, pipeline
from yaoki.service import Service

BREAKS = "callers_are_spared"


class InARow:
    """Opens at the third failure in a row."""

    def __init__(self) -> None:
        self.failures = 0

    async def call(self, work, *args):
        if self.failures >= 3:
            raise BreakerOpenError("open", do="wait")
        try:
            answer = await work(*args)
        except (RefusedError, InDoubtError):
            self.failures += 1
            raise
        self.failures = 0
        return answer


def program(*, fixed: bool) -> Scenario:
    prices, failed, by_hand = FakeService("prices", stock={"room": 9}), [], InARow()
    rate = Service("prices", idempotent=True, policy=pipeline(breaker(failure_rate=0.4, last=6, minimum=4, open_for=30.0)))

    async def main(world: World) -> None:
        failed.clear()
        by_hand.failures = 0
        for _ in range(13):
            try:
                await (rate.acall(prices.left, "room") if fixed else by_hand.call(prices.left, "room"))
            except BreakerOpenError:
                pass
            except (RefusedError, InDoubtError) as error:
                failed.append(error)
            await world.sleep(0.1)

    def callers_are_spared(world: World) -> str:
        return f"{len(failed)} of 13 callers ran into a service that fails every other call" if len(failed) > 4 else ""

    return Scenario(main, invariants=[callers_are_spared], faults=["dep.flap", "dep.outage:call.timeout:none"], outage_calls=7, same_answer=False)
