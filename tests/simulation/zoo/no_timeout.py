"""A client without a timeout waits for an answer that never comes."""

from simulation.kit import retried
from yaoki.explore import FakeService, Scenario

BREAKS = "every_run_ends"


def program(*, fixed: bool) -> Scenario:
    payment = FakeService("payment", timeout=5.0 if fixed else None)

    async def main() -> None:
        await retried(lambda: payment.book("order-7", key="order-7"))

    return Scenario(main)
