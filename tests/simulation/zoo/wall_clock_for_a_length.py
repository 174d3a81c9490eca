"""How long something takes is measured with the wall clock, which is set back meanwhile."""

import time

from simulation.kit import retried
from yaoki.explore import FakeService, Scenario

BREAKS = "every_run_ends"


def program(*, fixed: bool) -> Scenario:
    jobs = FakeService("jobs", stock={"done": 0})

    async def main(world) -> str:
        clock = time.monotonic if fixed else time.time
        began = clock()
        while clock() - began < 10.0:  # the job is given ten seconds
            if await retried(lambda: jobs.left("done")):
                return "done"
            await world.sleep(1.0)
        return "given up"

    return Scenario(main, faults=["clock"], most_calls=200)
