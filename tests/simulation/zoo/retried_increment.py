"""`add 50` is retried after a lost reply, and is added twice."""

from simulation.kit import retried
from yaoki.explore import ConflictError, FakeStore, Scenario, World

BREAKS = "balance_is_right"


def program(*, fixed: bool) -> Scenario:
    accounts = FakeStore("accounts")

    async def main() -> None:
        if not fixed:
            await retried(lambda: accounts.add("ann", 50))
            return
        try:
            await retried(lambda: accounts.put_if("ann", None, 50))
        except ConflictError as conflict:
            if conflict.found != 50:
                raise

    def balance_is_right(world: World) -> str:
        balance = accounts.rows.get("ann", 0)
        return "" if balance <= 50 else f"50 were paid in once, and the balance is {balance}"

    return Scenario(main, invariants=[balance_is_right])
