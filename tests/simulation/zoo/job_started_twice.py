"""A nightly job reminds every customer once; it is started on two machines."""

from simulation.kit import retried
from yaoki.explore import FakeService, Scenario

BREAKS = "no_double_effect"


def program(*, fixed: bool) -> Scenario:
    mail = FakeService("mail")

    async def main() -> None:
        for customer in ("ann", "bob"):
            await retried(lambda: mail.book(customer, key=f"reminder-{customer}" if fixed else None))

    return Scenario(main, faults=["proc.twin"], same_answer=False)
