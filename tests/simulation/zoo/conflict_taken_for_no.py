"""Two transactions meet; the one that has to be done again is told to the customer as a refusal."""

from simulation.kit import retried
from yaoki.errors import DeclinedError
from yaoki.explore import ConflictError, FakeStore, Scenario, World

BREAKS = "no_means_no"


class NoFundsError(DeclinedError):
    """There is not enough on the account."""


def program(*, fixed: bool) -> Scenario:
    bank, said = FakeStore("bank"), {}

    def setup(world: World) -> None:
        bank.table.write({"ann": 100, "bob": 0, "done": []})

    def transfer(rows):
        if "t-1" in rows["done"]:
            return {}
        if rows["ann"] < 60:
            raise NoFundsError("not enough", do="pay in first")
        return {"ann": rows["ann"] - 60, "bob": rows["bob"] + 60, "done": [*rows["done"], "t-1"]}

    async def main() -> str:
        said.clear()
        while True:
            try:
                await retried(lambda: bank.transact(transfer))
            except ConflictError:
                if fixed:
                    continue
                said["no"] = "a conflict"
                return "declined"
            except DeclinedError:
                return "declined"
            return "done"

    def no_means_no(world: World) -> str:
        return f"ann has {bank.rows['ann']} and was told that it is not enough, because of {said['no']}" if said else ""

    return Scenario(main, setup=setup, invariants=[no_means_no])
