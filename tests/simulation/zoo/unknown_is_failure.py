"""A hand-written undo leaves out the step that timed out: no answer is taken for no effect."""

from simulation.kit import retried
from yaoki.errors import InDoubtError, RefusedError
from yaoki.explore import FakeService, Scenario

BREAKS = "all_or_nothing"


def program(*, fixed: bool) -> Scenario:
    services = [FakeService("hotel"), FakeService("payment")]

    async def main() -> str:
        done: list[FakeService] = []
        try:
            for service in services:
                if fixed:
                    done.append(service)  # from here on it may have happened
                await retried(lambda service=service: service.book("ann", key="ann"), attempts=2)
                if not fixed:
                    done.append(service)
        except (RefusedError, InDoubtError) as error:
            for service in reversed(done):
                await retried(lambda service=service: service.cancel(key="ann"), attempts=30)
            raise ValueError("not booked, and nothing is charged") from error
        return "booked"

    return Scenario(main, atomic=True, faults=["call", "dep", "net"])  # without a journal no program survives a crash
