"""A payment is retried without an idempotency key."""

from simulation.kit import retried
from yaoki.explore import FakeService, Scenario

BREAKS = "no_double_effect"


def program(*, fixed: bool) -> Scenario:
    payment = FakeService("payment")

    async def checkout() -> str:
        await retried(lambda: payment.book("order-7", key="order-7" if fixed else None))
        return "paid"

    return Scenario(checkout)
