"""The service keeps idempotency keys in memory, and a restart loses them."""

from simulation.kit import retried
from yaoki.explore import FakeService, Scenario

BREAKS = "no_double_effect"


def program(*, fixed: bool) -> Scenario:
    payment = FakeService("payment", defects=() if fixed else ("forgets_keys",))

    async def main() -> None:
        await retried(lambda: payment.book("order-7", key="order-7"))

    return Scenario(main)
