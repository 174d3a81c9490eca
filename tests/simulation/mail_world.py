"""A shop, a depot, and the messages between them: the real stores, relay, broker, inbox and consumer, in a universe."""

from __future__ import annotations

import msgspec

from yaoki.errors import MessagesError
from yaoki.explore import FakeService, Scenario, World
from yaoki.explore.mail import mail_broker, mail_store
from yaoki.messages import Messages, Retries

ORDERS = (("o-1", "placed"), ("o-2", "placed"), ("o-1", "paid"))
PATIENCE_S = 90.0
RETRIES = Retries(first_s=0.5, cap_s=2.0)


class OrderChanged(msgspec.Struct):
    """What the shop tells. Changes of one order are handled in their order."""

    order: str
    change: str


def _messages(world: World, name: str, *, broker: bool) -> Messages:
    """One service's messages: its own store and a broker, or one store for all."""
    if broker:
        return Messages(name, mail_store(world, f"{name}.db"), broker=mail_broker(world))
    return Messages(name, mail_store(world, "orders.db"))


async def _open(world: World, app: Messages, work) -> None:
    """Work with the messages; when their disk or broker fails at the start, begin again, as a supervisor would."""
    while True:
        try:
            async with app:
                await work()
        except MessagesError as error:
            world.note(app.service, f"is started again: {error}")
            await world.sleep(1.0)
        else:
            return


def shop_and_depot(*, broker: bool, faults: list[str] | None = None, poison: str = "quarantine", keyed: bool = True) -> Scenario:
    """The shop publishes three changes of two orders; the depot books each at the warehouse, in order for each order."""
    warehouse = FakeService("warehouse")

    def handled() -> list[str]:
        return [subject for op, subject in warehouse.state.log if op == "book"]

    def all_handled() -> bool:
        return len(set(handled())) == len(ORDERS)

    async def shop(world: World) -> None:
        app = _messages(world, "shop", broker=broker)

        async def work() -> None:
            for number, (order, change) in enumerate(ORDERS):
                await app.publish(OrderChanged(order, change), key=order if keyed else "", id=f"m-{number}")
            while not all_handled() and world.now < PATIENCE_S + 50_000:
                await world.sleep(1.0)

        await _open(world, app, work)

    async def depot(world: World) -> None:
        app = _messages(world, "depot", broker=broker)

        @app.on(OrderChanged, retries=msgspec.structs.replace(RETRIES, poison=poison))
        async def ship(told: OrderChanged) -> None:
            await warehouse.book(f"{told.order} {told.change}")

        async def work() -> None:
            await world.sleep(PATIENCE_S * 10)

        await _open(world, app, work)

    async def main(world: World) -> None:
        world.start("depot", depot, world, daemon=True)
        world.start("shop", shop, world)

    def every_change_once_and_in_order(world: World) -> str:
        found = handled()
        missing = [f"{order} {change}" for order, change in ORDERS if f"{order} {change}" not in found]
        if missing and not any(point.fault == "msg.poison" for point in world.points):
            return f"{', '.join(missing)} never reached the warehouse"
        of_one = [each for each in dict.fromkeys(found) if each.startswith("o-1 ")]
        skipped = [["o-1 paid"]] if poison == "skip" else []  # then a key goes on without what nobody can read
        return "" if of_one in (["o-1 placed", "o-1 paid"], ["o-1 placed"], [], *skipped) else f"o-1 was handled in the order {of_one}"

    def others_go_on(world: World) -> str:
        """However bad a message is, another order's are handled."""
        return "" if {"o-1 placed", "o-2 placed"} & set(handled()) else "one message that cannot be read holds everything up"

    return Scenario(main, name="shop_and_depot", faults=faults, invariants=[every_change_once_and_in_order, others_go_on], same_answer=False)
