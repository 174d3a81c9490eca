"""A hand-written undo is tried once, and its failure is only logged."""

from simulation.kit import retried
from yaoki.errors import DeclinedError, YaokiError
from yaoki.explore import FakeService, Scenario

BREAKS = "all_or_nothing"


def program(*, fixed: bool) -> Scenario:
    hotel, payment = FakeService("hotel"), FakeService("payment", declines=True)

    async def main() -> str:
        await retried(lambda: hotel.book("ann", key="ann"))
        try:
            await retried(lambda: payment.book("ann", key="ann"))
        except DeclinedError as error:
            try:
                await retried(lambda: hotel.cancel(key="ann"), attempts=30 if fixed else 1)
            except YaokiError:
                pass
            raise ValueError("not booked") from error
        return "booked"

    return Scenario(main, atomic=True, faults=["call", "dep", "net"])
