"""A batch is written in one request, and nobody looks at what the database did not take."""

from simulation.kit import retried
from yaoki.explore import FakeStore, Scenario, World

BREAKS = "every_row_is_there"
ROWS = {"ann": 1, "bob": 2, "eve": 3}


def program(*, fixed: bool) -> Scenario:
    table = FakeStore("table")

    async def main() -> str:
        left = dict(ROWS)
        while left:
            refused = await retried(lambda: table.put_many(left))
            left = {key: left[key] for key in refused} if fixed else {}
        return "imported"

    def every_row_is_there(world: World) -> str:
        missing = sorted(set(ROWS) - set(table.rows))
        return f"imported, and {', '.join(missing)} are missing" if missing else ""

    return Scenario(main, invariants=[every_row_is_there])
