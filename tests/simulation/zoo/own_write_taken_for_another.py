"""The reply to a conditional write is lost; the retry finds the seat taken, by itself, and gives up."""

from simulation.kit import retried
from yaoki.explore import ConflictError, FakeStore, Scenario, World

BREAKS = "answer_is_true"


def program(*, fixed: bool) -> Scenario:
    seats, said = FakeStore("seats"), {}

    async def main() -> str:
        said.clear()
        try:
            await retried(lambda: seats.put_if("12A", None, "ann"))
        except ConflictError as conflict:
            if not fixed or conflict.found != "ann":
                said["ann"] = "sold out"
                return "sold out"
        said["ann"] = "yours"
        return "yours"

    def answer_is_true(world: World) -> str:
        return "ann holds the seat and was told that it is sold out" if said.get("ann") == "sold out" and seats.rows.get("12A") == "ann" else ""

    return Scenario(main, invariants=[answer_is_true])
