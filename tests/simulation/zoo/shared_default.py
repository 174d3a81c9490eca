"""A list as a default argument: the second order finds the items of the first in its basket."""

from simulation.kit import retried
from yaoki.explore import FakeService, Scenario, World

BREAKS = "only_what_was_ordered"


def program(*, fixed: bool) -> Scenario:
    shop = FakeService("shop")

    def make():
        def basket(item: str, items: list[str] | None = None if fixed else []) -> list[str]:
            items = [] if items is None else items
            items.append(item)
            return items

        return basket

    async def main() -> None:
        basket = make()
        for who, item in (("ann", "tea"), ("bob", "jam")):
            for each in basket(item):
                await retried(lambda who=who, each=each: shop.book(f"{who}/{each}", key=f"{who}/{each}"))

    def only_what_was_ordered(world: World) -> str:
        wrong = shop.state.net.keys() - {"ann/tea", "bob/jam"}
        return f"{min(wrong)} was shipped and never ordered" if wrong else ""

    return Scenario(main, invariants=[only_what_was_ordered])
