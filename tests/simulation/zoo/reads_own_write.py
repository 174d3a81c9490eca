"""A read right after a write is taken for that write, but it comes from a replica that lags."""

from simulation.kit import retried
from yaoki.explore import FakeStore, Scenario, World

BREAKS = "balance_is_right"


def program(*, fixed: bool) -> Scenario:
    accounts = FakeStore("accounts")

    async def main() -> None:
        await retried(lambda: accounts.put("ann", 100))
        balance = 100 if fixed else await retried(lambda: accounts.get("ann", 0))
        await retried(lambda: accounts.put("ann", balance + 50))

    def balance_is_right(world: World) -> str:
        return "" if accounts.rows.get("ann") == 150 else f"150 were paid in, and the balance is {accounts.rows.get('ann')}"

    return Scenario(main, invariants=[balance_is_right], faults=["read.stale"])
